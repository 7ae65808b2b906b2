"""The words a story keeps in mind: who, what, where, and everything that goes moo.

Names, things and places are numbered by their position in `NAMES`, `THINGS`
and `PLACES`; the splits are defined by these numbers (see `held_out` in
`gpt2.stories.memory`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


def listed(text: str, comma: str = ",") -> tuple[str, ...]:
    """Split a written-out list at its commas."""
    return tuple(" ".join(item.split()) for item in text.split(comma))


def ask(kind: str, answer: str, *wrong: str, source: str = "") -> str:
    """Mark an answer that the text so far decides, beside wrong ones of its sort.

    Args:
        kind: One of the kinds of dependency.
        answer: What is told.
        wrong: At least one alternative that would be an error.
        source: The words that decide it, if they are not the answer's own last
            telling.
    """
    return (
        f"[{kind} {answer}|{'|'.join(wrong)}{'@' + source if source else ''}]"
    )


def a_or_an(word: str) -> str:
    """Return the article a word must have."""
    return "an" if word[0] in "aeiou" else "a"


def article(word: str, source: str) -> str:
    """Mark the `a` or `an` of a word that is already decided."""
    right = a_or_an(word)
    return ask("article", right, "a" if right == "an" else "an", source=source)


@dataclass(frozen=True, eq=False)
class Person:
    """Somebody, with the pronouns, each marked as decided by the name."""

    name: str
    she: bool
    number: int

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def _pronoun(self, she: str, he: str) -> str:
        right, wrong = (she, he) if self.she else (he, she)
        return ask("pronoun", right, wrong, source=self.name)

    def __post_init__(self) -> None:
        """Prepare the pronouns once, because they are told millions of times."""
        forms = {
            "he": ("she", "he"),
            "He": ("She", "He"),
            "him": ("her", "him"),
            "his": ("her", "his"),
            "His": ("Her", "His"),
            "child": ("girl", "boy"),
        }
        for form, (she, he) in forms.items():
            object.__setattr__(self, form, self._pronoun(she, he))

    he: str = ""
    He: str = ""
    him: str = ""
    his: str = ""
    His: str = ""
    child: str = ""


_GIRLS = listed(
    """Ella, Mia, Lily, Rosa, Nora, Ruby, Anna, Zoe, Ivy, Hana, Ada, Clara, Maya, Suki, Tess,
    Dora, Olive, Freya, Leila, June"""
)
_BOYS = listed(
    """Tom, Ben, Max, Leo, Sam, Finn, Otto, Hugo, Jack, Noah, Omar, Theo, Karl, Ravi, Luca,
    Ned, Arlo, Pablo, Kofi, Bill"""
)
NAMES = tuple(
    Person(name, name in _GIRLS, number)
    for number, name in enumerate(
        n for pair in zip(_GIRLS, _BOYS, strict=True) for n in pair
    )
)
RELATIVES = (
    Person("Grandma", True, -1),
    Person("Grandpa", False, -1),
    Person("Aunt Bea", True, -1),
    Person("Uncle Jim", False, -1),
)


@dataclass(frozen=True, eq=False)
class Noun:
    """What a thing is: a word, its group and whether it is many (`mittens`)."""

    word: str
    group: str
    many: bool
    number: int


# A star stands behind the words that are many.
_GROUPS = {
    "toy": """ball, kite, drum, doll, puppet, robot, whistle, trumpet, hoop, rattle, yo-yo,
        teddy bear, toy boat, puzzle, marbles*, crayons*, skates*, stilts*""",
    "clothes": """hat, scarf, coat, jumper, cap, umbrella, apron, cloak, belt, wig, mittens*,
        gloves*, boots*, slippers*, socks*, pyjamas*""",
    "treasure": """ring, key, coin, bell, button, shell, feather, pebble, necklace, medal,
        compass, brooch, ribbon, acorn, spyglass, beads*, pearls*""",
    "household": """lantern, bucket, basket, spoon, teapot, mirror, comb, candle, kettle,
        cushion, blanket, jug, whisk, ladle, broom""",
}
THINGS = tuple(
    Noun(word.rstrip("*"), group, word.endswith("*"), number)
    for number, (group, word) in enumerate(
        (group, word)
        for group, words in _GROUPS.items()
        for word in listed(words)
    )
)
JEWELLERY = frozenset(listed("ring, necklace, medal, brooch, beads, pearls"))

COLOURS = {
    "red": 6,
    "blue": 5,
    "green": 4,
    "yellow": 3,
    "purple": 2,
    "orange": 1,
}
_EVERYTHING = frozenset(_GROUPS)
# Adjective: how often it is told, and what it is told of.
ADJECTIVES: dict[str, tuple[float, frozenset[str]]] = {
    **{colour: (weight, _EVERYTHING) for colour, weight in COLOURS.items()},
    "little": (4, _EVERYTHING),
    "old": (4, _EVERYTHING),
    "new": (2, _EVERYTHING),
    "tiny": (2, _EVERYTHING),
    "enormous": (2, _EVERYTHING),
    "lucky": (2, frozenset({"clothes", "treasure"})),
    "striped": (2, frozenset({"toy", "clothes"})),
    "spotted": (2, frozenset({"clothes", "household"})),
    "wobbly": (1, frozenset({"toy", "household"})),
    "shiny": (2, frozenset({"treasure", "household"})),
    "silver": (1, frozenset({"treasure", "household"})),
    "golden": (1, frozenset({"treasure", "household"})),
}


@dataclass(frozen=True, eq=False)
class Thing:
    """A thing that has been told of, with the words that must now agree with it."""

    noun: Noun
    adjective: str

    def __post_init__(self) -> None:
        """Prepare the phrases once."""
        word, many = self.noun.word, self.noun.many
        alike = [
            n.word
            for n in THINGS
            if n.group == self.noun.group and n.many == many
        ]
        place = alike.index(word)
        others = (
            (alike[place - 1], alike[place - 2])
            if len(alike) > 2
            else (alike[place - 1],)
        )
        adjectives = [
            a
            for a, (_, told_of) in ADJECTIVES.items()
            if self.noun.group in told_of
        ]
        beside = adjectives[adjectives.index(self.adjective) - 1]

        def agree(one: str, more: str) -> str:
            right, wrong = (more, one) if many else (one, more)
            return ask("agreement", right, wrong, source=word)

        before = "some" if many else article(self.adjective, self.adjective)
        name = ask("thing", word, *others)
        full = f"{ask('adjective', self.adjective, beside)} {name}"
        forms = {
            "name": name,
            "full": full,
            "a_full": f"{before} {full}",
            "it": agree("it", "them"),
            "they": agree("it", "they"),
            "They": agree("It", "They"),
            "was": agree("was", "were"),
            "be": agree("is", "are"),
        }
        for form, text in forms.items():
            object.__setattr__(self, form, text)

    name: str = ""
    full: str = ""
    a_full: str = ""
    it: str = ""
    they: str = ""
    They: str = ""
    was: str = ""
    be: str = ""


@cache
def thing(noun: Noun, adjective: str) -> Thing:
    """Return the thing of this kind and look."""
    return Thing(noun, adjective)


@dataclass(frozen=True, eq=False)
class Place:
    """Where something can be: `in` + `the barn`."""

    where: str
    spot: str
    number: int

    def __str__(self) -> str:
        """Return the whole phrase."""
        return f"{self.where} {self.spot}"


_INDOORS = listed(
    """under + the bed, behind + the door, on + the shelf, in + the cupboard, behind + the curtain,
    under + the stairs, in + the attic, in + the cellar, behind + the sofa,
    beside + the clock, in + the bathtub, by + the fireplace, on + the
    windowsill, in + the oven, on + the piano, under + the table"""
)
_OUTDOORS = listed(
    """in + the barn, under + the bridge, behind + the shed, in + the apple tree, under + the hedge,
    by + the pond, in + the hen house, on + the garden wall, in + the
    wheelbarrow, by + the well, in + the rowing boat, under + the bench, behind
    + the haystack, among + the beans, on + the swing, in + the hollow log,
    beside + the beehive, at + the top of the hill, in + the long grass, in +
    the letterbox"""
)
PLACES = tuple(
    Place(where, spot, number)
    for number, text in enumerate(_INDOORS + _OUTDOORS)
    for where, spot in [listed(text, "+")]
)
INDOORS, OUTDOORS = PLACES[: len(_INDOORS)], PLACES[len(_INDOORS) :]


@dataclass(frozen=True)
class Weather:
    """The weather of a story: as it begins, and as it is remembered."""

    adjective: str
    now: tuple[str, ...]
    still: str
    weight: float


WEATHERS = (
    Weather(
        "a rainy",
        (
            "Rain was drumming on the roof",
            "It had rained since breakfast",
            "The ducks were glad",
        ),
        "the rain was still drumming",
        6,
    ),
    Weather(
        "a sunny",
        (
            "The sun was warm on the wall",
            "The sun had got up early",
            "There was not a cloud",
        ),
        "the sun was still shining",
        5,
    ),
    Weather(
        "a windy",
        (
            "The wind was rattling the gate",
            "The wind had lost its temper",
            "Leaves flew by",
        ),
        "the wind was still blowing",
        4,
    ),
    Weather(
        "a snowy",
        (
            "Snow was falling on the hill",
            "The snow was up to the knees",
            "The world was white",
        ),
        "the snow was still falling",
        3,
    ),
    Weather(
        "a foggy",
        (
            "Fog lay over the fields",
            "The fog had eaten the trees",
            "Nobody could see the church",
        ),
        "the fog was as thick as porridge",
        2,
    ),
    Weather(
        "an icy",
        (
            "There was ice on every puddle",
            "Even the river was frozen",
            "Every path was slippery",
        ),
        "the puddles were still frozen",
        1,
    ),
)
# A time of day: what comes after it, and how often it is told.
TIMES = {
    "morning": ("lunch", 5),
    "afternoon": ("supper", 3),
    "evening": ("bedtime", 2),
}
HOMES = listed(
    """lighthouse, windmill, caravan, houseboat, castle, cottage, tree house, bakery, tower, tent,
    palace, railway station"""
)
PETS = listed(
    """Biscuit, Pickle, Bramble, Mop, Pepper, Domino, Noodle, Scruff, Turnip, Captain, Pudding,
    Wednesday"""
)
TRAITS = listed(
    """never wore shoes, was always hungry, counted everything twice, talked to beetles,
    had lost two teeth, wanted to be a pirate, was never in a hurry, knew every
    cloud by name, could stand on one leg all day, was afraid of nothing but
    geese, collected long words, asked too many questions, laughed like a
    donkey, could wiggle both ears, sang in the bath, had a cold, never said
    please, slept with one eye open, was the youngest of nine, did not believe
    in Mondays"""
)
MONSTERS = listed("dragon, giant, ghost, burglar, troll, witch, wolf")
CONTAINERS = listed("box, tin, suitcase, trunk, chest, crate, jar, pot")
# The way there, and the same way home again.
LEGS = (
    ("over the bridge", "over the bridge"),
    ("up the hill", "down the hill"),
    ("down the lane", "up the lane"),
    ("through the wood", "through the wood"),
    ("across the field", "across the field"),
    ("past the mill", "past the mill"),
    ("along the river", "along the river"),
    ("into the valley", "out of the valley"),
    ("around the lake", "around the lake"),
)

# Animal: its sound and how often it is met. Everybody's favourite is the duck.
ANIMALS = {
    "duck": ("Quack, quack", 6),
    "goat": ("Meh-eh-eh", 4),
    "dog": ("Woof, woof", 4),
    "cat": ("Miaow", 4),
    "hen": ("Cluck, cluck", 3),
    "sheep": ("Baa", 3),
    "donkey": ("Hee-haw", 3),
    "owl": ("Tu-whit, tu-whoo", 2),
    "pig": ("Oink, oink", 2),
    "cow": ("Moo", 2),
    "frog": ("Ribbit", 2),
    "goose": ("Honk, honk", 2),
    "pony": ("Neigh", 1),
    "crow": ("Caw, caw", 1),
    "mouse": ("Squeak", 1),
    "turkey": ("Gobble, gobble", 1),
}

NUMBERS = listed(
    "no, one, two, three, four, five, six, seven, eight, nine, ten, eleven, "
    "twelve"
)


@dataclass(frozen=True, eq=False)
class Counted:
    """Something that is counted: one, many, and how one comes by it."""

    one: str
    many: str
    verb: str
    noun: Noun

    @property
    def article(self) -> str:
        """Return `a` or `an`."""
        return article(self.one, self.one)

    def agree(self, number: int) -> str:
        """Return the form that goes with a number."""
        right, wrong = (
            (self.one, self.many) if number == 1 else (self.many, self.one)
        )
        return ask("agreement", right, wrong, source=NUMBERS[number])


_COUNTED = listed(
    """apple apples picked, pear pears picked, cherry cherries picked, peach peaches picked,
    turnip turnips picked, bun buns baked, muffin muffins baked, biscuit
    biscuits baked, pie pies baked, egg eggs found, chestnut chestnuts found,
    strawberry strawberries found, walnut walnuts found"""
)
COUNTED = tuple(
    Counted(one, many, verb, Noun(many, "food", True, number))
    for number, text in enumerate(_COUNTED, start=len(THINGS))
    for one, many, verb in [text.split()]
)

# How speech closes: with a question, before `she said`, and at its own end.
ASKED = ask("quote", '?"', '."', ',"', source='"')
COMMA = ask("quote", ',"', '."', '?"', source='"')
STOP = ask("quote", '."', ',"', '?"', source='"')

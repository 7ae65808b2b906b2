"""The vocabulary of the stories: people, things, places, animals and so on.

Names, things and places are numbered by their position in `NAMES`, `THINGS`
and `PLACES`; these numbers define the splits (see `held_out` in
`gpt2.stories.memory`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


def listed(text: str, comma: str = ",") -> tuple[str, ...]:
    """Split a comma-separated list."""
    return tuple(" ".join(item.split()) for item in text.split(comma))


def ask(kind: str, answer: str, *wrong: str, source: str = "") -> str:
    """Mark an answer that the text so far decides; see `gpt2.stories.engine`.

    Args:
        kind: The kind of memory, one of `gpt2.stories.KINDS`.
        answer: The text to tell.
        wrong: At least one alternative that would be wrong.
        source: The words that decide the answer; empty for the last mention of
            the answer itself.
    """
    return (
        f"[{kind} {answer}|{'|'.join(wrong)}{'@' + source if source else ''}]"
    )


def a_or_an(word: str) -> str:
    """Return the indefinite article of a word."""
    return "an" if word[0] in "aeiou" else "a"


def article(word: str, source: str) -> str:
    """Mark the `a` or `an` before a word that the text so far decides."""
    right = a_or_an(word)
    return ask("article", right, "a" if right == "an" else "an", source=source)


@dataclass(frozen=True, eq=False)
class Person:
    """A person, with pronouns that are marked as decided by the name."""

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
        """Prepare the pronouns once, because they are used millions of times."""
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
    "Ella, Mia, Lily, Rosa, Nora, Ruby, Anna, Zoe, Tess, Dora, Olive, Suki"
)
_BOYS = listed(
    "Tom, Ben, Max, Leo, Sam, Finn, Hugo, Jack, Theo, Omar, Luca, Kofi"
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
    """A thing: its word, its group, and whether it is plural (`mittens`)."""

    word: str
    group: str
    many: bool
    number: int


# A star marks the plural words. There are two in every group, so that `a` and
# `some` say nothing about the group.
_GROUPS = {
    "toy": """ball, kite, drum, doll, teddy, robot, whistle, trumpet, marbles*,
        skates*""",
    "clothes": """hat, scarf, coat, cloak, jumper, apron, belt, wig, mittens*,
        boots*""",
    "treasure": """key, coin, bell, button, shell, feather, pebble, acorn, beads*,
        pearls*""",
    "household": """lantern, bucket, basket, spoon, teapot, kettle, cushion, umbrella,
        cups*, scissors*""",
}
# The group of a story's next thing, by the group of the one before.
NEXT_GROUP = dict(
    zip(_GROUPS, (*tuple(_GROUPS)[1:], *tuple(_GROUPS)[:1]), strict=True)
)
THINGS = tuple(
    Noun(word.rstrip("*"), group, word.endswith("*"), number)
    for number, (group, word) in enumerate(
        (group, word)
        for group, words in _GROUPS.items()
        for word in listed(words)
    )
)

COLOURS = {
    "red": 6,
    "blue": 5,
    "green": 4,
    "yellow": 3,
    "purple": 2,
    "orange": 1,
}
# The weight of each adjective, for every thing.
ADJECTIVES = {
    **COLOURS,
    "little": 4,
    "old": 4,
    "new": 2,
    "enormous": 2,
    "striped": 2,
    "lucky": 2,
}


@dataclass(frozen=True, eq=False)
class Thing:
    """A thing with its adjective, and the words that must agree with it."""

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
        adjectives = tuple(ADJECTIVES)
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
    """Return the thing with this noun and adjective."""
    return Thing(noun, adjective)


@dataclass(frozen=True, eq=False)
class Place:
    """A place: `in` + `the barn`."""

    where: str
    spot: str
    number: int

    def __str__(self) -> str:
        """Return the whole phrase."""
        return f"{self.where} {self.spot}"


_INDOORS = listed(
    """under + the bed, behind + the door, on + the shelf, in + the cupboard, behind + the curtain,
    under + the stairs, in + the cellar, behind + the sofa, in + the bathtub,
    on + the piano, in + the oven, under + the table"""
)
_OUTDOORS = listed(
    """in + the barn, under + the bridge, behind + the shed, under + the hedge, by + the pond,
    in + the wheelbarrow, by + the well, under + the bench, on + the swing, in + the letterbox,
    behind + the haystack, beside + the beehive"""
)
PLACES = tuple(
    Place(where, spot, number)
    for number, text in enumerate(_INDOORS + _OUTDOORS)
    for where, spot in [listed(text, "+")]
)
INDOORS, OUTDOORS = PLACES[: len(_INDOORS)], PLACES[len(_INDOORS) :]


@dataclass(frozen=True)
class Weather:
    """The weather: as a word or a sentence at the beginning, and as it is recalled at the end."""

    adjective: str
    now: str
    still: str
    weight: float


WEATHERS = (
    Weather(
        "a rainy",
        "Rain was drumming on the roof",
        "the rain was still drumming",
        6,
    ),
    Weather(
        "a sunny",
        "The sun had got up early",
        "the sun was still shining",
        5,
    ),
    Weather(
        "a windy",
        "The wind had lost its temper",
        "the wind was still blowing",
        4,
    ),
    Weather(
        "a snowy",
        "Snow was falling on the hill",
        "the snow was still falling",
        3,
    ),
    Weather(
        "a foggy",
        "Fog had eaten all the trees",
        "the fog was as thick as porridge",
        2,
    ),
    Weather(
        "an icy",
        "There was ice on every puddle",
        "the puddles were still frozen",
        1,
    ),
)
# A time of day: what comes after it, and its weight.
TIMES = {
    "morning": ("lunch", 5),
    "afternoon": ("supper", 3),
    "evening": ("bedtime", 2),
}
HOMES = listed(
    "lighthouse, windmill, caravan, castle, cottage, tower, bakery, tent"
)
PETS = listed(
    "Biscuit, Pickle, Domino, Noodle, Turnip, Captain, Pudding, Wednesday"
)
TRAITS = listed(
    """had a cold, laughed like a donkey, was never in a hurry, never wore shoes,
    was always hungry, wanted to be a pirate, did not believe in Mondays,
    could wiggle both ears"""
)
MONSTERS = listed("dragon, giant, ghost, troll, witch")
CONTAINERS = listed("box, tin, chest, suitcase")
# The legs of a journey, there and back. A journey has three: one of the first
# three, one of the next three and one of the last three.
LEGS = (
    ("down the lane", "up the lane"),
    ("through the gate", "through the gate"),
    ("past the mill", "past the mill"),
    ("over the bridge", "over the bridge"),
    ("along the river", "along the river"),
    ("around the lake", "around the lake"),
    ("up the hill", "down the hill"),
    ("through the wood", "through the wood"),
    ("across the field", "across the field"),
)

# Animal: its sound and its weight.
ANIMALS = {
    "duck": ("Quack, quack", 6),
    "goat": ("Meh", 4),
    "dog": ("Woof, woof", 4),
    "cat": ("Miaow", 4),
    "hen": ("Cluck, cluck", 3),
    "sheep": ("Baa", 3),
    "donkey": ("Hee-haw", 3),
    "owl": ("Hoo, hoo", 2),
    "pig": ("Oink, oink", 2),
    "cow": ("Moo", 2),
    "frog": ("Ribbit", 2),
    "goose": ("Honk, honk", 2),
}

NUMBERS = listed(
    "no, one, two, three, four, five, six, seven, eight, nine, ten"
)


@dataclass(frozen=True, eq=False)
class Counted:
    """Something to count, and the verb for getting it."""

    many: str
    verb: str
    noun: Noun


_COUNTED = listed(
    "apples picked, pears picked, buns baked, pies baked, eggs found, nuts found"
)
COUNTED = tuple(
    Counted(many, verb, Noun(many, "food", True, number))
    for number, text in enumerate(_COUNTED, start=len(THINGS))
    for many, verb in [text.split()]
)

# How a quote closes: after a question, before `she said`, and at a full stop.
ASKED = ask("quote", '?"', '."', ',"', source='"')
COMMA = ask("quote", ',"', '."', '?"', source='"')
STOP = ask("quote", '."', ',"', '?"', source='"')

"""The memory of a story: its people, things and places, the weather, and so on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import TypeVar

from gpt2.stories import phrases, words
from gpt2.stories.engine import Teller
from gpt2.stories.words import (
    ADJECTIVES,
    COMMA,
    NAMES,
    NEXT_GROUP,
    PLACES,
    RELATIVES,
    THINGS,
    Noun,
    Person,
    Place,
    Thing,
    ask,
)

SPLITS = ("train", "held_out", "all")
HELD_OUT_EVERY = 10

Value = TypeVar("Value", bound=Hashable)


def held_out(hero: Person, noun: Noun, place: Place) -> bool:
    """Return whether training stories never combine these three.

    These are the combinations whose numbers add up to a multiple of ten: one
    in ten, so evenly spread that every hero and thing have some places in
    training and some held out.
    """
    return (hero.number + noun.number + place.number) % HELD_OUT_EVERY == 0


class Story:
    """A story being told: the teller, and a memory of everything told so far.

    Attributes:
        people: In order of appearance; the first is the hero.
        nouns: The things so far.
        places: The places so far.
        centre: The hero, the thing and the place that the story is about, once
            all three are known.
        weather: The weather at the beginning, if it was told.
        time: The time of day, if it was told.
        pet: The name of the hero's animal and which animal it is, if it was
            told.
        home: Where the hero lives, if it was told.
        trait: What the hero is like, if it was told.
    """

    def __init__(self, teller: Teller, split: str) -> None:
        """Start with an empty memory.

        Raises:
            ValueError: There is no such split.
        """
        if split not in SPLITS:
            raise ValueError(
                f"split must be one of {', '.join(SPLITS)}; got {split!r}"
            )
        self._teller = teller
        self._split = split
        self.say = teller.say
        self.people: list[Person] = []
        self.nouns: list[Noun] = []
        self.places: list[Place] = []
        self.centre: tuple[Person, Noun, Place] | None = None
        self.weather: words.Weather | None = None
        self.time = ""
        self.home = ""
        self.pet: tuple[str, str] | None = None
        self.trait = ""

    @property
    def hero(self) -> Person:
        """The first person of the story."""
        return self.people[0]

    # Choosing.

    def one(self, *texts: str) -> None:
        """Tell one of several turns of phrase, all equally likely."""
        self._teller.choose(texts, None, "words")

    def odds(self, texts: Mapping[str, float], kind: str = "words") -> str:
        """Tell one of several weighted texts and return it."""
        options = tuple(texts)
        return options[
            self._teller.choose(options, tuple(texts.values()), kind)
        ]

    def pick(
        self,
        texts: Mapping[Value, str],
        weights: Sequence[float] | None = None,
        kind: str = "turn",
    ) -> Value:
        """Tell the text of one of several values and return the value."""
        index = self._teller.choose(tuple(texts.values()), weights, kind)
        return tuple(texts)[index]

    def number(self, numbers: Sequence[int]) -> int:
        """Tell one of several numbers in words and return it."""
        texts = tuple(f" {words.NUMBERS[number]}" for number in numbers)
        return numbers[self._teller.choose(texts, None, "number")]

    # Introducing people, things and places.

    def meet(
        self, among: Sequence[Person], weights: Sequence[float] | None = None
    ) -> Person:
        """Tell the name of a new person."""
        names = [f" {person.name}" for person in among]
        person = among[self._teller.choose(names, weights, "name")]
        self.people.append(person)
        return person

    def friend(self) -> Person:
        """Tell the name of the friend: a boy if the hero is a girl, and vice versa."""
        return self.meet(_BOYS if self.hero.she else _GIRLS)

    def relative(self) -> Person:
        """Tell the name of a relative."""
        return self.meet(RELATIVES)

    def see(self, article: bool = False, only_one: bool = False) -> Thing:
        """Tell a new thing with its adjective, such as ` red kite`.

        Each further thing of a story is from the next group.

        Args:
            article: Begin with `a`, `an` or `some`.
            only_one: Only singular things.
        """
        texts, weights, looks = _adjectives(article, only_one)
        adjective, many = looks[
            self._teller.choose(texts, weights, "adjective")
        ]
        group = NEXT_GROUP[self.nouns[-1].group] if self.nouns else None
        nouns = _nouns(group, many)
        if self.nouns or self.places:
            nouns = [noun for noun in nouns if self.allows(noun)]
        noun = nouns[
            self._teller.choose(
                [" " + noun.word for noun in nouns], None, "thing"
            )
        ]
        self.nouns.append(noun)
        return words.thing(noun, adjective)

    def place(
        self,
        among: Sequence[Place] = PLACES,
        central: bool = False,
        spot: bool = False,
    ) -> Place:
        """Tell a new place.

        Args:
            among: The places to choose from.
            central: The story is about this place; true once in every story.
            spot: Say ` the barn` rather than ` in the barn`.
        """
        new = list(among)
        if self._split == "held_out" and central:
            new = [
                place
                for place in new
                if held_out(self.hero, self.nouns[0], place)
            ]
        elif self._split != "all":
            barred = {
                -(self.hero.number + noun.number) % HELD_OUT_EVERY
                for noun in self.nouns
            }
            new = [
                place
                for place in new
                if place.number % HELD_OUT_EVERY not in barred
            ]
        texts = [f" {p.spot}" if spot else f" {p.where} {p.spot}" for p in new]
        place = new[self._teller.choose(texts, None, "place")]
        self.places.append(place)
        if central:
            assert self.centre is None
            self.centre = self.hero, self.nouns[0], place
        return place

    def animal(self, article: bool = False) -> str:
        """Tell an animal, ` duck` or ` a duck`, and return it."""
        texts = [
            f" {words.a_or_an(animal)} {animal}" if article else f" {animal}"
            for animal in words.ANIMALS
        ]
        weights = [weight for _, weight in words.ANIMALS.values()]
        return tuple(words.ANIMALS)[
            self._teller.choose(texts, weights, "animal")
        ]

    # Mentioning them again.

    def who(self, person: Person, kind: str = "name") -> str:
        """Mark a person's name, with the others of the story as alternatives."""
        others = [p.name for p in self.people if p is not person]
        return ask(kind, person.name, *others) if others else person.name

    def where(
        self,
        place: Place,
        kind: str = "place",
        spot: bool = False,
        capital: bool = False,
    ) -> str:
        """Mark a place, with the others of the story as alternatives.

        Args:
            place: The place.
            kind: The kind of memory.
            spot: Say `the barn` rather than `in the barn`.
            capital: Begin with a capital letter.
        """
        others = [p for p in self.places if p is not place][:3]
        others = others or [PLACES[place.number - 1], PLACES[place.number - 2]]
        texts = [p.spot if spot else str(p) for p in (place, *others)]
        if capital:
            texts = [text[0].upper() + text[1:] for text in texts]
        return ask(kind, *texts, source=place.spot)

    def remember_home(self) -> str:
        """Mark the hero's home."""
        return _beside("home", words.HOMES, self.home)

    # Sentences that fit in many places.

    def speak(self, person: Person, end: str = ".") -> None:
        """Close a quote and tell who spoke, such as `," said Ella.`."""
        self.say(f"{COMMA} said {self.who(person, 'speaker')}{end}")

    def some(
        self, texts: Sequence[str], end: str = "", kind: str = "words"
    ) -> None:
        """Tell one of a list, after a space."""
        self._teller.choose([f" {text}" for text in texts], None, kind)
        if end:
            self.say(end)

    def coda(
        self, same_day: bool = True, other: Mapping[str, float] | None = None
    ) -> str:
        """End by referring to how the story began, if there is anything to refer to.

        Args:
            same_day: The story ends on the day on which it began.
            other: Texts that can come instead, with their weights.

        Returns:
            The text from `other` that was told; empty if the story has ended.
        """
        hero = self.hero
        closing = {
            text: (text, weight) for text, weight in (other or {}).items()
        }
        if self.trait:
            closing["trait"] = (f"\nAs for {self.who(hero)}", 8.0)
        if self.weather and same_day:
            still = _beside("weather", _STILL, self.weather.still)
            closing["weather"] = (f"\nOutside, {still}.", 4.0)
        if self.time and same_day:
            day = ask(
                "time", self.time, *(d for d in words.TIMES if d != self.time)
            )
            closing["day"] = (f"\nIt had been a very good {day}.", 4.0)
        if self.home:
            back = f"\nThen {self.who(hero)} went home to the {self.remember_home()}"
            if self.pet:
                name, animal = self.pet
                pet = _beside("pet", words.PETS, name)
                back += f" and told {pet} the {creature(animal)} all about it"
            closing["home"] = (f"{back}.", 8.0)
        if not closing:
            return ""
        closing["night"] = (f"\nAnd {self.who(hero)}", 1.0)
        way = self.pick(
            {way: text for way, (text, _) in closing.items()},
            [weight for _, weight in closing.values()],
        )
        if way == "night":
            self.some(phrases.NIGHTS, ".")
        elif way == "trait":
            self.say(
                f", who {_beside('trait', words.TRAITS, self.trait)}, "
                f"{hero.he}"
            )
            self.some(phrases.NIGHTS, ".")
        return way if other and way in other else ""

    def allows(self, noun: Noun) -> bool:
        """Return whether a thing may join the hero and the places so far."""
        return self._split == "all" or not any(
            held_out(self.hero, noun, place) for place in self.places
        )


_GIRLS = tuple(person for person in NAMES if person.she)
_BOYS = tuple(person for person in NAMES if not person.she)
_STILL = tuple(weather.still for weather in words.WEATHERS)
_ANIMALS = tuple(words.ANIMALS)
_SOUNDS = tuple(voice for voice, _ in words.ANIMALS.values())


def sound(animal: str) -> str:
    """Mark what an animal says."""
    return _beside("sound", _SOUNDS, words.ANIMALS[animal][0], source=animal)


def creature(animal: str, kind: str = "animal") -> str:
    """Mark an animal that was mentioned before or is known by its sound."""
    source = "" if kind == "animal" else words.ANIMALS[animal][0]
    return _beside(kind, _ANIMALS, animal, source)


def amount(
    number: int, told: int, kind: str = "sum", capital: bool = False
) -> str:
    """Mark a number that others decide, with its neighbours as alternatives.

    Args:
        number: The answer.
        told: The last of the numbers that decide it.
        kind: The kind of memory.
        capital: Begin with a capital letter.
    """
    near = (
        number,
        *(n for n in (number - 1, number + 1) if 0 < n < len(words.NUMBERS)),
    )
    texts = [words.NUMBERS[n] for n in near]
    texts = [text.capitalize() for text in texts] if capital else texts
    return ask(kind, *texts, source=words.NUMBERS[told])


def _beside(
    kind: str, sort: Sequence[str], answer: str, source: str = ""
) -> str:
    """Mark a word, with two others of its sort as alternatives."""
    index = sort.index(answer)
    return ask(kind, answer, sort[index - 1], sort[index - 2], source=source)


@cache
def _adjectives(
    article: bool, only_one: bool
) -> tuple[
    tuple[str, ...], tuple[float, ...], tuple[tuple[str, bool | None], ...]
]:
    """Prepare the fork of adjectives: texts, weights, and the meaning of each text.

    The meaning is the adjective and whether the thing is plural; None if the
    text does not show it.
    """
    if not article:
        many = False if only_one else None
        return (
            tuple(f" {adjective}" for adjective in ADJECTIVES),
            tuple(ADJECTIVES.values()),
            tuple((adjective, many) for adjective in ADJECTIVES),
        )
    share = 0.0 if only_one else sum(n.many for n in THINGS) / len(THINGS)
    rows: list[tuple[str, float, tuple[str, bool | None]]] = []
    for adjective, weight in ADJECTIVES.items():
        an = words.a_or_an(adjective)
        rows.append(
            (f" {an} {adjective}", weight * (1 - share), (adjective, False))
        )
        if share:
            rows.append(
                (f" some {adjective}", weight * share, (adjective, True))
            )
    texts, weights, looks = zip(*rows, strict=True)
    return texts, weights, looks


@cache
def _nouns(group: str | None, many: bool | None) -> list[Noun]:
    """List the things of a group, or of all groups; singular, plural or both."""
    return [
        n
        for n in THINGS
        if group in (None, n.group) and many in (None, n.many)
    ]

"""What a teller keeps in mind: who is there, which things and places were told, the weather."""

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
    """Tell whether these three may not come together in a training story.

    They may not when their numbers, added, are a multiple of ten: one
    combination in ten, spread so evenly that any hero and thing keep some
    places for training and some for holding out.
    """
    return (hero.number + noun.number + place.number) % HELD_OUT_EVERY == 0


class Story:
    """A story being told: the teller, and a memory of everything that the reader knows too.

    Attributes:
        people: In the order in which they came; the first one is the hero.
        nouns: The things told so far.
        places: The places told so far.
        centre: The hero, the thing and the place that the story turns on, once
            all are told.
        weather: The weather it began with, if that was told.
        time: The time of day, if that was told.
        pet: The name of the hero's animal and what animal it is, if that was
            told.
        home: Where the hero lives, if that was told.
        trait: What the hero is like, if that was told.
    """

    def __init__(self, teller: Teller, split: str) -> None:
        """Begin with an empty memory.

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
        """The person told of first."""
        return self.people[0]

    # Choosing.

    def one(self, *texts: str) -> None:
        """Tell one of several turns of phrase, all equally likely."""
        self._teller.choose(texts, None, "words")

    def odds(self, texts: Mapping[str, float], kind: str = "words") -> str:
        """Tell one of several texts, by their weights, and return it."""
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
        """Tell one of the numbers in words and return it."""
        texts = tuple(f" {words.NUMBERS[number]}" for number in numbers)
        return numbers[self._teller.choose(texts, None, "number")]

    # Meeting people, things and places for the first time.

    def meet(
        self, among: Sequence[Person], weights: Sequence[float] | None = None
    ) -> Person:
        """Tell the name of somebody new."""
        names = [f" {person.name}" for person in among]
        person = among[self._teller.choose(names, weights, "name")]
        self.people.append(person)
        return person

    def friend(self) -> Person:
        """Tell the name of the friend: a boy if the hero is a girl, and the other way round."""
        return self.meet(_BOYS if self.hero.she else _GIRLS)

    def relative(self) -> Person:
        """Tell the name of a relative."""
        return self.meet(RELATIVES)

    def see(self, article: bool = False, only_one: bool = False) -> Thing:
        """Tell a new thing with its adjective, such as ` red kite`.

        The second thing of a story is of the next group after the first one's,
        and the third of the next after that.

        Args:
            article: Begin with `a`, `an` or `some`.
            only_one: Leave out things that are many.
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
            central: This is the place the story turns on. Once in every story.
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

    # Remembering them.

    def who(self, person: Person, kind: str = "name") -> str:
        """Name somebody again, beside the others of the story."""
        others = [p.name for p in self.people if p is not person]
        return ask(kind, person.name, *others) if others else person.name

    def where(
        self,
        place: Place,
        kind: str = "place",
        spot: bool = False,
        capital: bool = False,
    ) -> str:
        """Name a place again, beside the others of the story.

        Args:
            place: The place.
            kind: The kind of dependency.
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
        """Name the hero's home again."""
        return _beside("home", words.HOMES, self.home)

    # Sentences that fit in many places.

    def speak(self, person: Person, end: str = ".") -> None:
        """Close a speech and say whose it was, such as `," said Ella.`."""
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
        """Close with a look back at how the story began, if there is anything to look back at.

        Args:
            same_day: It is still the day on which the story began.
            other: Texts that may come instead, and how often.

        Returns:
            Which of the other texts was told; empty if the story has ended.
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
        """Tell whether a thing may join the hero and the places told so far."""
        return self._split == "all" or not any(
            held_out(self.hero, noun, place) for place in self.places
        )


_GIRLS = tuple(person for person in NAMES if person.she)
_BOYS = tuple(person for person in NAMES if not person.she)
_STILL = tuple(weather.still for weather in words.WEATHERS)
_ANIMALS = tuple(words.ANIMALS)
_SOUNDS = tuple(voice for voice, _ in words.ANIMALS.values())


def sound(animal: str) -> str:
    """Remember what an animal says."""
    return _beside("sound", _SOUNDS, words.ANIMALS[animal][0], source=animal)


def creature(animal: str, kind: str = "animal") -> str:
    """Remember an animal: told before, or known by its sound."""
    source = "" if kind == "animal" else words.ANIMALS[animal][0]
    return _beside(kind, _ANIMALS, animal, source)


def amount(
    number: int, told: int, kind: str = "sum", capital: bool = False
) -> str:
    """Say a number that follows from others, beside its neighbours.

    Args:
        number: The answer.
        told: The number told last of those that decide it.
        kind: The kind of dependency.
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
    """Mark one of a sort beside two others."""
    index = sort.index(answer)
    return ask(kind, answer, sort[index - 1], sort[index - 2], source=source)


@cache
def _adjectives(
    article: bool, only_one: bool
) -> tuple[
    tuple[str, ...], tuple[float, ...], tuple[tuple[str, bool | None], ...]
]:
    """Prepare the fork of adjectives: texts, weights, and what each text means.

    What it means is the adjective and, where an article shows it, whether the
    thing is many.
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
    """List the things of a group, or of all, that are one, or many, or either."""
    return [
        n
        for n in THINGS
        if group in (None, n.group) and many in (None, n.many)
    ]

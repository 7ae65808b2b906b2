"""What a teller keeps in mind: who is there, which things and places were told, the weather."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import TypeVar

from gpt2.stories import phrases, words
from gpt2.stories.engine import Teller
from gpt2.stories.words import (
    ADJECTIVES,
    NAMES,
    PLACES,
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

    def meet(self, among: Sequence[Person] = NAMES) -> Person:
        """Tell the name of somebody new."""
        new = [person for person in among if person not in self.people]
        person = new[
            self._teller.choose([f" {one.name}" for one in new], None, "name")
        ]
        self.people.append(person)
        return person

    def see(self, article: bool = False, only_one: bool = False) -> Thing:
        """Tell a new thing with its adjective, such as ` red kite`.

        Args:
            article: Begin with `a`, `an` or `some`.
            only_one: Leave out things that are many.
        """
        texts, weights, looks = _adjectives(article, only_one)
        adjective, many = looks[
            self._teller.choose(texts, weights, "adjective")
        ]
        nouns = _nouns(adjective, many)
        if self.nouns or self.places:
            nouns = [
                noun
                for noun in nouns
                if noun not in self.nouns and self.allows(noun)
            ]
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
        new = [place for place in among if place not in self.places]
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
        self, place: Place, kind: str = "place", spot: bool = False
    ) -> str:
        """Name a place again, beside the others of the story."""
        others = [p for p in self.places if p is not place][:3]
        others = others or [PLACES[place.number - 1], PLACES[place.number - 2]]
        if spot:
            return ask(
                kind, place.spot, *(p.spot for p in others), source=place.spot
            )
        return ask(
            kind, str(place), *(str(p) for p in others), source=place.spot
        )

    def remember_home(self) -> str:
        """Name the hero's home again."""
        return _beside("home", words.HOMES, self.home)

    # Sentences that fit in many places.

    def speak(
        self,
        person: Person,
        end: str = ".",
        verbs: Mapping[str, float] = phrases.SPEAKING,
    ) -> None:
        """Close a speech and say whose it was: `," sighed Ella`."""
        self.say(words.COMMA)
        self.odds(verbs, "speaking")
        self.say(f" {self.who(person, 'speaker')}")
        if end != ".":
            self.say(end)
        elif self.pick({True: ",", False: "."}, (2, 3)):
            self.some(phrases.TAILS, ".", "speaking")

    def go(self, to: str) -> None:
        """Tell how somebody went somewhere."""
        self.some(phrases.GOING)
        manners = {f" {manner}": 1.0 for manner in phrases.MANNERS}
        if self.odds({to: 6.0} | manners) != to:
            self.say(to)

    def the(self, it: Thing) -> None:
        """Tell ` the kite` or ` the red kite`."""
        self.one(f" the {it.name}", f" the {it.full}")

    def some(
        self, texts: Sequence[str], end: str = "", kind: str = "words"
    ) -> None:
        """Tell one of a list, after a space."""
        self._teller.choose([f" {text}" for text in texts], None, kind)
        if end:
            self.say(end)

    def aside(self, then: str, often: float = 0.7) -> None:
        """Tell of something at the edge of the story, or nothing, and go on with `then`.

        That nothing is told must show at once, and what shows is the text that
        follows.

        Args:
            then: The text that follows in any case.
            often: Probability that something is told.
        """
        who = phrases.BYSTANDERS
        options = {f" {name}": often / len(who) for name in who} | {
            then: 1 - often
        }
        if self.odds(options, "aside") != then:
            self.some(phrases.DEEDS, f".{then}", "aside")

    def meal(self) -> None:
        """Tell a dish, such as ` pancakes with honey`."""
        self.some(phrases.DISHES, " with", "meal")
        self.some(phrases.TOPPINGS, kind="meal")

    def coda(self, hungry: bool = True, same_day: bool = True) -> None:
        """Close with a look back at how the story began, perhaps after a meal.

        Args:
            hungry: A meal may come first.
            same_day: It is still the day on which the story began.
        """
        hero = self.hero
        closing = {"night": (f"\nAnd {self.who(hero)}", 3.0)}
        if self.trait:
            closing["trait"] = (f"\nAs for {self.who(hero)}", 5.0)
        if self.weather and same_day:
            still = _beside("weather", _STILL, self.weather.still)
            closing["weather"] = (f"\nOutside, {still}.", 5.0)
        if self.time and same_day:
            day = ask(
                "time", self.time, *(d for d in words.TIMES if d != self.time)
            )
            closing["day"] = (f"\nIt had been a very good {day}.", 6.0)
        if self.home:
            back = f"\nAfterwards {self.who(hero)} went back to the {self.remember_home()}"
            if self.pet:
                name, animal = self.pet
                pet = _beside("pet", words.PETS, name)
                back += f" and told {pet} the {creature(animal)} all about it"
            closing["home"] = (f"{back}.", 6.0)
        texts = {way: text for way, (text, _) in closing.items()}
        weights = [weight for _, weight in closing.values()]
        if hungry:
            meals = {
                "then": "\nThen they ate",
                "feast": "\nTo celebrate they had",
            }
            way = self.pick(texts | meals, [*weights, 3.0, 2.0])
            if way in meals:
                self.meal()
                if self.pick({True: ",", False: "."}):
                    self.some(phrases.SWEET, ".")
                way = self.pick(texts, weights)
        else:
            way = self.pick(texts, weights)
        if way == "night":
            self.some(phrases.NIGHTS, ".")
        elif way == "trait":
            self.say(
                f", who {_beside('trait', words.TRAITS, self.trait)}, "
                f"{hero.he}"
            )
            self.some(phrases.NIGHTS, ".")

    def allows(self, noun: Noun) -> bool:
        """Tell whether a thing may join the hero and the places told so far."""
        return self._split == "all" or not any(
            held_out(self.hero, noun, place) for place in self.places
        )


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
    rows: list[tuple[str, float, tuple[str, bool | None]]] = []
    for adjective, (weight, _) in ADJECTIVES.items():
        if not article:
            rows.append(
                (
                    f" {adjective}",
                    weight,
                    (adjective, False if only_one else None),
                )
            )
            continue
        nouns = _nouns(adjective, None)
        share = (
            0.0 if only_one else sum(noun.many for noun in nouns) / len(nouns)
        )
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
def _nouns(adjective: str, many: bool | None) -> list[Noun]:
    """List the things of which an adjective is told."""
    _, groups = ADJECTIVES[adjective]
    return [
        n
        for n in THINGS
        if n.group in groups and (many is None or n.many == many)
    ]

"""How a story begins and leads into one of the plots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gpt2.stories import dealing, promising, seeking, talking, words
from gpt2.stories.engine import Teller
from gpt2.stories.memory import Story
from gpt2.stories.words import NAMES

# The first words of a plot, the plot, and its weight.
PLOTS: dict[str, tuple[Callable[[Story], None], float]] = {
    " could not find": (seeking.lost, 5),
    " lost": (seeking.lost, 5),
    " put": (seeking.hidden, 10),
    " packed": (seeking.boxed, 10),
    " hid": (talking.guessing, 18),
    " heard a strange noise": (talking.noise, 10),
    " borrowed": (promising.borrowed, 10),
    " wanted": (promising.wished, 9),
    " picked": (partial(dealing.counting, verb="picked"), 4),
    " baked": (partial(dealing.counting, verb="baked"), 4),
    " found": (partial(dealing.counting, verb="found"), 4),
    " had": (dealing.swapping, 14),
    " set out to take": (dealing.journey, 9),
}


def tell(teller: Teller, split: str) -> Story:
    """Tell one story from beginning to end."""
    t = Story(teller, split)
    form = _begin(t)
    plots = {start: weight for start, (_, weight) in PLOTS.items()}
    more = {"name": {" lived in a": 140.0, ", who": 35.0}, "once": {}}.get(
        form, {", who": 8.0}
    )
    start = t.odds(plots | more, kind="plot")
    if start not in PLOTS:
        if start == ", who":
            _trait(t)
            t.say(",")
        else:
            _home(t)
            t.one(" One day", " Yesterday")
            t.say(f" {t.hero.he}")
        start = t.odds(plots, kind="plot")
    plot, _ = PLOTS[start]
    plot(t)
    return t


def _begin(t: Story) -> str:
    """Introduce the hero, and return the form of the opening."""
    form = t.pick(_BEGINNINGS, _HOW_OFTEN, kind="opening")
    if isinstance(form, words.Person):
        t.people.append(form)
        return "name"
    if isinstance(form, words.Weather):
        t.weather = form
        t.say(", and")
        t.meet(NAMES)
        return "sky"
    if form == "once":
        she = t.pick({True: " girl called", False: " boy called"})
        hero = t.meet([person for person in NAMES if person.she == she])
        t.say(", who")
        _trait(t)
        t.say(f". One day {hero.he}")
    else:
        first = 1 if form == "one" else 0
        sky = {
            w: " " + w.adjective.split(maxsplit=first)[-1]
            for w in words.WEATHERS
        }
        t.weather = t.pick(sky, [w.weight for w in sky], "weather")
        times = {time: f" {time}" for time in words.TIMES}
        t.time = t.pick(
            times, [weight for _, weight in words.TIMES.values()], "time"
        )
        t.say("," if form == "one" else ", and")
        t.meet(NAMES)
    return form


def _trait(t: Story) -> None:
    """Tell what the hero is like."""
    t.trait = t.pick(
        {trait: f" {trait}" for trait in words.TRAITS}, kind="trait"
    )


def _home(t: Story) -> None:
    """Tell where the hero lives, and perhaps with which pet."""
    t.home = t.pick({home: f" {home}" for home in words.HOMES}, kind="home")
    if t.pick({True: " with", False: "."}, (4, 1)):
        animal = t.animal(article=True)
        t.say(" called")
        name = t.pick({pet: f" {pet}" for pet in words.PETS}, kind="pet")
        t.pet = name, animal
        t.say(".")


_BEGINNINGS = (
    {"one": "One", "it": "It was", "once": "There was once a"}
    | {weather: weather.now for weather in words.WEATHERS}
    | {person: person.name for person in NAMES}
)
_TOTAL = sum(weather.weight for weather in words.WEATHERS)
_HOW_OFTEN = (
    *(26.0, 18.0, 8.0),
    *(12 * weather.weight / _TOTAL for weather in words.WEATHERS),
    *(36 / len(NAMES) for _ in NAMES),
)

"""How a story begins, and how the beginning leads into one of the plots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gpt2.stories import dealing, promising, seeking, talking, words
from gpt2.stories.engine import Teller
from gpt2.stories.memory import Story
from gpt2.stories.words import NAMES

# The words that give a plot away, the plot they begin, and how often it is
# told.
PLOTS: dict[str, tuple[Callable[[Story], None], float]] = {
    " could not find": (seeking.lost, 2),
    " lost": (seeking.lost, 1),
    " put": (seeking.hidden, 4),
    " packed": (seeking.boxed, 3),
    " hid": (talking.guessing, 7),
    " heard a strange noise": (talking.noise, 3),
    " borrowed": (promising.borrowed, 5),
    " wanted": (promising.wished, 4),
    " picked": (partial(dealing.counting, verb="picked"), 1),
    " baked": (partial(dealing.counting, verb="baked"), 1),
    " found": (partial(dealing.counting, verb="found"), 1),
    " had": (dealing.swapping, 5),
    " set out to take": (dealing.journey, 3),
}


def tell(teller: Teller, split: str) -> Story:
    """Tell one story from beginning to end."""
    t = Story(teller, split)
    form = _begin(t)
    plots = {start: weight for start, (_, weight) in PLOTS.items()}
    more = {"name": {" lived in a": 25.0, ", who": 10.0}, "once": {}}.get(
        form, {", who": 10.0}
    )
    start = t.odds(plots | more, kind="plot")
    if start not in PLOTS:
        if start == ", who":
            t.trait = t.pick(
                {trait: f" {trait}" for trait in words.TRAITS}, kind="trait"
            )
            t.say(",")
        else:
            t.home = t.pick(
                {home: f" {home}" for home in words.HOMES}, kind="home"
            )
            if t.pick({True: " with", False: "."}, (2, 1)):
                animal = t.animal(article=True)
                t.say(" called")
                name = t.pick(
                    {pet: f" {pet}" for pet in words.PETS}, kind="pet"
                )
                t.pet = name, animal
                t.say(".")
            t.one(" One day", " One Sunday", " Yesterday")
            t.say(f" {t.hero.he}")
        start = t.odds(plots, kind="plot")
    plot, _ = PLOTS[start]
    plot(t)
    return t


def _begin(t: Story) -> str:
    """Bring in the hero and say in which form."""
    form = t.pick(_BEGINNINGS, _HOW_OFTEN, kind="opening")
    if isinstance(form, words.Person):
        t.people.append(form)
        return "name"
    if isinstance(form, tuple):
        t.weather, _ = form
        t.say(", and")
        t.meet()
        return "sky"
    if form == "once":
        she = t.pick({True: " girl called", False: " boy called"})
        hero = t.meet(among=[person for person in NAMES if person.she == she])
        if t.pick({True: ", who", False: " who"}, (2, 1)):
            t.trait = t.pick(
                {trait: f" {trait}" for trait in words.TRAITS}, kind="trait"
            )
            t.one(". One day", ". Once")
            t.say(f" {hero.he}")
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
        t.meet()
    return form


_SKIES = {(w, now): now for w in words.WEATHERS for now in w.now}
_BEGINNINGS = (
    {"one": "One", "it": "It was", "once": "There was once a"}
    | _SKIES
    | {person: person.name for person in NAMES}
)
_TOTAL = sum(weather.weight for weather, _ in _SKIES)
_HOW_OFTEN = (
    *(30.0, 20.0, 10.0),
    *(20 * weather.weight / _TOTAL for weather, _ in _SKIES),
    *(20 / len(NAMES) for _ in NAMES),
)

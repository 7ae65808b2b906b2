"""Plots about searching: lost and found, hidden and sought, kept in a box.

A plot starts after the opening, which has named the hero (`One rainy morning,
Ella`) and told the plot's first words (` could not find`). Texts include the
space or line break before them. In all plots `a` is the hero, `b` the friend
and `it` the thing. If a story has two places, one is indoors and the other
outdoors.
"""

from __future__ import annotations

from gpt2.stories import phrases, words
from gpt2.stories.memory import Story, creature, sound
from gpt2.stories.words import (
    ASKED,
    COMMA,
    INDOORS,
    OUTDOORS,
    STOP,
    Person,
    Thing,
    ask,
)

# --- Lost and found
# ---------------------------------------------------------------------------


def lost(t: Story) -> None:
    """Lose something, ask a friend, find it."""
    a = t.hero
    t.say(f" {a.his}")
    it = t.see()
    t.say(".")
    home = None
    if t.pick({True: f" {it.They} {it.was} not", False: f" {a.He} looked"}):
        home = t.place(INDOORS)
        t.say(f", where {it.they} belonged.")
    else:
        t.one(" everywhere twice", " in every pocket")
        t.say(", but found only")
        t.some(phrases.FINDS, ".")
    b = _ask_after(t, it)
    _find(t, b, it)
    if home:
        t.say(f"\nThat night the {it.full} {it.was} back {t.where(home)}.")
        return
    t.coda(
        other={
            f"\n{t.who(a)} never lost {it.it} again. Well, not until Tuesday.": 4.0
        }
    )


def _ask_after(t: Story, it: Thing) -> Person:
    """Ask somebody whether they have seen it."""
    a = t.hero
    if t.pick(
        {
            True: f'\n"Have you seen my {it.name}{ASKED} {a.he} asked',
            False: "\nJust then",
        }
    ):
        b = t.friend()
        t.say(", who was")
        t.some(phrases.ACTIVITIES, ".")
    else:
        b = t.friend()
        t.say(
            f' came by. "What are you looking for{ASKED} '
            f'"My {it.full}{COMMA} said {t.who(a, "speaker")}.'
        )
    return b


def _find(t: Story, b: Person, it: Thing) -> None:
    """Find it, by a hint or by asking an animal."""
    if t.pick({True: ' "I saw', False: ' "Ask the'}):
        t.say(f" {it.it}")
        t.place(OUTDOORS, central=True)
        t.speak(b)
        t.say(f"\nAnd there {it.they} {it.was},")
        t.one(
            " as good as new.",
            " just a little bit muddy.",
            " with a snail on top.",
        )
        return
    animal = t.animal()
    t.speak(b)
    t.say(f"\nThe {creature(animal)} was")
    t.place(OUTDOORS, central=True)
    t.one(
        f", talking to the {it.full}.",
        f", fast asleep on the {it.full}.",
        f", with the {it.full} on its head.",
    )
    t.say(f' "{sound(animal)}{COMMA} it said, and')
    t.one(
        f" gave {it.it} back.",
        " looked at its feet.",
        " pretended to be a stone.",
    )


# --- Hidden and sought
# ---------------------------------------------------------------------------


def hidden(t: Story) -> None:
    """Put something somewhere; a friend moves it; look where it is believed to be."""
    a = t.hero
    t.say(f" {a.his}")
    it = t.see()
    first = t.place(INDOORS)
    t.say(" and went out to")
    t.some(phrases.ERRANDS, ".")
    if t.pick({True: '\n"This will be funny', False: "\nIn came"}):
        t.say(f"{COMMA} thought")
        b = t.friend()
        t.say(", and hid")
    else:
        b = t.friend()
        t.say(" and hid")
    t.say(f" the {it.full}")
    now = t.place(OUTDOORS, central=True)
    t.say(".")
    seen = {
        f" {t.who(a)} saw it all through the window.": 4.0,
        f" {t.who(a)} was far away and saw nothing.": 3.0,
        " Nobody saw it but the cat, and cats do not tell.": 2.0,
    }
    knows = t.odds(seen) == next(iter(seen))
    if t.pick({True: f' "{a.He} will look', False: "\nSoon"}, (1, 2)):
        t.say(
            f" {t.where(first, 'belief')}{COMMA} {t.who(b, 'speaker')} "
            "thought.\nSoon"
        )
    t.say(
        f" {t.who(a)} came back and looked "
        f"{t.where(now if knows else first, 'belief')}"
    )
    if knows:
        _known(t, b, it)
    else:
        t.say(f", but {it.they} {it.was} gone.")
        _unknown(t, b, it)
    turn = (
        f"\nThen it was {t.who(a)}'s turn to hide something. {t.who(b)} is "
        "still looking"
    )
    if t.coda(other={turn: 4.0}):
        t.one(".", ", and it is nearly winter.")


def _known(t: Story, b: Person, it: Thing) -> None:
    """Find it at once, to the friend's surprise."""
    a = t.hero
    t.say(f", and there {it.they} {it.was}. ")
    t.say(f'"How did you know{ASKED} asked {t.who(b, "speaker")}.')
    if t.pick({True: ' "', False: f" {t.who(a)} only smiled."}, (3, 1)):
        t.one(
            "Your ears went red",
            "A little bird told me",
            "I have very good eyes",
        )
        t.speak(a)


def _unknown(t: Story, b: Person, it: Thing) -> None:
    """Look in the wrong place, and get help."""
    now = t.places[1]
    if t.pick({True: ' "Cold', False: f" {t.who(b)} could not keep"}):
        t.say(
            f'{COMMA} laughed {t.who(b, "speaker")}. "Warmer. Hot{STOP} And '
            f"there {it.they} {it.was}, {t.where(now)}."
        )
    else:
        t.say(
            f' the secret. "{it.They} {it.be} {t.where(now)}{COMMA} {b.he} said.'
        )


# --- Kept in a box
# ---------------------------------------------------------------------------


def boxed(t: Story) -> None:
    """Keep something in a box, which is carried off with or without the thing."""
    a = t.hero
    t.say(f" {a.his}")
    it = t.see()
    t.say(" into a")
    box = t.pick(
        {box: f" {box}" for box in words.CONTAINERS}, kind="container"
    )
    box = ask(
        "inside",
        box,
        *[other for other in words.CONTAINERS if other != box][:2],
    )
    t.say(".\nBut")
    b = t.friend()
    whole = f"The {it.adjective} {it.noun.word}"
    if t.pick(
        {True: f" took {it.it} out, hid {it.it}", False: f" opened the {box}"},
        (3, 2),
    ):
        hideout = t.place(INDOORS)
        t.say(" and put ")
        odd = t.pick({find: find for find in phrases.FINDS}, kind="find")
        t.say(f" in the {box} instead.")
        inside = ask("inside", odd[0].upper() + odd[1:], whole, source=odd)
    else:
        hideout = None
        t.one(
            f", said good night to the {it.name}",
            f", gave the {it.name} a kiss",
        )
        t.say(" and shut it again.")
        wrong = [find[0].upper() + find[1:] for find in phrases.FINDS[:2]]
        inside = ask("inside", whole, *wrong, source=it.noun.word)
    t.say(" Then")
    old = t.relative()
    t.say(f" carried the {box} to")
    now = t.place(OUTDOORS, central=True, spot=True)
    t.say(
        f'.\n"Where is my {box}{ASKED} "{t.where(now, capital=True)}{COMMA} said {t.who(old, "speaker")}.'
        f" And what was inside? {inside}."
    )
    if hideout:
        t.say(
            f' "And my {it.name}{ASKED} "{t.where(hideout, capital=True)}'
            f"{COMMA} said {t.who(b, 'speaker')}."
        )
    t.coda()

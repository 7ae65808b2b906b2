"""Plots of seeking: lost and found, hidden and sought, kept in a box.

A plot begins after the opening has named the hero (`One rainy morning, Ella`)
and told the words that give the plot away (` could not find`). Texts begin
with the space or line break before them. In all plots `a` is the hero, `b` the
friend and `it` the thing.
"""

from __future__ import annotations

from gpt2.stories import phrases, words
from gpt2.stories.memory import Story, creature, sound
from gpt2.stories.words import ASKED, COMMA, INDOORS, STOP, Person, Thing, ask

# --- Lost and found
# ---------------------------------------------------------------------------


def lost(t: Story) -> None:
    """Lose something, look for it, ask a friend, find it."""
    a = t.hero
    t.say(f" {a.his}")
    it = t.see()
    t.say(".")
    home = None
    if t.pick(
        {True: f" {it.They} {it.was} not", False: f" {a.He} had looked"}
    ):
        home = t.place()
        t.say(f", where {it.they} belonged. {a.He}")
    else:
        t.one(
            " everywhere twice. Now",
            " in every pocket. Then",
            " under everything that had an under. Next",
            " in all the likely places. So",
        )
        t.say(f" {a.he}")
    t.odds(phrases.LOOKING)
    t.place()
    if t.pick({True: " and", False: "."}):
        t.place()
        t.one(
            ", but found only",
            f", and all {a.he} found was",
            ", where there was nothing but",
        )
        t.some(phrases.FINDS, ".")
    else:
        t.one(" There was", f" {a.He} found")
        t.some(phrases.FINDS, f", but no {it.name}.")
    b = _ask_after(t, it)
    _find(t, b, it)
    if home and t.pick(
        {True: "\nThat night", False: f"\n{t.who(b)} took {it.it} home"}
    ):
        t.say(
            f" the {it.full} {it.was} back {t.where(home)}, where {it.they} "
            "belonged."
        )
        return
    if home:
        t.say(f" and put {it.it} back {t.where(home)}.")
    elif t.pick(
        {True: f"\n{t.who(a)} never lost", False: f"\n{t.who(a)} was so glad"}
    ):
        t.say(f" {it.it} again. Well, not until")
        t.odds(
            {f" {day}": weight for day, weight in phrases.DAYS.items()}, "day"
        )
        t.say(".")
    else:
        t.say(f" that {a.he} ")
        t.one(
            f"kissed the {it.name}.",
            "danced.",
            f"gave {t.who(b)} a plum.",
            "forgot to say thank you.",
            f"hugged {t.who(b)}.",
            "turned a somersault.",
        )
    t.coda()


def _ask_after(t: Story, it: Thing) -> Person:
    """Ask somebody whether they have seen it."""
    a = t.hero
    way = t.pick(
        {
            "ask": f'\n"Have you seen my {it.name}{ASKED} {a.he} asked',
            "run": f"\n{a.He}",
            "meet": "\nJust then",
        }
    )
    if way == "run":
        t.go(" to")
    b = t.meet()
    if way == "meet":
        t.say(
            f' came by. "What are you looking for{ASKED} asked {t.who(b, "speaker")}. '
        )
        t.one(
            f'"My {it.full}',
            f'"I have lost my {it.name}',
            f'"The best {it.name} in the world',
        )
        t.speak(a)
    else:
        t.say(", who was")
        t.some(phrases.ACTIVITIES)
        t.say("." if way == "ask" else f'. "Have you seen my {it.full}{ASKED}')
    return b


def _find(t: Story, b: Person, it: Thing) -> None:
    """Find it: by a hint, by looking together, or by asking an animal."""
    a = t.hero
    way = t.pick(
        {"hint": ' "I saw', "help": ' "No', "animal": ' "Ask the'}, (2, 2, 3)
    )
    if way == "hint":
        t.say(f" {it.it}")
        at = t.place(central=True)
        t.speak(b)
        if t.pick({True: f"\n{t.who(a)}", False: "\nThey"}):
            t.go(f" to {t.where(at, spot=True)}")
        else:
            t.one(
                f" looked {t.where(at)} together",
                f" went to {t.where(at, spot=True)}",
            )
        t.say(f", and there {it.they} {it.was},")
        t.one(
            " as good as new.",
            " under a heap of leaves.",
            " with a snail on top.",
            " just a little bit muddy.",
            " as if nothing had happened.",
            f" exactly where {t.who(a)} had left {it.it}.",
        )
    elif way == "help":
        t.speak(b, ', "but ')
        t.one(
            "I will help you look",
            "two can look better than one",
            "I like looking for things",
        )
        t.say(f"{STOP}\nThey")
        t.odds(phrases.LOOKING)
        t.place()
        t.say(".")
        t.aside(" Then they looked")
        t.place()
        t.say(". At last they looked")
        t.place(central=True)
        t.one(
            f', and {t.who(a)} gave a shout. "Here {it.they} {it.be}{STOP}',
            f", and what did they see? The {it.full}.",
            f", and {t.who(b)} found the {it.full} with one foot.",
            f". And there {it.they} {it.was}, as if nothing had happened.",
        )
    else:
        animal = t.animal()
        t.speak(b)
        t.one(
            ' "It has been up to something',
            ' "It looks far too pleased with itself',
            ' "It knows everything',
            ' "It likes such things',
        )
        t.say(f"{STOP}\nThe {creature(animal)} was")
        t.place(central=True)
        t.one(
            f", sitting on the {it.full}.",
            f", talking to the {it.full}.",
            f", fast asleep beside the {it.full}.",
            f", with the {it.full} on its head.",
            f", hiding the {it.full} behind its back.",
        )
        t.say(f' "{sound(animal)}{COMMA} it said, and')
        t.one(
            " walked away.",
            f" gave {it.it} back.",
            " that was that.",
            " looked at its feet.",
            f" wished {it.it} good luck.",
            " pretended to be a stone.",
        )


# --- Hidden and sought
# ---------------------------------------------------------------------------


def hidden(t: Story) -> None:
    """Put something somewhere; it is moved, seen or unseen; look where you think it is."""
    a = t.hero
    t.say(f" {a.his}")
    it = t.see()
    first = t.place(INDOORS)
    t.say(" and went out to")
    t.some(phrases.ERRANDS, ".")
    way = t.pick(
        {"joke": '\n"', "while": "\nMeanwhile", "came": "\nIn came"}, (3, 1, 1)
    )
    if way == "joke":
        t.one(
            "This will be funny",
            f"Let us see how clever {a.he} is",
            "I know a better place",
            f"What a strange place for {it.a_full}",
        )
        t.say(f"{COMMA} thought")
    b = t.meet()
    t.say(
        f". {b.He} took"
        if way == "joke"
        else " took"
        if way == "while"
        else ", who took"
    )
    t.the(it)
    t.one(
        f" and hid {it.it}", f" and carefully hid {it.it}", f" and put {it.it}"
    )
    now = t.place(central=True)
    t.say(".")
    seen = t.pick(
        {
            "window": f" {t.who(a)} saw it all through the window.",
            "hole": f" Through a hole in the fence, {t.who(a)} saw everything.",
            "far": f" {t.who(a)} was far away and saw nothing.",
            "cat": " Nobody saw it but the cat, and cats do not tell.",
            "nobody": " Nobody saw it at all.",
            "asleep": f" {t.who(a)} was asleep under a tree.",
        }
    )
    knows = seen in ("window", "hole")
    if t.pick({True: f' "{a.He} will look', False: "\nSoon"}):
        t.say(
            f" {t.where(first, 'belief')}{COMMA} {t.who(b, 'speaker')} "
            "thought.\nSoon"
        )
    t.say(f" {t.who(a)} came back")
    t.one(
        " and wanted",
        ", whistling, and wanted",
        " in a hurry and asked for",
        " and went to get",
        " with wet feet and wanted",
    )
    t.the(it)
    t.say(f". {a.He} looked {t.where(now if knows else first, 'belief')}")
    if knows:
        t.say(f", and there {it.they} {it.was}. ")
        t.say(f'"How did you know{ASKED} asked {t.who(b, "speaker")}.')
        if (
            t.pick({True: f" {t.who(a)} only smiled.", False: ' "'}, (1, 3))
            is False
        ):
            t.one(
                "A little bird told me",
                "Your ears went red",
                "I have very good eyes",
                "I can read your thoughts",
                "Where else would anybody hide it",
            )
            t.speak(a)
    else:
        t.say(f", because that was where {a.he} had left {it.it}.")
        _warmer(t, b, it)
    if t.pick({True: "\nThen it was", False: "\nThey laughed"}, (2, 3)):
        t.say(
            f" {t.who(a)}'s turn to hide something. {t.who(b)} is still "
            "looking"
        )
        t.one(
            ".",
            " for it today.",
            ", and it is nearly winter.",
            ", with a lamp and a ladder.",
        )
    else:
        t.one(
            " so much that they had to lie down.",
            " until the plates fell off the wall.",
            " until they had forgotten why.",
            " like two donkeys.",
            " so loudly that it woke the owls.",
        )
        t.coda()


def _warmer(t: Story, b: Person, it: Thing) -> None:
    """Help somebody who looks in the wrong place."""
    a, now = t.hero, t.places[1]
    t.one(
        f" No {it.name}.",
        f" But {it.they} {it.was} gone.",
        " There was nothing but dust.",
    )
    way = t.pick(
        {
            "game": ' "Cold',
            "sorry": f" {a.He} looked so sad",
            "guess": f" {t.who(a)} tried",
        }
    )
    if way == "sorry":
        t.say(f" that {t.who(b)} could not keep the secret. ")
        t.say(f'"{it.They} {it.be} {t.where(now)}{COMMA} {b.he} said.')
        return
    if way == "game":
        t.speak(b)
        t.say(f" {a.He} tried")
    t.place()
    t.say('. "Warmer')
    t.speak(b)
    t.say(
        f' {a.He} tried {t.where(now)}. "Hot{STOP} And there {it.they} {it.was}.'
    )


# --- Kept in a box
# ---------------------------------------------------------------------------


def boxed(t: Story) -> None:
    """Keep something in a box; the box is carried off, with the thing in it or without."""
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
    t.say(f" and put the {box}")
    home = t.place(INDOORS)
    t.say(".\n")
    t.one(
        "While nobody was looking,",
        "As soon as the house was quiet,",
        f"Then {a.he} went out, and",
    )
    b = t.meet()
    whole = f"The {it.adjective} {it.noun.word}"
    if t.pick(
        {True: f" took {it.it} out, hid {it.it}", False: f" opened the {box}"}
    ):
        hideout = t.place(central=True)
        t.say(" and put ")
        odd = t.pick({find: find for find in phrases.FINDS}, kind="find")
        t.say(f" in the {box} instead.")
        inside = ask("inside", odd[0].upper() + odd[1:], whole, source=odd)
    else:
        hideout = None
        t.say(",")
        t.one(
            f" said good morning to the {it.name}",
            f" looked at the {it.name}",
            f" gave the {it.name} a kiss",
            " counted to ten",
        )
        t.one(
            " and shut it again.", " and closed the lid.", " and tiptoed away."
        )
        wrong = [find[0].upper() + find[1:] for find in phrases.FINDS[:2]]
        inside = ask("inside", whole, *wrong, source=it.noun.word)
    t.say(" Then")
    old = t.meet(words.RELATIVES)
    t.one(
        " tidied up and carried",
        " needed more room and carried",
        " swept the floor and moved",
    )
    t.say(f" the {box} to")
    now = t.place(central=hideout is None, spot=True)
    t.say(".")
    t.aside(f'\n{t.who(a)} looked {t.where(home)}. No {box}. "')
    t.one("Has it run away", "Where can it be", f"Who has taken my {box}")
    t.say(
        f'{ASKED} {a.he} asked. "It is {t.where(now)}{COMMA} said {t.who(old, "speaker")}.'
    )
    t.one(
        f" {a.He} opened it.",
        f" {a.He} lifted the lid.",
        f" {a.He} shook it and looked.",
    )
    t.one(" And what was inside?", " What was in it?")
    t.say(f" {inside}.")
    if hideout:
        t.say(f'\n"And my {it.name}{ASKED} asked {t.who(a, "speaker")}. ')
        t.say(f'"{it.They} {it.be} {t.where(hideout)}')
        t.speak(b)
    else:
        t.one(
            " Nothing was missing.",
            f" {t.who(a)} was very glad.",
            " Everything was all right.",
        )
    t.coda()

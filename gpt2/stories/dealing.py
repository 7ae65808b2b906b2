"""Plots of giving: counting and sharing, swapping, a journey with a present."""

from __future__ import annotations

from gpt2.stories import phrases, words
from gpt2.stories.memory import Story, amount, creature
from gpt2.stories.words import (
    ASKED,
    COMMA,
    INDOORS,
    NAMES,
    OUTDOORS,
    PLACES,
    RELATIVES,
    Person,
    Thing,
    article,
    ask,
)

# --- Counting
# ---------------------------------------------------------------------------


def counting(t: Story, verb: str) -> None:
    """Count things that come and go, and share them."""
    a = t.hero
    first = t.number(range(3, 7))
    sizes = {size: f" {size}" for size in phrases.SIZES}
    size = t.pick(sizes, kind="adjective")
    item = t.pick(
        {c: f" {c.many}" for c in words.COUNTED if c.verb == verb},
        kind="thing",
    )
    size = ask(
        "adjective", size, *[other for other in sizes if other != size][:2]
    )
    other = [c.many for c in words.COUNTED if c is not item][:2]
    t.nouns.append(item.noun)
    t.say(" and put them")
    where = t.place(PLACES, central=True)
    b = None
    if t.pick({True: f". Then {a.he} {verb}", False: ". Along came"}):
        more = t.number(range(1, 5))
    else:
        b = t.friend()
        t.say(" with")
        more = t.number(range(1, 5))
    total = first + more
    t.say(f" more. That made {amount(total, more)}.")
    left, eater = _eaten(t, total)
    t.say(
        f" How many were left? {amount(left, total - left, capital=True)} "
        f"{size} {ask('thing', item.many, *other)}, still {t.where(where)}.\n"
        f"{t.who(a)} shared them with"
    )
    if b:
        t.say(f" {t.who(b)}")
    else:
        b = t.friend()
        t.say(", who was")
        t.some(phrases.ACTIVITIES)
    even, odd = (".", ", and") if left % 2 == 0 else (", and", ".")
    t.say(
        f": {amount(left // 2, left)} "
        f"each{ask('sum', even, odd, source=words.NUMBERS[left])}"
    )
    if left % 2:
        t.say(f" one for {eater}.")
    t.coda()


def _eaten(t: Story, total: int) -> tuple[int, str]:
    """Lose one or two; return how many are left, and who took the others."""
    a = t.hero
    few = (1, 2)
    way = t.pick(
        {
            "animal": "\nBut the",
            "gift": f"\n{t.who(a)} gave",
            "drop": "\nLater",
        }
    )
    if way == "animal":
        animal = t.animal()
        t.say(" was hungry, and ate")
        gone = t.number(few)
        t.say(".")
        return total - gone, f"the {creature(animal)}"
    if way == "gift":
        gone = t.number(few)
        t.say(" to")
        old = t.relative()
        t.one(", who said thank you.", ", who was hungry.")
        return total - gone, t.who(old)
    t.say(f" {a.he} dropped")
    gone = t.number(few)
    t.one(" in a puddle.", " on somebody's head.")
    return total - gone, "the birds"


# --- Swapping
# ---------------------------------------------------------------------------


def swapping(t: Story) -> None:
    """Want what another person has, and get it by a swap of two or three."""
    a = t.hero
    mine = t.see(article=True)
    t.say(", but wanted")
    # A relative is as likely as a friend.
    friends = [person for person in NAMES if person.she != a.she]
    share = len(friends) / len(RELATIVES)
    weights = [1.0] * len(friends) + [share] * len(RELATIVES)
    b = t.meet([*friends, *RELATIVES], weights)
    t.say("'s")
    wish = t.see()
    t.say(f". {t.who(b)}")
    if t.pick({True: " wanted", False: " was tired of"}, (2, 1)):
        _three_owners(t, b, mine, wish)
    else:
        t.say(f" {wish.it}.\nSo they met")
        t.place(OUTDOORS, central=True)
        t.say(" and swapped.")
        _two_owners(t, b, mine, wish)


def _three_owners(t: Story, b: Person, mine: Thing, wish: Thing) -> None:
    """Let each of three give to the one who wants it, and tell who has what in the end."""
    a = t.hero
    c = t.friend() if b in RELATIVES else t.relative()
    t.say("'s")
    third = t.see()
    t.say(f", and {t.who(c)}")
    t.one(" had always dreamed of", " could not live without")
    t.say(f" {mine.a_full}.\nSo they all met")
    t.place(OUTDOORS, central=True)
    t.say(
        f". {t.who(a)} gave the {mine.name} to {t.who(c)}, {t.who(c)} gave "
        f"the {third.name} to {t.who(b)} and {t.who(b)} gave the {wish.name} "
        f"to {t.who(a)}.\nThen off they went, the {mine.name} to "
        f"{t.who(c, 'owner')}, the {third.name} to {t.who(b, 'owner')} and "
        f"the {wish.name} to {t.who(a, 'owner')}."
    )
    t.coda()


def _two_owners(t: Story, b: Person, mine: Thing, wish: Thing) -> None:
    """Tell who has what after a swap of two, and perhaps swap back."""
    a = t.hero
    if t.pick({True: f" Now {t.who(a)} had", False: " But the next day they"}):
        t.say(
            f" the {wish.full}, and {t.who(b, 'owner')} had the {mine.full}. "
            "Nobody was sorry."
        )
        t.coda()
    else:
        t.say(
            f" swapped back, because {t.who(a)} missed the {mine.name}. So "
            f"{t.who(b, 'owner')} had the {wish.full} again, and "
            f"{t.who(a, 'owner')} had the {mine.full}."
        )
        t.coda(same_day=False)


# --- A journey
# ---------------------------------------------------------------------------


def journey(t: Story) -> None:
    """Take a present to a relative, and return by the same way."""
    a = t.hero
    it = t.see(article=True)
    t.say(" to")
    old = t.relative()
    t.say(",")
    legs = [
        t.pick(
            {leg: f"{link} {leg[0]}" for leg in words.LEGS[at : at + 3]},
            kind="route",
        )
        for link, at in (("", 0), (",", 3), (" and", 6))
    ]
    t.say(f". On the way {a.he} met")
    animal = t.animal(article=True)
    t.one(
        '.\n"Just what I always wanted',
        '.\n"How kind',
        '.\n"Now I can sleep again',
    )
    t.say(f"{COMMA} said {t.who(old, 'speaker')}, and put {it.it}")
    t.place(INDOORS, central=True)
    t.say(
        f'. "Did you meet anybody{ASKED} "Only {article(animal, animal)} '
        f"{creature(animal)}{COMMA} said {t.who(a, 'speaker')}.\nThen"
    )
    steps = [
        ask(
            "route",
            back,
            *(other for _, other in legs if other != back),
            source=out,
        )
        for out, back in reversed(legs)
    ]
    t.say(f" {t.who(a)} went home, {steps[0]}, {steps[1]} and {steps[2]}")
    if t.home:
        t.say(f", to the {t.remember_home()}")
    t.say(".")

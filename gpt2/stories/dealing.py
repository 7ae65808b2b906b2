"""Plots of give and take: counting, swapping, a journey with a present."""

from __future__ import annotations

from gpt2.stories import phrases, words
from gpt2.stories.memory import Story, amount, creature, sound
from gpt2.stories.words import ASKED, COMMA, STOP, Person, Thing, article, ask

# --- Counting
# ---------------------------------------------------------------------------


def counting(t: Story, verb: str) -> None:
    """Count things that come and go, and share them."""
    a = t.hero
    first = t.number(range(2, 7))
    sizes = {size: f" {size}" for size in phrases.SIZES}
    size = t.pick(sizes, kind="adjective")
    item = t.pick(
        {c: f" {c.many}" for c in words.COUNTED if c.verb == verb},
        kind="thing",
    )
    size = ask(
        "adjective", size, *[other for other in sizes if other != size][:2]
    )
    t.nouns.append(item.noun)
    t.one(" and put them", " and left them", " and hid them")
    where = t.place(central=True)
    b = None
    if t.pick({True: f". Then {a.he} {verb}", False: ". Along came"}, (3, 2)):
        more = t.number(range(1, 6))
        t.say(" more")
    else:
        b = t.meet()
        t.say(" with")
        more = t.number(range(1, 6))
        t.say(" more")
    total = first + more
    t.one(
        f". That made {amount(total, more)}.",
        f", so now there were {amount(total, more)}.",
        f". {a.He} counted them with {a.his} nose: {amount(total, more)}.",
    )
    left, eater = _eaten(t, total)
    t.aside(" How many were left?")
    t.say(" ")
    t.say(
        f"{amount(left, total - left, capital=True)} {size} "
        f"{item.agree(left)}, "
    )
    t.say(f"still {t.where(where)}.\n{t.who(a)} shared ")
    source = words.NUMBERS[left]
    t.say(
        ask(
            "agreement",
            *(("it", "them") if left == 1 else ("them", "it")),
            source=source,
        )
    )
    t.say(" with")
    if b:
        t.say(f" {t.who(b)}")
    else:
        b = t.meet()
        t.say(", who was")
        t.some(phrases.ACTIVITIES)
    if left == 1:
        t.say(f": half {item.article} {item.agree(1)} each.")
    else:
        even, odd = (".", ", and") if left % 2 == 0 else (", and", ".")
        t.say(
            f": {amount(left // 2, left)} "
            f"each{ask('sum', even, odd, source=source)}"
        )
        if left % 2:
            t.say(f" one for {eater}.")
    t.coda()


def _eaten(t: Story, total: int) -> tuple[int, str]:
    """Lose a few, and return how many are left and who took the others."""
    a = t.hero
    few = range(1, min(5, total))
    way = t.pick(
        {
            "animal": "\nBut the",
            "gift": f"\n{t.who(a)} gave",
            "drop": "\nLater",
        }
    )
    if way == "animal":
        animal = t.animal()
        t.one(
            " was hungry, and ate",
            " liked them too, and ate",
            " came by and swallowed",
        )
        gone = t.number(few)
        t.say(f'. "{sound(animal)}{COMMA} it said.')
        return total - gone, f"the {creature(animal)}"
    if way == "gift":
        gone = t.number(few)
        t.say(" to")
        friend = t.meet(among=words.RELATIVES)
        t.one(
            ", who said thank you.",
            ", who was hungry.",
            " as a present.",
            ", just like that.",
        )
        return total - gone, t.who(friend)
    t.say(f" {a.he} dropped")
    gone = t.number(few)
    t.one(
        " in a puddle.",
        " on somebody's head.",
        " and never found out where.",
        " for the birds.",
    )
    return total - gone, "the birds"


# --- Swapping
# ---------------------------------------------------------------------------


def swapping(t: Story) -> None:
    """Want something, and get it by a swap of two or of three."""
    a = t.hero
    mine = t.see(article=True)
    t.say(f", but what {a.he} really wanted was")
    wish = t.see(article=True)
    t.say(".\nNow")
    b = t.meet()
    t.say(f" had {wish.a_full},")
    way = t.odds(
        {
            " but would only swap": 3.0,
            " and was tired of": 1.0,
            " and did not like": 1.0,
            " and did not know what to do with": 1.0,
        }
    )
    if way != " but would only swap":
        t.say(f" {wish.it}.")
        t.aside(" They met")
        _meeting(t)
        t.say(
            f", and {t.who(a)} gave {t.who(b)} the {mine.name} for the "
            f"{wish.name}."
        )
        _two_owners(t, b, mine, wish)
        return
    t.say(f" {wish.it} for")
    third = t.see(article=True)
    t.say(". And")
    c = t.meet()
    t.say(f" had {third.a_full}, and")
    t.one(
        " had always dreamed of",
        " needed nothing but",
        " would give anything for",
        " could not live without",
    )
    t.say(f" {mine.a_full}.\nSo all three met")
    _meeting(t)
    t.say(
        f". {t.who(a)} gave {t.who(c)} the {mine.name}, {t.who(c)} gave "
        f"{t.who(b)} "
    )
    t.say(
        f"the {third.name}, and {t.who(b)} gave {t.who(a)} the {wish.name}.\n"
    )
    t.one("In the end the", "So the", "And that is how the")
    owners = {mine: c, third: b, wish: a}
    first = t.pick({it: f" {it.name}" for it in owners}, kind="thing")
    t.say(f" came to {t.who(owners.pop(first), 'owner')}, the")
    second = t.pick({it: f" {it.name}" for it in owners}, kind="thing")
    t.say(f" to {t.who(owners.pop(second), 'owner')} and the")
    ((last, owner),) = owners.items()
    t.say(f" {last.name} to {t.who(owner, 'owner')}.")
    t.coda(hungry=False)


def _meeting(t: Story) -> None:
    """Say when and where."""
    t.say(" at")
    t.number(range(1, 13))
    t.say(" o'clock")
    t.place(central=True)


def _two_owners(t: Story, b: Person, mine: Thing, wish: Thing) -> None:
    """Say who has what after a swap of two, and perhaps swap back."""
    a = t.hero
    if t.pick(
        {True: f"\nSo now {t.who(a)} had", False: "\nThe very next day they"},
        (3, 2),
    ):
        t.say(
            f" the {wish.full}, and {t.who(b, 'owner')} had the {mine.full}."
        )
        t.one(
            f" {t.who(b)} was so happy that {b.he} danced.",
            f" {t.who(a)} was so happy that {a.he} forgot to eat.",
            " Nobody was sorry.",
            " It was the best swap in the world.",
            f" {t.who(b)} told everybody in the village.",
        )
        t.coda()
    else:
        t.say(f" swapped back, because {t.who(a)} missed the {mine.name}.")
        t.say(f" So {t.who(b, 'owner')} had the {wish.full} again, and ")
        t.say(f"{t.who(a, 'owner')} had the {mine.full}.")
        t.coda(same_day=False)


# --- A journey
# ---------------------------------------------------------------------------


def journey(t: Story) -> None:
    """Take a present to a relative, and come home by the same way."""
    a = t.hero
    it = t.see(article=True)
    t.say(" to")
    old = t.meet(among=words.RELATIVES)
    t.one(". It was a long way:", f". {a.He} went", ". The way led")
    legs: list[tuple[str, str]] = []
    for link in ("", ",", " and"):
        left = [leg for leg in words.LEGS if leg not in legs]
        legs.append(
            t.pick({leg: f"{link} {leg[0]}" for leg in left}, kind="route")
        )
    t.say(".")
    t.aside(f" On the way {a.he} met")
    animal = t.animal(article=True)
    t.say(f'. "{sound(animal)}{COMMA} it said. "Where are you going{ASKED} ')
    t.say(
        f'"To {t.who(old)}{COMMA} said {t.who(a, "speaker")}, "with {it.a_full}{STOP}'
    )
    t.one(
        f" So the {creature(animal)} came a little of the way.",
        f" The {creature(animal)} wished {a.him} luck.",
        f" The {creature(animal)} thought about it.",
        f" The {creature(animal)} laughed.",
        f" The {creature(animal)} wanted to come too, but it was busy.",
    )
    t.say(f"\n{t.who(old)} was")
    t.some(phrases.ACTIVITIES)
    t.say('. "')
    t.one(
        "Just what I always wanted",
        "Look at that",
        "At last",
        "How kind",
        "Now I can sleep again",
        "You remembered",
    )
    t.say(f"{COMMA} {old.he} said, and put {it.it}")
    t.place(central=True)
    t.say(". Then they had")
    t.meal()
    if t.pick({True: '. "Did you meet anybody', False: ".\nThen"}):
        t.say(f"{ASKED} asked {t.who(old, 'speaker')}. ")
        t.say(f'"Only {article(animal, animal)} {creature(animal)}')
        t.speak(a, ".\nThen")
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
        t.say(f", to the {t.remember_home()}.")
    else:
        t.say(".")
        t.coda(hungry=False)

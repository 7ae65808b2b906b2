"""Plots about promises: something borrowed, something wished for."""

from __future__ import annotations

from gpt2.stories import phrases, words
from gpt2.stories.memory import Story, sound
from gpt2.stories.words import (
    COMMA,
    INDOORS,
    STOP,
    Person,
    Place,
    Thing,
    ask,
)

# --- Promises
# ---------------------------------------------------------------------------


def borrowed(t: Story) -> None:
    """Borrow something with a promise, and keep it or not."""
    a = t.hero
    it = t.see(article=True)
    t.say(" from")
    b = t.friend()
    t.say(f'. "Put {it.it} back')
    home = t.place(INDOORS, central=True)
    t.say(" before ")
    meals = [meal for meal, _ in words.TIMES.values()]
    if t.time:
        due = words.TIMES[t.time][0]
        t.say(
            ask(
                "time",
                due,
                *(meal for meal in meals if meal != due),
                source=t.time,
            )
        )
    else:
        due = t.pick({meal: meal for meal in meals}, kind="time")
    before = f"before {ask('promise', due, *(meal for meal in meals if meal != due))}"
    t.say(
        f'{COMMA} said {t.who(b, "speaker")}. "I promise{STOP}\n{t.who(a)} '
        f"showed {it.it} to the"
    )
    animal = t.animal()
    t.say(f'. "{sound(animal)}{COMMA} it said, which means "')
    t.one(*phrases.MEANINGS)
    t.say(f" {t.who(a)}")
    if t.pick({True: " remembered the promise", False: " forgot the promise"}):
        t.one(" and ran.", ", and ran like the wind.")
        t.say(
            f"\nJust {before}, the {it.full} {it.was} back "
            f"{t.where(home, 'promise')}."
        )
        t.coda()
    else:
        _broken(t, b, it, home, before)


def _broken(t: Story, b: Person, it: Thing, home: Place, before: str) -> None:
    """Leave it out all night, and apologize."""
    a = t.hero
    t.one(" and went to play.\n", " and fell asleep.\n")
    t.one(
        f"{it.They} lay out all night, and a family of snails moved in.",
        f"In the night a hedgehog slept on {it.it}.",
        f"In the morning a bird had built a nest on {it.it}.",
    )
    t.say(
        f' "You promised{COMMA} sighed {t.who(b, "speaker")}. {t.who(a)} said '
        "sorry"
    )
    t.one(" twice.", " in three languages.", " with a cake.")
    t.say(
        f" From then on {it.they} {it.was} always back "
        f"{t.where(home, 'promise')} {before}."
    )
    t.coda(same_day=False)


# A chore as a request, as done, and what happens if it is not done.
CHORES = (
    ("feed the hens", "fed the hens", "the hens went hungry"),
    ("water the roses", "watered the roses", "the roses drooped"),
    ("milk the cow", "milked the cow", "the cow was very cross"),
    ("brush the pony", "brushed the pony", "the pony looked like a haystack"),
)


def wished(t: Story) -> None:
    """Wish for something that is promised in return for a chore."""
    a = t.hero
    b = t.friend()
    t.say("'s")
    it = t.see()
    t.say(f'. "You can have {it.it} if you ')
    chore, done, undone = CHORES[
        t.pick({i: c[0] for i, c in enumerate(CHORES)}, kind="chore")
    ]
    wrong = [c for c in CHORES if c[0] != chore][:2]
    t.speak(b)
    t.say(f' "I promise{STOP}')
    if t.pick({True: f"\nSo {t.who(a)}", False: f"\nBut {t.who(a)}"}, (3, 2)):
        t.say(
            f" {ask('promise', done, *(w[1] for w in wrong), source=chore)}."
        )
        t.one(
            " It took all day.",
            f" {a.He} even sang while {a.he} did it.",
            f" Then {a.he} had to lie down.",
        )
        _paid(t, b, it)
        return
    t.one(" fell asleep", " talked to a snail instead")
    t.say(
        ", and "
        f"{ask('promise', undone, *(w[2] for w in wrong), source=chore)}."
        f"\nSo {t.who(b, 'owner')} kept the {it.full} and put {it.it} back"
    )
    t.place(INDOORS, central=True)
    t.say(
        f'. "Tomorrow{words.ASKED} asked {t.who(a, "speaker")}. '
        f'"Tomorrow{COMMA} said {t.who(b, "speaker")}.'
    )
    t.coda()


def _paid(t: Story, b: Person, it: Thing) -> None:
    """Keep the promise at once, or after a sleepless night."""
    a = t.hero
    promise = ask("promise", "promise", "secret")
    if t.pick(
        {True: ' "A promise is a promise', False: ' "I have changed my mind'},
        (3, 2),
    ):
        t.speak(b, f", and gave {a.him} the {it.full}.\n{a.He} put {it.it}")
        t.place(INDOORS, central=True)
        t.say(f" and looked at {it.it}")
        t.one(
            " until the moon came up.",
            f" until {a.his} eyes closed.",
            " until supper was cold.",
        )
    else:
        t.speak(b, f". But {b.he} could not sleep.\nIn the morning the")
        t.say(f" {it.full} {it.was}")
        t.place(INDOORS, central=True)
        t.say(
            f', with a note for {t.who(a)}: "A {promise} is a {promise}{STOP}'
        )
    t.coda(same_day=False)

"""Plots of promises: something borrowed, something wished for."""

from __future__ import annotations

from gpt2.stories import phrases, words
from gpt2.stories.memory import Story, creature, sound
from gpt2.stories.words import (
    ASKED,
    COMMA,
    OUTDOORS,
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
    b = t.meet()
    t.one(
        f'. "Put {it.it} back',
        f'. "I want to find {it.it}',
        f'. "I must have {it.it} back',
    )
    home = t.place(central=True)
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
    t.speak(b)
    t.say(f' "I promise{COMMA} said {t.who(a, "speaker")}.')
    if t.pick({True: f"\n{a.He}", False: f"\nFirst {a.he} took {it.it} to"}):
        t.some(phrases.GOING, f" with {it.it} to")
    t.place(OUTDOORS, spot=True)
    t.one(
        f" and showed {it.it} to the", " and met the", " and played with the"
    )
    animal = t.animal()
    t.say(
        f'. "{sound(animal)}{COMMA} said the {creature(animal)}, which means "'
    )
    t.one(*phrases.MEANINGS)
    t.say(f'" in {creature(animal)}.')
    t.aside(f" {t.who(a)}")
    if t.pick(
        {True: " remembered the promise", False: " forgot the promise"}, (5, 4)
    ):
        _kept(t, b, it, home, before)
    else:
        _broken(t, b, it, home, before)


def _kept(t: Story, b: Person, it: Thing, home: Place, before: str) -> None:
    """Bring back what was borrowed."""
    t.one(
        " just in time.",
        " and ran.",
        ", and ran like the wind.",
        ", said goodbye, and ran.",
        " and turned around.",
    )
    t.say(f"\nWhen {t.who(b)} looked, just {before},")
    t.the(it)
    t.say(
        f' {it.was} {t.where(home, "promise")}. "You kept your promise{COMMA} {b.he} said.'
    )
    t.one(
        ' "Next time you may have my',
        ' "Tomorrow you can borrow my',
        ' "You can even have my',
    )
    t.see()
    t.say(STOP)
    t.coda()


def _broken(t: Story, b: Person, it: Thing, home: Place, before: str) -> None:
    """Leave it out all night, and be sorry."""
    a = t.hero
    t.one(
        " and went to play.\n",
        ", because there was a rainbow.\n",
        " and fell asleep.\n",
        ", because somebody was making pancakes.\n",
        " and climbed a tree instead.\n",
    )
    t.one(
        f"{it.They} lay out all night, and a family of snails moved in.",
        f"It rained in the night, and the {it.name} got as wet as soup.",
        f"In the night a hedgehog slept on {it.it}.",
        f"In the morning a bird had built a nest on {it.it}.",
        f"Somebody thought {it.it} was lost, and took {it.it} to the mayor.",
        f"A cow stepped on {it.it}.",
        f"All night long the ants danced around {it.it}.",
    )
    t.say(' "You promised')
    t.speak(b, verbs=phrases.SADLY)
    t.say(f" {t.who(a)}")
    t.one(
        " felt as small as a pea.",
        " turned as red as a beetroot.",
        f" looked at {a.his} feet.",
        " did not know where to look.",
    )
    t.say(f" {a.He} said sorry")
    t.one(
        " twice",
        " very quietly",
        " and meant it",
        " in three languages",
        " with a cake",
    )
    t.one(
        f", and made {it.it} as good as new.",
        f", and cleaned {it.it} with a brush.",
    )
    t.say(f"\nFrom then on {it.they} {it.was}")
    t.say(f" always back {t.where(home, 'promise')} {before}.")
    t.coda(hungry=False, same_day=False)


# A chore as it is asked for, as it is done, and what comes of it if it is not.
CHORES = (
    ("feed the hens", "fed the hens", "the hens went hungry"),
    ("sweep the yard", "swept the yard", "the yard stayed dusty"),
    ("water the roses", "watered the roses", "the roses drooped"),
    ("milk the cow", "milked the cow", "the cow was very cross"),
    ("peel the potatoes", "peeled the potatoes", "there was no soup"),
    ("wash the windows", "washed the windows", "nobody could see out"),
    ("stack the logs", "stacked the logs", "the logs lay where they were"),
    ("dig the garden", "dug the garden", "only the weeds were glad"),
    ("brush the pony", "brushed the pony", "the pony looked like a haystack"),
    ("wake the baker", "woke the baker", "nobody had any bread"),
)


def wished(t: Story) -> None:
    """Wish for something that is promised in return for a piece of work."""
    a = t.hero
    b = t.meet()
    t.say("'s")
    it = t.see()
    t.one(
        " more than anything.",
        " very much.",
        " and could think of nothing else.",
    )
    if t.pick({True: f" {t.who(b)} was", False: ' "'}, (2, 1)):
        t.some(phrases.ACTIVITIES, '. "')
    t.one(
        f"You can have {it.it} if you ",
        f"I will give {it.it} to you if you ",
        f"{it.They} {it.be} yours if you ",
        f"You may have {it.it} if you ",
    )
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
            " It was not much fun.",
            f" {a.He} even sang while {a.he} did it.",
            f" {a.He} did it twice, to be sure.",
            " It was harder than it looks.",
            f" Then {a.he} had to lie down.",
        )
        _paid(t, b, it)
        return
    t.one(
        " fell asleep",
        " read a long book",
        " talked to a snail instead",
        " built a dam",
        " said that it was too hot",
        " looked out of the window",
        " ate all the plums",
    )
    t.say(
        ", and "
        f"{ask('promise', undone, *(w[2] for w in wrong), source=chore)}.\n"
    )
    t.say(f"So {t.who(b, 'owner')} kept")
    t.the(it)
    t.say(f" and put {it.it} back")
    t.place(central=True)
    t.say(".")
    t.aside(f' "Tomorrow{ASKED} asked {t.who(a, "speaker")}. ')
    t.say(f'"Tomorrow{COMMA} said {t.who(b, "speaker")}.')
    t.coda()


def _paid(t: Story, b: Person, it: Thing) -> None:
    """Keep the promise at once, or after a bad night."""
    a = t.hero
    promise = ask("promise", "promise", "secret")
    if t.pick(
        {True: ' "A promise is a promise', False: ' "I have changed my mind'},
        (3, 2),
    ):
        t.speak(b, f", and gave {a.him}")
        t.the(it)
        t.say(f".\n{a.He} put {it.it}")
        t.place(central=True)
        t.say(f" and looked at {it.it}")
        t.one(
            " until the moon came up.",
            f" until {a.his} eyes closed.",
            " until supper was cold.",
            ", first from the left and then from the right.",
            f" and said good night to {it.it}.",
        )
    else:
        t.speak(b)
        t.say(
            f" {t.who(a)} went home without the {it.name}.\nBut {t.who(b)} "
            "could not sleep."
        )
        t.say(" In the morning")
        t.the(it)
        t.say(f" {it.was}")
        t.place(central=True)
        t.say(
            f', with a note for {t.who(a)}: "A {promise} is a {promise}{STOP}'
        )
    t.coda(same_day=False)

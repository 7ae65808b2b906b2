"""Plots of talk: a guessing game, a strange noise."""

from __future__ import annotations

from gpt2.stories import phrases, words
from gpt2.stories.memory import Story, creature, sound
from gpt2.stories.words import (
    ASKED,
    COMMA,
    STOP,
    THINGS,
    Noun,
    Person,
    Thing,
    article,
    ask,
)

# --- Guessing
# ---------------------------------------------------------------------------


def guessing(t: Story) -> None:
    """Hide something behind one's back and let a friend guess what it is."""
    a = t.hero
    it = t.see(article=True, only_one=True)
    t.say(f" behind {a.his} back. {a.He} had found it")
    place = t.place(central=True)
    t.one(
        f'.\n"Guess what I have{COMMA} {a.he} said to',
        f".\nThen {a.he} went to find",
        f'.\n"I have a secret{COMMA} {a.he} told',
    )
    b = t.meet()
    if t.pick({True: ", who was", False: "."}, (2, 1)):
        t.some(phrases.ACTIVITIES, ".")
    _questions(t, b, it)
    _guesses(t, b, it)
    way = t.pick(
        {
            "swap": "\nThen",
            "back": f"\n{t.who(a)} put",
            "give": '\n"You may keep it',
        }
    )
    if way == "swap":
        t.say(
            f" {t.who(b)} hid something, and {t.who(a)} had to guess. It was"
        )
        t.see(article=True, only_one=True)
        t.one(
            f", but {a.he} never guessed it.",
            f", and {a.he} guessed it at once.",
            f", but {a.he} said it was a cabbage.",
            ", and it took all day.",
        )
        return
    if way == "back":
        t.the(it)
        t.say(f" back {t.where(place)}, ")
        t.one(
            "so that somebody else could find it.",
            "because it looked lonely.",
            "just in case.",
            "where it had always been.",
        )
    else:
        t.speak(a)
        t.say(f" So now {t.who(b, 'owner')} had {it.a_full}.")
    t.coda()


def _worn(noun: Noun) -> bool:
    """Tell whether one wears it."""
    return noun.group == "clothes" or noun.word in words.JEWELLERY


def _alike(noun: Noun, other: Noun) -> bool:
    """Tell whether the same answers are true of both."""
    return noun.group == other.group and _worn(noun) == _worn(other)


def _questions(t: Story, b: Person, it: Thing) -> None:
    """Ask one or two questions, which the hero answers truly, and begin to guess."""
    a = t.hero
    truths = {
        "something to wear": _worn(it.noun),
        "a toy": it.noun.group == "toy",
        "good to eat": False,
        **{colour: it.adjective == colour for colour in words.COLOURS},
    }
    weights = dict(
        zip(truths, (6, 5, 3, *words.COLOURS.values()), strict=True)
    )

    def question(options: list[str], lead: str) -> str:
        return t.pick(
            {q: lead + q for q in options},
            [weights[q] for q in options],
            "question",
        )

    def reply(asked: str) -> str:
        source = it.adjective if asked in words.COLOURS else it.noun.word
        return ask(
            "fact",
            *(("Yes", "No") if truths[asked] else ("No", "Yes")),
            source=source,
        )

    first = question(list(truths), ' "Is it ')
    t.say(f'{ASKED} asked {t.who(b, "speaker")}. "{reply(first)}')
    if first == "good to eat":
        t.speak(a, ', "')
        t.one(
            "unless you are a goat",
            "but you can always try",
            "you would break a tooth",
        )
        t.say(STOP)
    else:
        t.speak(a)
        if t.pick({True: ' "Is it ', False: '\n"Is it'}):
            left = (
                ["something to wear", "a toy"]
                if first in words.COLOURS
                else [*words.COLOURS]
            )
            t.say(f'{ASKED} "{reply(question(left, ""))}{STOP}\n"Is it')
        return
    t.say('\n"Is it')


def _guesses(t: Story, b: Person, it: Thing) -> None:
    """Guess up to three times."""
    a = t.hero
    pool = [noun for noun in THINGS if not noun.many and _alike(noun, it.noun)]
    pool = [noun for noun in pool if noun is it.noun or t.allows(noun)]
    tries = ("one", "two", "three")
    for count, others in zip(
        tries, (tries[1:], tries[::2], tries[:2]), strict=True
    ):
        weights = [len(pool) if noun is it.noun else 1.0 for noun in pool]
        guess = t.pick(
            {n: f" {words.a_or_an(n.word)} {n.word}" for n in pool},
            weights,
            "guess",
        )
        t.say(
            f"{ASKED} asked {t.who(b, 'speaker')}."
            if count == "one"
            else ASKED
        )
        if guess is it.noun:
            t.say(f' "{ask("fact", "Yes", "No", source=it.noun.word)}')
            t.speak(a)
            t.say(
                " It had taken only "
                f"{ask('count', count, *others, source='Is it')} "
            )
            plural = (
                ("guess", "guesses")
                if count == "one"
                else ("guesses", "guess")
            )
            t.say(f"{ask('agreement', *plural, source=count)}.")
            return
        t.say(f' "{ask("fact", "No", "Yes", source=it.noun.word)}{STOP}')
        t.say(' "Is it' if count != "three" else ' "I give up')
        pool.remove(guess)
    t.speak(b)
    t.say(f" So {t.who(a)} showed {b.him}")
    t.the(it)
    t.say(".")


# --- A strange noise
# ---------------------------------------------------------------------------


def noise(t: Story) -> None:
    """Hear a strange noise, be brave together, and find who made it."""
    a = t.hero
    sounds = {
        animal: f'. "{voice}' for animal, (voice, _) in words.ANIMALS.items()
    }
    weights = [weight for _, weight in words.ANIMALS.values()]
    animal = t.pick(sounds, weights, "animal")
    t.say(f"{COMMA} it went.")
    t.one(' "It must be a ', ' "That was a ', ' "It sounds like a ')
    monster = t.pick({m: m for m in words.MONSTERS}, kind="monster")
    t.say(f"{COMMA} whispered")
    b = t.meet()
    others = [m for m in words.MONSTERS if m != monster]
    feared = ask("monster", monster, *others[:2])
    if t.pick({True: '. "Or a ', False: ", "}):
        second = t.pick({m: m for m in others}, kind="monster")
        feared += f" and no {ask('monster', second, *[m for m in others if m != second][:2])}"
        t.speak(a)
    else:
        t.one(
            "going pale.", "who had read about them.", "looking under a chair."
        )
    t.say(f"\n{t.who(a)} took {a.his}")
    it = t.see()
    t.one(
        ", just in case,",
        ", because one never knows,",
        " for luck,",
        " in both hands,",
        " to look bigger,",
    )
    t.say(" and they")
    t.go(" to")
    place = t.place(central=True, spot=True)
    t.say(".")
    t.aside(f" But there was no {feared} {t.where(place)}. There was only ")
    t.say(
        f"{article(animal, words.ANIMALS[animal][0])} "
        f"{creature(animal, 'sound')},"
    )
    t.some(phrases.PREDICAMENTS)
    t.say(
        f'.\n"{sound(animal)}{COMMA} it said, which is {creature(animal)} for "'
    )
    t.one(
        *(f'{m}"' if m.endswith("?") else f'{m}."' for m in phrases.MEANINGS)
    )
    if t.pick(
        {
            True: f' "And what {it.was} the {it.name} for',
            False: f" {t.who(a)} ",
        }
    ):
        t.say(f'{ASKED} asked {t.who(b, "speaker")}. "')
        t.one(
            "You never know",
            "I forgot",
            "It would be too long a story",
            f"Without {it.it} I am never brave",
            "We shall see",
            "Ask me tomorrow",
        )
        t.speak(a)
    else:
        t.one("let it wear", "gave it", "showed it", "let it hold")
        t.the(it)
        t.say(", and it ")
        t.one(
            "was very happy.",
            "went back to sleep.",
            f"followed {a.him} all the way home.",
            "sneezed.",
            "sang a little.",
        )
    t.coda()

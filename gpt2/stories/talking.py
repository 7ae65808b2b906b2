"""Plots with dialogue: a guessing game, a strange noise."""

from __future__ import annotations

from gpt2.stories import phrases, words
from gpt2.stories.memory import Story, creature, sound
from gpt2.stories.words import (
    ASKED,
    COMMA,
    NEXT_GROUP,
    OUTDOORS,
    PLACES,
    STOP,
    THINGS,
    Person,
    Thing,
    article,
    ask,
)

# --- Guessing
# ---------------------------------------------------------------------------


def guessing(t: Story) -> None:
    """Hide something behind one's back, and let a friend guess what it is."""
    a = t.hero
    it = t.see(article=True, only_one=True)
    t.say(f" behind {a.his} back. {a.He} had found it")
    place = t.place(PLACES, central=True)
    t.say(f'.\n"Guess what I have{COMMA} {a.he} said to')
    b = t.friend()
    t.say(".")
    _question(t, it)
    _guesses(t, b, it)
    if t.pick({True: f"\n{t.who(a)} put", False: '\n"You may keep it'}):
        t.say(f" the {it.name} back {t.where(place)},")
        t.one(
            " so that somebody else could find it.",
            " because it looked lonely.",
        )
    else:
        t.speak(a, f". So now {t.who(b, 'owner')} had {it.a_full}.")
        t.coda()


def _question(t: Story, it: Thing) -> None:
    """Ask a question, and answer it truthfully."""
    truths = {
        "good to eat": False,
        **{colour: it.adjective == colour for colour in words.COLOURS},
    }
    weights = (6, *words.COLOURS.values())
    asked = t.pick({q: f' "Is it {q}' for q in truths}, weights, "question")
    source = it.adjective if asked in words.COLOURS else it.noun.word
    answers = ("Yes", "No") if truths[asked] else ("No", "Yes")
    t.say(f'{ASKED} "{ask("fact", *answers, source=source)}')
    if asked == "good to eat":
        t.say(", unless you are a goat")
    t.say(STOP)


def _guesses(t: Story, b: Person, it: Thing) -> None:
    """Guess once or twice, or give up."""
    a = t.hero
    group = NEXT_GROUP[it.noun.group]
    others = [n for n in THINGS if n.group == group and not n.many]
    pool = [it.noun, *[noun for noun in others if t.allows(noun)]]
    guess = t.pick(
        {n: f' "Is it {words.a_or_an(n.word)} {n.word}' for n in pool},
        [7.0 if noun is it.noun else 1.0 for noun in pool],
        "guess",
    )
    t.say(f'{ASKED} "')
    yes = f"{ask('fact', 'Yes', 'No', source=it.noun.word)}{COMMA} said {t.who(a, 'speaker')}."
    if guess is it.noun:
        t.say(yes + _count("one", "two", ("guess", "guesses")))
        return
    t.say(f"{ask('fact', 'No', 'Yes', source=it.noun.word)}{STOP}")
    if t.pick({True: ' "Is it', False: ' "I give up'}, (2, 1)):
        right = f"{article(it.noun.word, it.noun.word)} {it.name}"
        t.say(f' {right}{ASKED} "{yes}')
        t.say(_count("two", "one", ("guesses", "guess")))
    else:
        t.say(
            f"{COMMA} said {t.who(b, 'speaker')}. So {t.who(a)} showed "
            f"{b.him} the {it.full}."
        )


def _count(number: str, wrong: str, plural: tuple[str, str]) -> str:
    """Return a sentence with the number of guesses."""
    return (
        f" It took only {ask('count', number, wrong, source='Is it')} "
        f"{ask('agreement', *plural, source=number)}."
    )


# --- A strange noise
# ---------------------------------------------------------------------------


def noise(t: Story) -> None:
    """Hear a strange noise, go together, and find out who made it."""
    a = t.hero
    sounds = {
        animal: f'. "{voice}' for animal, (voice, _) in words.ANIMALS.items()
    }
    weights = [weight for _, weight in words.ANIMALS.values()]
    animal = t.pick(sounds, weights, "animal")
    t.say(f'{COMMA} it went. "It must be a ')
    monster = t.pick({m: m for m in words.MONSTERS}, kind="monster")
    t.say(f"{COMMA} whispered")
    b = t.friend()
    others = [m for m in words.MONSTERS if m != monster][:2]
    t.say(f".\n{t.who(a)} took {a.his}")
    it = t.see()
    t.one(", just in case,", ", to look bigger,")
    t.say(" and they")
    t.some(phrases.GOING)
    t.say(" to")
    t.place(OUTDOORS, central=True, spot=True)
    t.say(
        f". But there was no {ask('monster', monster, *others)}, only "
        f"{article(animal, words.ANIMALS[animal][0])} "
        f"{creature(animal, 'sound')},"
    )
    t.some(phrases.PREDICAMENTS)
    if t.pick({True: f'.\n"{sound(animal)}', False: '.\n"And what'}):
        t.say(f'{COMMA} it said, which is {creature(animal)} for "')
        t.one(*phrases.MEANINGS)
        t.coda()
    else:
        t.say(
            f' {it.was} the {it.name} for{ASKED} asked {t.who(b, "speaker")}. "'
        )
        t.one(
            "You never know",
            f"Without {it.it} I am never brave",
            "Ask me tomorrow",
        )
        t.speak(a)

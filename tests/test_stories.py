"""The language of stories: exact, unambiguous and consistent."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence

import pytest

from gpt2 import stories
from gpt2.stories import words
from gpt2.stories.engine import Reader, Teller, Writer, every_text, plain
from gpt2.stories.memory import Story

SPLITS = ("train", "held_out", "all")
# How GPT-2 cuts ASCII text before it merges bytes.
PIECES = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def train() -> list[stories.Reading]:
    rng = random.Random(11)
    return [stories.read(stories.sample(rng), "train") for _ in range(700)]


def toy(t: Teller) -> None:
    """Tell one of seven texts, with a fork that depends on memory."""
    name = t.choose(("Mia", "Tom"), (3.0, 1.0), "name")
    if t.choose((" sat", " ran"), None, "verb") == 0:
        t.choose((" here.", " there."), (1.0, 4.0), "place")
    elif name == 0:
        t.choose(
            (" to [name Tom|Mia].", " off.", " up."), (2.0, 1.0, 1.0), "place"
        )
    t.say("")


def follow(text: str) -> Reader:
    reader = Reader(text)
    toy(reader)
    reader.finish()
    return reader


# --- The engine, on a language small enough to be listed
# ----------------------------------------


def test_a_small_language_is_listed_and_adds_up_to_one() -> None:
    texts = dict(every_text(toy))
    assert set(texts) == {
        *(
            "Mia sat here.",
            "Mia sat there.",
            "Mia ran to Tom.",
            "Mia ran off.",
            "Mia ran up.",
        ),
        *("Tom sat here.", "Tom sat there.", "Tom ran"),
    }
    assert math.isclose(sum(map(math.exp, texts.values())), 1.0)
    assert math.isclose(
        math.exp(texts["Mia ran to Tom."]), 3 / 4 * 1 / 2 * 2 / 4
    )


def test_reading_gives_the_listed_probability_and_the_exact_entropy() -> None:
    exact = chained = 0.0
    for text, log_probability in every_text(toy):
        forks = follow(text).forks
        assert math.isclose(
            sum(f.log_probability for f in forks), log_probability
        )
        exact -= math.exp(log_probability) * log_probability
        chained += math.exp(log_probability) * sum(f.entropy for f in forks)
    assert math.isclose(exact, chained)


def test_writing_draws_as_often_as_the_probabilities_say() -> None:
    rng, n = random.Random(5), 20_000
    drawn: Counter[str] = Counter()
    for _ in range(n):
        writer = Writer(rng.random)
        toy(writer)
        drawn[writer.text] += 1
    expected = {text: math.exp(logp) * n for text, logp in every_text(toy)}
    assert set(drawn) == set(expected)
    # Chi-square with 7 degrees of freedom exceeds 29.9 once in ten thousand
    # times.
    assert (
        sum((drawn[text] - e) ** 2 / e for text, e in expected.items()) < 29.9
    )


def test_a_mark_is_a_recall_only_where_no_other_option_is_open() -> None:
    def program(t: Teller) -> None:
        t.choose(
            ("Mia saw [name Tom|Mia] and", "Mia saw Ben and"), None, "who"
        )
        t.say(" then [name Tom|Mia|Ben@saw] left.")

    reader = Reader("Mia saw Tom and then Tom left.")
    program(reader)
    assert [
        (r.start, r.answer, r.alternatives, r.source) for r in reader.recalls
    ] == [(21, "Tom", ("Mia", "Ben"), 4)]


@pytest.mark.parametrize(
    ("texts", "weights", "message"),
    [
        (
            ("the barn", "the", "a well"),
            None,
            r"'the' .*'the barn'",
        ),
        (("a [x b|c]", "a b"), None, "'a b' .*'a b'"),
        ((), None, "option.*none"),
        (("a", "b"), (1.0, 0.0), r"2 .*weights.*\[1\.0, 0\.0\]"),
        (("a", "b"), (1.0,), r"2 .*weights.*\[1\.0\]"),
    ],
)
def test_a_fork_that_could_be_taken_in_two_ways_is_refused(
    texts: tuple[str, ...], weights: tuple[float, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Reader("the barn").choose(texts, weights, "")


@pytest.mark.parametrize(
    ("text", "offset", "found", "expected"),
    [
        ("Mia sat hree.", 9, "hree.", ("here.",)),
        ("Tim sat here.", 1, "Tim sat here.", ("Tom",)),
        ("Ann", 0, "Ann", ("Mia", "Tom")),
        ("Mia ran to", 10, "to", ("to Tom.",)),
        ("Tom ran off.", 7, " off.", ()),
    ],
)
def test_the_reader_says_where_a_text_strays(
    text: str, offset: int, found: str, expected: tuple[str, ...]
) -> None:
    with pytest.raises(stories.NotAStory) as error:
        follow(text)
    verdict = error.value.verdict
    assert (verdict.offset, verdict.found, verdict.expected) == (
        offset,
        found,
        expected,
    )
    said = str(error.value)
    assert f"offset {offset}:" in said and repr(found) in said
    assert all(repr(text) in said for text in expected)


# --- Stories are exact
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_every_written_story_is_read_with_the_probability_it_was_written_with(
    split: str,
) -> None:
    rng = random.Random(3)
    for _ in range(150):
        writer = Writer(rng.random)
        stories.tell(writer, split)
        assert stories.check(writer.text, split)
        found = stories.log_probability(writer.text, split)
        assert math.isclose(found, writer.log_probability, abs_tol=1e-9)


def test_sampling_needs_nothing_but_random_numbers() -> None:
    class Bare:
        def __init__(self) -> None:
            self.random = random.Random(8).random

    rng = random.Random(8)
    bare = Bare()
    for _ in range(20):
        assert stories.sample(bare) == stories.sample(rng)
    assert stories.sample(8) == stories.sample(8) != stories.sample(9)


def test_choices_are_taken_as_often_as_their_probabilities_say(
    train: list[stories.Reading],
) -> None:
    surprise: dict[str, float] = {}
    variance: dict[str, float] = {}
    for reading in train:
        for fork in reading.forks:
            first = fork.probabilities[0]
            surprise[fork.kind] = (
                surprise.get(fork.kind, 0) + (fork.taken == 0) - first
            )
            variance[fork.kind] = variance.get(fork.kind, 0) + first * (
                1 - first
            )
    assert len(surprise) > 10
    for kind, difference in surprise.items():
        assert abs(difference) < 4.5 * math.sqrt(variance[kind]) + 1, kind


def test_the_odd_odds_of_the_weather_are_kept(
    train: list[stories.Reading],
) -> None:
    told = Counter(
        r.memory.weather.adjective
        for r in train
        if r.memory.time and r.memory.weather
    )
    n, total = sum(told.values()), sum(w.weight for w in words.WEATHERS)
    for weather in words.WEATHERS:
        p = weather.weight / total
        assert abs(told[weather.adjective] - n * p) < 4.5 * math.sqrt(
            n * p * (1 - p)
        )


def test_the_entropy_agrees_with_the_mean_surprise(
    train: list[stories.Reading],
) -> None:
    n = len(train)
    estimate = stories.entropy(300, seed=1)
    surprise = [-reading.log_probability for reading in train]
    mean = sum(surprise) / n
    error = math.sqrt(sum((x - mean) ** 2 for x in surprise) / n / n)
    assert abs(estimate.nats_per_story - mean) < 4 * (
        error + estimate.standard_error
    )
    assert 0.15 < estimate.standard_error < 0.4
    assert estimate.stories > 1e12
    low = estimate.nats_per_story - 3 * estimate.standard_error
    assert math.isclose(math.log(estimate.stories), low)
    bits = estimate.nats_per_story / math.log(2) / estimate.bytes_per_story
    assert math.isclose(estimate.bits_per_byte, bits)


# --- Stories are checked
# ---------------------------------------------------------------------------


def test_every_kind_of_error_is_found_where_it_stands(
    train: list[stories.Reading],
) -> None:
    tried: Counter[str] = Counter()
    for reading in train:
        for recall in reading.recalls:
            if tried[recall.kind] >= 25:
                continue
            tried[recall.kind] += 1
            before, after = (
                reading.text[: recall.start],
                reading.text[recall.start :],
            )
            for wrong in recall.alternatives:
                assert wrong != recall.answer
                text = before + wrong + after.removeprefix(recall.answer)
                verdict = stories.check(text, "train")
                assert not verdict
                assert verdict.offset is not None
                assert 0 <= verdict.offset - recall.start <= len(wrong), (
                    recall,
                    verdict,
                )
                assert verdict.line == before.count("\n") + 1
    assert set(tried) == set(stories.KINDS)
    assert min(tried.values()) >= 5


def test_the_offset_is_the_first_character_that_begins_no_story(
    train: list[stories.Reading],
) -> None:
    rng = random.Random(2)
    for reading in train[:150]:
        at = int(rng.random() * len(reading.text))
        for text in (
            reading.text[:at]
            + reading.text[at + 1 :],  # a letter, a quote, a stop is missing
            reading.text[:at] + "x" + reading.text[at + 1 :],
            reading.text[:at],
            reading.text + " ",
        ):
            verdict = stories.check(text)
            if (
                verdict
            ):  # what is left may still be a story: `the[y]`, and so on
                continue
            assert verdict.offset is not None
            assert at <= verdict.offset <= len(text)
            begun = stories.check(text[: verdict.offset])
            assert begun or begun.offset == verdict.offset
    assert stories.check(reading.text + " ").offset == len(reading.text)
    assert re.search(
        "the end, got ' '$", str(stories.check(reading.text + " "))
    )


def test_another_name_or_a_missing_quote_is_no_story() -> None:
    text = stories.sample(4)
    hero = stories.read(text).memory.hero
    other = next(
        p for p in words.NAMES if p.she == hero.she and p.name not in text
    )
    assert stories.check(text.replace(hero.name, other.name))
    first, last = text.index(hero.name), text.rindex(hero.name)
    assert first < last
    verdict = stories.check(
        text[:last] + other.name + text[last + len(hero.name) :]
    )
    assert verdict.offset is not None
    assert last <= verdict.offset < last + len(other.name)
    close = text.index('"', text.index('"') + 1)
    assert stories.check(text[:close] + text[close + 1 :]).offset == close
    with pytest.raises(stories.NotAStory):
        stories.log_probability("Once upon a time.")


# --- Stories are true
# ---------------------------------------------------------------------------


def number(word: str) -> int:
    return words.NUMBERS.index(word.lower())


def test_sums_are_right(train: list[stories.Reading]) -> None:
    seen = 0
    count = "(" + "|".join(words.NUMBERS) + ")"
    for reading in train:
        found = re.search(
            rf"(?:picked|baked|found) {count} .*?{count} more.*? "
            rf"{count}\.\n.*?"
            rf"(?:ate|gave|dropped) {count}\b.*?\? {count} .*?"
            rf": {count} each(.*?)(?:\n|$)",
            reading.text,
            re.DOTALL | re.IGNORECASE,
        )
        if not found or reading.memory.nouns[0].group != "food":
            continue
        seen += 1
        first, more, total, gone, left = map(number, found.groups()[:5])
        assert total == first + more
        assert left == total - gone
        assert number(found[6]) == left // 2
        assert ("and one for" in found[7]) == (left % 2 == 1)
    assert seen > 40


def test_people_look_where_they_believe_the_thing_to_be(
    train: list[stories.Reading],
) -> None:
    seen = {True: 0, False: 0}
    for reading in train:
        if " and went out to" not in reading.text:
            continue
        first, now = (str(place) for place in reading.memory.places[:2])
        knows = "saw it all" in reading.text
        looked = re.search(r"came back and looked (.*?),", reading.text)
        assert looked
        assert looked[1] == (now if knows else first)
        seen[knows] += 1
    assert min(seen.values()) > 15


def test_swaps_end_with_the_right_owners(train: list[stories.Reading]) -> None:
    who = r"((?:Aunt |Uncle )?[A-Z]\w+)"
    seen: Counter[bool] = Counter()
    for reading in train:
        given = re.findall(rf"{who} gave the (\w+) to {who}", reading.text)
        if not given:
            continue
        owners = {thing: taker for _, thing, taker in given}
        assert all(giver != taker for giver, _, taker in given)
        end = reading.text.split("Then off they went, the ")[1].split("\n")[0]
        claims = re.findall(rf"(\w+) to {who}", end)
        assert len(owners) == len(claims) == 3
        assert dict(claims) == owners
        # Who is given the hero's thing cannot be known without the story.
        hero = reading.memory.hero.name
        (taker,) = [taker for giver, _, taker in given if giver == hero]
        seen[taker in {person.name for person in words.RELATIVES}] += 1
    assert min(seen.values()) > 10


def test_the_way_home_is_the_way_there_turned_round(
    train: list[stories.Reading],
) -> None:
    back = dict(words.LEGS)
    leg = (
        "(" + "|".join(sorted({x for pair in words.LEGS for x in pair})) + ")"
    )
    way = re.compile(rf"{leg}, {leg} and {leg}")
    journeys = [way.findall(r.text) for r in train if "went home," in r.text]
    assert len(journeys) > 30
    for there, home in journeys:
        assert home == tuple(back[step] for step in reversed(there))


def test_words_agree_with_what_they_stand_for(
    train: list[stories.Reading],
) -> None:
    seen: Counter[bool] = Counter()
    pronouns = {
        True: r"\b([Ss]he|[Hh]er)\b",
        False: r"\b([Hh]e|[Hh]im|[Hh]is)\b",
    }
    for reading in train:
        text = reading.text
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text)
        for noun in reading.memory.nouns:
            assert not re.search(
                rf"\b{noun.word} {'was' if noun.many else 'were'}\b", text
            )
            if noun.group != "food":
                article = re.search(
                    rf"\b(an?|some) [a-z]+ {noun.word}\b", text
                )
                assert not article or (article[1] == "some") == noun.many
        # Up to the name of the second person, only one can be meant.
        hero, *others = reading.memory.people
        before = text[: text.index(others[0].name)]
        if all(person.she == hero.she for person in others):
            before = text
        seen[hero.she] += bool(re.search(pronouns[hero.she], before))
        assert not re.search(pronouns[not hero.she], before)
    assert min(seen.values()) > 50
    assert [
        person.she for person in words.NAMES if person.name in ("Ella", "Tom")
    ] == [True, False]


def test_hero_and_friend_are_a_girl_and_a_boy(
    train: list[stories.Reading],
) -> None:
    for reading in train:
        named = [p for p in reading.memory.people if p in words.NAMES]
        assert 1 <= len(named) <= 2
        assert len({person.she for person in named}) == len(named)
        assert len(reading.memory.people) - len(named) <= 1


def test_second_things_and_places_are_of_another_sort(
    train: list[stories.Reading],
) -> None:
    for reading in train:
        groups = [noun.group for noun in reading.memory.nouns]
        assert len(set(groups)) == len(groups) <= 3
        indoors = [place in words.INDOORS for place in reading.memory.places]
        assert len(set(indoors)) == len(indoors) <= 2


def test_every_group_of_things_has_as_many_that_are_many() -> None:
    """Else `some` would tell of the group before the thing is named."""
    many = Counter(noun.group for noun in words.THINGS if noun.many)
    one = Counter(noun.group for noun in words.THINGS if not noun.many)
    assert set(many.values()) == {2}
    assert set(one.values()) == {8}


def test_nothing_is_told_as_new_twice(train: list[stories.Reading]) -> None:
    for reading in train:
        for told in (
            reading.memory.people,
            reading.memory.nouns,
            reading.memory.places,
        ):
            assert len(set(told)) == len(told)


# --- Splits
# ---------------------------------------------------------------------------


NOUNS = (*words.THINGS, *(counted.noun for counted in words.COUNTED))
WORDS_FOR = (
    {person: re.compile(rf"\b{person.name}\b") for person in words.NAMES}
    | {noun: re.compile(rf"\b{noun.word}\b") for noun in NOUNS}
    | {
        place: re.compile(rf"\b({place}|to {place.spot})\b")
        for place in words.PLACES
    }
)


def combinations(
    text: str,
) -> list[tuple[words.Person, words.Noun, words.Place]]:
    """Find every hero, thing and place that a text brings together."""
    told = {
        item for item, pattern in WORDS_FOR.items() if pattern.search(text)
    }
    hero = min(
        (p for p in words.NAMES if p in told), key=lambda p: text.index(p.name)
    )
    nouns = [noun for noun in NOUNS if noun in told]
    return [
        (hero, noun, place)
        for noun in nouns
        for place in words.PLACES
        if place in told
    ]


def test_training_stories_never_bring_together_what_is_held_out(
    train: list[stories.Reading],
) -> None:
    for reading in train:
        assert not any(
            stories.held_out(*triple) for triple in combinations(reading.text)
        )
        assert reading.memory.centre in combinations(reading.text)


def test_held_out_stories_turn_on_what_is_held_out() -> None:
    rng = random.Random(6)
    for _ in range(200):
        text = stories.sample(rng, "held_out")
        centre = stories.read(text, "held_out").memory.centre
        assert centre
        assert stories.held_out(*centre)
        held = [
            triple
            for triple in combinations(text)
            if stories.held_out(*triple)
        ]
        assert centre in held
        assert {place for _, _, place in held} == {centre[2]}
        verdict = stories.check(text, "train")
        place = re.search(rf"\b{centre[2].spot}\b", text)
        assert place
        assert verdict.offset is not None
        assert verdict.offset < place.end()
        assert stories.check(text, "all")


def test_one_combination_in_ten_is_held_out_for_every_hero_and_thing() -> None:
    for hero in words.NAMES:
        for noun in NOUNS:
            held = [
                stories.held_out(hero, noun, place) for place in words.PLACES
            ]
            assert 2 <= sum(held) <= 3
            for places in (words.INDOORS, words.OUTDOORS):
                here = [held[place.number] for place in places]
                assert any(here)
                assert not all(here)
    rng = random.Random(9)
    centres = [
        stories.read(stories.sample(rng, "all")).memory.centre
        for _ in range(400)
    ]
    assert (
        20
        <= sum(stories.held_out(*centre) for centre in centres if centre)
        <= 62
    )


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"train.*held_out.*all.*'test'"):
        stories.sample(1, "test")


# --- Shape
# ---------------------------------------------------------------------------


def test_stories_are_plain_short_and_various(
    train: list[stories.Reading],
) -> None:
    vocabulary: set[str] = set()
    for reading in train:
        text = reading.text
        assert text.isascii()
        assert not re.search(r"[\[\]|@{}]|  |\n\n| \n|\n | $|\n$| ,| \.", text)
        assert text[0].isupper()
        assert text.endswith((".", '."', '?"'))
        assert text.count('"') % 2 == 0
        assert 150 < len(text) < 620
        assert len(PIECES.findall(text)) < 150
        vocabulary.update(re.findall(r"[a-z]+", text.lower()))
    assert 450 < len(vocabulary) < 600
    lengths = sorted(len(reading.text.split()) for reading in train)
    assert lengths[70] < 58
    assert lengths[-70] > 76


def test_even_a_long_winded_teller_stays_short() -> None:
    rng = random.Random(0)

    class LongWinded:
        def __init__(self) -> None:
            self.text = ""

        def choose(
            self,
            texts: Sequence[str],
            weights: Sequence[float] | None,
            kind: str,
        ) -> int:
            index = int(rng.random() * len(texts))
            if kind not in ("opening", "plot", "turn") or rng.random() < 0.3:
                index = max(
                    range(len(texts)), key=lambda i: len(plain(texts[i]))
                )
            self.text += plain(texts[index])
            return index

        def say(self, text: str) -> None:
            self.text += plain(text)

    longest = ""
    for _ in range(3000):
        teller = LongWinded()
        stories.tell(teller, "all")
        longest = max(longest, teller.text, key=len)
    assert stories.check(longest)
    assert 520 < len(longest) < 620
    assert len(PIECES.findall(longest)) < 150


# --- Probes
# ---------------------------------------------------------------------------


def test_probes_have_one_right_answer_and_wrong_alternatives() -> None:
    found = stories.probes(250, seed=1, split="held_out")
    assert Counter(p.kind for p in found) == dict.fromkeys(stories.KINDS, 10)
    for probe in found:
        assert not probe.prompt.endswith(" ")
        right = stories.check(probe.prompt + probe.answer, "held_out")
        if not right:  # the answer may also end the story
            assert right.offset == len(probe.prompt + probe.answer)
        assert probe.alternatives
        for wrong in probe.alternatives:
            # The full stop is needed for a wrong answer that is a prefix of
            # the right one.
            verdict = stories.check(probe.prompt + wrong + ".", "held_out")
            assert verdict.offset is not None
            assert (
                len(probe.prompt)
                <= verdict.offset
                <= len(probe.prompt + wrong)
            )
        assert 1 <= probe.distance <= 110
        assert 0 <= probe.source < len(probe.prompt)


def test_probes_of_some_kinds_are_repeatable() -> None:
    kinds = ["belief", "sum"]
    found = stories.probes(5, seed=2, kinds=kinds)
    assert [p.kind for p in found] == ["belief"] * 3 + ["sum"] * 2
    assert found == stories.probes(5, seed=2, kinds=kinds)
    assert (
        max(p.distance for p in stories.probes(20, seed=2, kinds=["weather"]))
        > 65
    )
    with pytest.raises(ValueError, match=r"sum.*\['colour'\]"):
        stories.probes(5, seed=2, kinds=["belief", "colour"])


def test_answers_begin_and_end_where_tokens_may(
    train: list[stories.Reading],
) -> None:
    for reading in train[:200]:
        ends = {piece.end() for piece in PIECES.finditer(reading.text)} | {0}
        for recall in reading.recalls:
            start = len(reading.text[: recall.start].removesuffix(" "))
            assert start in ends, (recall, reading.text)
            assert recall.start + len(recall.answer) in ends, (
                recall,
                reading.text,
            )


def test_the_memory_knows_the_people_in_order() -> None:
    reading = stories.read(stories.sample(12))
    assert repr(reading) == f"Reading(text={reading.text!r})"
    assert isinstance(reading.memory, Story)
    order = sorted(
        reading.memory.people, key=lambda p: reading.text.index(p.name)
    )
    assert order == reading.memory.people

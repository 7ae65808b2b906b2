"""An invented language of short stories, of which everything is known.

A story is told by an ordinary program (`tell`) that has a memory and, at every
fork, says which texts could come next and how probable each of them is. So the
language is a probabilistic grammar with memory, and a language model trained
on its stories can be held against the truth:

- **No ambiguity.** Every choice is made at the moment it shows in the text,
  and no option of a fork may be the beginning of another (the reader checks
  this at every fork). So at every place of a text at most one option fits: a
  text has one derivation or none.
- **Exact probabilities.** The log-probability of a story is the sum over its
  forks. On average no model can do better: its loss is never below the
  entropy.
- **The entropy.** The entropy of the language is the mean of `-ln p` over its
  stories, in nats. Choice by choice (the chain rule) it is also the mean of
  the summed entropies of the forks a story passes, each of them exact;
  `entropy` averages those (Rao and Blackwell's idea). Stories differ more than draws do, so either mean
  needs some thousands of stories. To see how far a model is from the truth,
  fewer will do: compare its loss with `-log_probability` on the same stories.
- **Checking.** A text that leaves the language does so at one character, and
  `check` says where, and what could have stood there.
- **Probes.** Where the text so far decides how it goes on (a pronoun, the
  owner after a swap, where somebody believes a moved thing to be), the teller
  says so, with the kind of memory needed.

Some combinations of a hero, a thing and a place are held out: stories of the
split `train` never bring them together, in stories of `held_out` everything
turns on one of them, and `all` takes no notice. See `held_out`.

Some odds are odd on purpose, for a model to be calibrated against: rain is
told of six times as often as ice, ducks are met more than any other animal,
and red is the favourite colour (`WEATHERS`, `ANIMALS` and `COLOURS` in
`gpt2.stories.words`).

Nothing here needs PyTorch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2.stories.engine import (
    Fork,
    NotAStory,
    Reader,
    Recall,
    Teller,
    Verdict,
    Writer,
    every_text,
)
from gpt2.stories.memory import HELD_OUT_EVERY, SPLITS, Story, held_out
from gpt2.stories.opening import tell

__all__ = [
    "HELD_OUT_EVERY",
    "KINDS",
    "SPLITS",
    "Entropy",
    "Fork",
    "NotAStory",
    "Probe",
    "Reading",
    "Recall",
    "Story",
    "Teller",
    "Verdict",
    "check",
    "entropy",
    "every_text",
    "held_out",
    "log_probability",
    "probes",
    "read",
    "sample",
    "tell",
]

KINDS = {
    "adjective": "what a thing looked like when it was first told of",
    "agreement": "was or were, it or them, guess or guesses: whether there is one or more",
    "animal": "which animal was met",
    "article": "a or an, by the word that memory says must follow",
    "belief": "where somebody thinks the thing is, who may not have seen it moved",
    "count": "how many guesses were made",
    "fact": "yes or no, true of a thing that the reader has seen",
    "home": "where the hero lives",
    "inside": "what is in a box, wherever it was carried, and what sort of box it is",
    "monster": "what was feared",
    "name": "who is meant",
    "owner": "who has the thing, after it was given or swapped or withheld",
    "pet": "the name of the hero's animal",
    "place": "where something is or belongs",
    "promise": "what was promised: the place, the time, the piece of work",
    "pronoun": "she or he, her or him, by the name",
    "quote": "how speech closes: a question, a statement, a statement before `said`",
    "route": "the way back: the way there, turned round",
    "sound": "what an animal says, and which animal says it",
    "speaker": "who has just spoken",
    "sum": "small numbers added, taken away and halved",
    "thing": "which thing the story is about",
    "time": "the time of day, and the meal that comes after it",
    "trait": "what the hero is like, told in the first line and in the last",
    "weather": "the weather, told in the first line and in the last",
}


@dataclass(frozen=True)
class Reading:
    """A story that was followed from beginning to end.

    Attributes:
        text: The story.
        forks: Its choices, in order.
        recalls: The places where memory decides how it goes on, in order.
        memory: What the teller had in mind at the end.
    """

    text: str
    forks: tuple[Fork, ...]
    recalls: tuple[Recall, ...]
    memory: Story

    @property
    def log_probability(self) -> float:
        """The log-probability of the story, in nats."""
        return math.fsum(fork.log_probability for fork in self.forks)

    @property
    def entropy(self) -> float:
        """The summed entropies of the forks passed, in nats."""
        return math.fsum(fork.entropy for fork in self.forks)


@dataclass(frozen=True)
class Entropy:
    """An estimate of the entropy of the language.

    Attributes:
        nats_per_story: The entropy of one story.
        standard_error: The standard error of that, from the spread between
            stories.
        bytes_per_story: The mean length of the same stories.
        bits_per_byte: The entropy for each byte of text.
    """

    nats_per_story: float
    standard_error: float
    bytes_per_story: float

    @property
    def bits_per_byte(self) -> float:
        """The entropy for each byte of text, in bits."""
        return self.nats_per_story / self.bytes_per_story / math.log(2)

    @property
    def stories(self) -> float:
        """A number that the language's stories exceed, `exp(H)` with H three errors lowered.

        No language of N texts has more entropy than ln N, so there are at
        least exp(H) stories.
        """
        return math.exp(self.nats_per_story - 3 * self.standard_error)


@dataclass(frozen=True)
class Probe:
    """A question to a language model: how does this text go on?

    A prompt never ends in a space; where one follows, it begins the answer, as
    it begins a token.

    Attributes:
        kind: The kind of memory needed, one of `KINDS`.
        prompt: The beginning of a story.
        answer: The only right continuation.
        alternatives: Wrong ones of the same sort.
        source: Offset in the prompt of the last words that decide the answer.
    """

    kind: str
    prompt: str
    answer: str
    alternatives: tuple[str, ...]
    source: int

    @property
    def distance(self) -> int:
        """How many words lie between the words that decide and the answer."""
        return len(self.prompt[self.source :].split())


def sample(rng: random.Random | int, split: str = "train") -> str:
    """Write one story.

    Args:
        rng: The source of chance, or a seed for a new one. Only its `random()`
            is called, which gives the same numbers in every version of Python.
        split: `train`, `held_out` or `all`.

    Raises:
        ValueError: There is no such split.
    """
    generator = random.Random(rng) if isinstance(rng, int) else rng
    writer = Writer(generator.random)
    tell(writer, split)
    return writer.text


def read(text: str, split: str = "all") -> Reading:
    """Follow a story from beginning to end.

    Raises:
        NotAStory: The text is no story of this split; the error's `verdict`
            says where it errs.
        ValueError: There is no such split.
    """
    reader = Reader(text)
    memory = tell(reader, split)
    reader.finish()
    return Reading(text, tuple(reader.forks), tuple(reader.recalls), memory)


def check(text: str, split: str = "all") -> Verdict:
    """Say whether a text is a story, and if not, where it stops being one.

    Returns:
        A verdict that is true for a story, and that reads as a sentence:
        `str(verdict)`.
    """
    try:
        read(text, split)
    except NotAStory as error:
        return error.verdict
    return Verdict()


def log_probability(text: str, split: str = "train") -> float:
    """Return the exact log-probability of a story, in nats.

    Raises:
        NotAStory: The text has no probability at all in this split.
        ValueError: There is no such split.
    """
    return read(text, split).log_probability


def entropy(n_stories: int, seed: int, split: str = "train") -> Entropy:
    """Estimate the entropy of the language, by the exact entropies of the forks of some stories.

    Args:
        n_stories: How many stories to write and read; at least two.
        seed: Of the chance by which they are written.
        split: `train`, `held_out` or `all`.

    Raises:
        ValueError: Too few stories, or no such split.
    """
    if n_stories < 2:
        raise ValueError(
            f"a standard error needs at least 2 stories, got {n_stories}"
        )
    rng = random.Random(seed)
    readings = [read(sample(rng, split), split) for _ in range(n_stories)]
    nats = [reading.entropy for reading in readings]
    mean = math.fsum(nats) / n_stories
    variance = math.fsum((x - mean) ** 2 for x in nats) / (n_stories - 1)
    length = (
        sum(len(reading.text.encode()) for reading in readings) / n_stories
    )
    return Entropy(mean, math.sqrt(variance / n_stories), length)


def probes(
    n: int,
    seed: int,
    split: str = "held_out",
    kinds: Sequence[str] | None = None,
) -> list[Probe]:
    """Ask `n` questions, of every kind as nearly equally many as can be.

    A story gives at most one question of each kind, so that the questions do
    not copy each other.

    Args:
        n: How many questions.
        seed: Of the chance by which stories and questions are chosen.
        split: The stories they are taken from.
        kinds: Some of `KINDS`; None for all.

    Raises:
        ValueError: There is no such kind or split.
    """
    wanted = list(dict.fromkeys(KINDS if kinds is None else kinds))
    unknown = [kind for kind in wanted if kind not in KINDS]
    if unknown or not wanted:
        raise ValueError(
            f"kinds must be some of {', '.join(KINDS)}; got "
            f"{unknown or wanted}"
        )
    missing = {
        kind: len(range(i, n, len(wanted))) for i, kind in enumerate(wanted)
    }
    rng = random.Random(seed)
    found: list[Probe] = []
    while len(found) < n:
        reading = read(sample(rng, split), split)
        for kind in wanted:
            recalls = [
                recall for recall in reading.recalls if recall.kind == kind
            ]
            if recalls and missing[kind]:
                recall = recalls[int(rng.random() * len(recalls))]
                found.append(_probe(reading.text, recall))
                missing[kind] -= 1
    return sorted(found, key=lambda probe: wanted.index(probe.kind))


def _probe(text: str, recall: Recall) -> Probe:
    """Turn a place where memory decides into a question."""
    prompt = text[: recall.start]
    space = " " if prompt.endswith(" ") else ""
    return Probe(
        kind=recall.kind,
        prompt=prompt.removesuffix(" "),
        answer=space + recall.answer,
        alternatives=tuple(space + wrong for wrong in recall.alternatives),
        source=recall.source,
    )

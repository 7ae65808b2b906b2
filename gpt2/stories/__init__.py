"""An artificial language of short stories, with exact probabilities.

An ordinary program with a memory generates the stories (`tell`). At every
fork, it lists the texts that can come next, each with its probability. So the
language is a probabilistic grammar with memory, and a language model trained
on its stories can be compared with the exact probabilities:

- **No ambiguity.** Every choice is made at the moment it shows in the text,
  and no option of a fork is a prefix of another (the reader checks this at
  every fork). So at every position of a text at most one option fits: a text
  has one derivation or none.
- **Exact probabilities.** The log-probability of a story is the sum over its
  forks. On average no model can do better: its loss is at least the entropy.
- **The entropy.** The entropy of the language is the mean of `-ln p` over its
  stories, in nats. By the chain rule, it is also the mean of the summed
  entropies of the forks that a story passes, each of which is exact; `entropy`
  averages these, which varies less (Rao-Blackwellization). Stories differ from
  each other, so either mean needs some thousands of stories. To see how far a
  model is from the entropy, fewer are enough: compare its loss with
  `-log_probability` on the same stories.
- **Checking.** A text that leaves the language does so at one character;
  `check` returns the position and what could have come there instead.
- **Probes.** Where the text so far decides how it continues (a pronoun, the
  owner after a swap, where somebody believes a moved thing to be), the program
  marks the answer, with the kind of memory that it needs.

Some combinations of a hero, a thing and a place are held out: stories of the
split `train` never contain one, stories of `held_out` always do, and `all`
makes no difference between them. See `held_out`.

Some choices have uneven odds, so that a model's calibration can be measured:
rain is six times as likely as ice, the duck is the likeliest animal, and red
the likeliest colour (`WEATHERS`, `ANIMALS` and `COLOURS` in
`gpt2.stories.words`).

This package does not need PyTorch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

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
    "adjective": "what a thing looked like when it was first mentioned",
    "agreement": "singular or plural: was or were, it or them, guess or guesses",
    "animal": "which animal was met",
    "article": "a or an, by the word that must follow",
    "belief": "where somebody thinks a thing is, who may not have seen it moved",
    "count": "how many guesses were made",
    "fact": "yes or no, about a thing that the reader has seen",
    "home": "where the hero lives",
    "inside": "what is in a box, wherever it was carried, and what kind of box it is",
    "monster": "what was feared",
    "name": "who is meant",
    "owner": "who has a thing, after it was given, swapped or withheld",
    "pet": "the name of the hero's animal",
    "place": "where something is or belongs",
    "promise": "what was promised: the place, the time, the piece of work",
    "pronoun": "she or he, her or him, by the name",
    "quote": "how speech closes: a question, a statement, a statement before `said`",
    "route": "the way back: the reverse of the way there",
    "sound": "what an animal says, and which animal says it",
    "speaker": "who has just spoken",
    "sum": "small numbers added, taken away and halved",
    "thing": "which thing the story is about",
    "time": "the time of day, and the meal that comes after it",
    "trait": "what the hero is like, in the first line and in the last",
    "weather": "the weather, in the first line and in the last",
}


@dataclass(frozen=True)
class Reading:
    """The derivation of a story.

    Attributes:
        text: The story.
        forks: Its choices, in order.
        recalls: The words that the text before them decides, in order.
        memory: The memory of the program at the end.
    """

    text: str
    forks: tuple[Fork, ...] = field(repr=False)
    recalls: tuple[Recall, ...] = field(repr=False)
    memory: Story = field(repr=False)

    @property
    def log_probability(self) -> float:
        """The log-probability of the story, in nats."""
        return math.fsum(fork.log_probability for fork in self.forks)

    @property
    def entropy(self) -> float:
        """The sum of the entropies of its forks, in nats."""
        return math.fsum(fork.entropy for fork in self.forks)


@dataclass(frozen=True)
class Entropy:
    """An estimate of the entropy of the language.

    Attributes:
        nats_per_story: The entropy of one story, in nats.
        standard_error: The standard error of `nats_per_story`, from the spread
            between stories.
        bytes_per_story: The mean length of the same stories in UTF-8.
    """

    nats_per_story: float
    standard_error: float
    bytes_per_story: float

    @property
    def bits_per_byte(self) -> float:
        """The entropy per byte of text, in bits."""
        return self.nats_per_story / self.bytes_per_story / math.log(2)

    @property
    def stories(self) -> float:
        """A lower bound on the number of stories: exp(H), H less three standard errors.

        The entropy H of a language of N texts is at most ln N.
        """
        return math.exp(self.nats_per_story - 3 * self.standard_error)


@dataclass(frozen=True)
class Probe:
    """A question to a language model: how does this text continue?

    A prompt never ends in a space: as in a token, the space belongs to the
    answer.

    Attributes:
        kind: The kind of memory needed, one of `KINDS`.
        prompt: The beginning of a story.
        answer: The only correct continuation.
        alternatives: Incorrect continuations of the same kind.
        source: The offset in the prompt of the last words that decide the
            answer.
    """

    kind: str
    prompt: str
    answer: str
    alternatives: tuple[str, ...]
    source: int

    @property
    def distance(self) -> int:
        """The number of words from the deciding words to the answer."""
        return len(self.prompt[self.source :].split())


def sample(rng: random.Random | int, split: str = "train") -> str:
    """Sample one story.

    Args:
        rng: A random number generator, or a seed for a new one. Only its
            `random()` is called, which gives the same numbers in every version
            of Python.
        split: `train`, `held_out` or `all`.

    Raises:
        ValueError: There is no such split.
    """
    generator = random.Random(rng) if isinstance(rng, int) else rng
    writer = Writer(generator.random)
    tell(writer, split)
    return writer.text


def read(text: str, split: str = "all") -> Reading:
    """Parse a story into its choices.

    Raises:
        NotAStory: The text is not a story of this split; the `verdict` of the
            error has the position.
        ValueError: There is no such split.
    """
    reader = Reader(text)
    memory = tell(reader, split)
    reader.finish()
    return Reading(text, tuple(reader.forks), tuple(reader.recalls), memory)


def check(text: str, split: str = "all") -> Verdict:
    """Check whether a text is a story, and if not, where it leaves the language.

    Returns:
        A verdict, which is true for a story; `str(verdict)` is a sentence.

    Raises:
        ValueError: There is no such split.
    """
    try:
        read(text, split)
    except NotAStory as error:
        return error.verdict
    return Verdict()


def log_probability(text: str, split: str = "train") -> float:
    """Return the exact log-probability of a story, in nats.

    Raises:
        NotAStory: The text has probability 0 in this split.
        ValueError: There is no such split.
    """
    return read(text, split).log_probability


def entropy(n_stories: int, seed: int, split: str = "train") -> Entropy:
    """Estimate the entropy of the language from sampled stories.

    The estimate is the mean over stories of the summed entropies of the forks.

    Args:
        n_stories: How many stories to sample, at least two.
        seed: The seed of the stories.
        split: `train`, `held_out` or `all`.

    Raises:
        ValueError: There are fewer than two stories, or there is no such
            split.
    """
    if n_stories < 2:
        raise ValueError(
            f"n_stories must be 2 or more, for a standard error; got "
            f"{n_stories}"
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
    """Make `n` questions, as equally divided among the kinds as possible.

    A story gives at most one question of each kind, so that questions of one
    kind do not repeat each other.

    Args:
        n: How many questions.
        seed: The seed by which stories and questions are chosen.
        split: The split that the stories are sampled from.
        kinds: Some of `KINDS`; None: all.

    Returns:
        The questions, ordered by kind.

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
    """Turn words that the text before them decides into a question."""
    prompt = text[: recall.start]
    space = " " if prompt.endswith(" ") else ""
    return Probe(
        kind=recall.kind,
        prompt=prompt.removesuffix(" "),
        answer=space + recall.answer,
        alternatives=tuple(space + wrong for wrong in recall.alternatives),
        source=recall.source,
    )

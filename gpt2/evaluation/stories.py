"""How much of the language of stories a model has learned.

The language is known to the last choice (`gpt2.stories`), so a model can be
graded rather than admired: how far its loss is above the entropy, how many of
its own stories are stories, and what it remembers over which distance.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gpt2 import stories
from gpt2.evaluation.text import continues_greedily, score
from gpt2.generation import generate
from gpt2.model import GPT2
from gpt2.sampling import Sampling, seeded
from gpt2.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Gap:
    """A model's loss on stories beside the least that is possible."""

    n_stories: int
    n_tokens: int
    """Ends of text included."""
    nats: float
    """The model's surprise at all the stories."""
    least_nats: float
    """The true one: the negative log-probability of the same stories."""
    standard_error: float
    """Of the gap per token, from the spread between stories."""

    @property
    def per_token(self) -> float:
        """What has not been learned, in nats per token."""
        return (self.nats - self.least_nats) / self.n_tokens


def measure_gap(
    model: GPT2,
    tokenizer: Tokenizer,
    n_stories: int = 1000,
    seed: int = 0,
    split: str = "train",
) -> Gap:
    """Compare a model's loss with the truth, on stories it has not seen.

    The truth is taken for the very same stories, so that what is special about
    them does not count.

    Args:
        model: One that was trained on stories.
        tokenizer: Its own.
        n_stories: How many to write.
        seed: Of the chance by which they are written.
        split: Of the language; see `gpt2.stories`.
    """
    if n_stories < 2:
        raise ValueError(
            f"n_stories must be 2 or more, to have a spread; got {n_stories}"
        )
    # Far from the seeds of the stories that `gpt2 train` reads.
    rng = random.Random(seed + 2**32)
    texts = [stories.sample(rng, split) for _ in range(n_stories)]
    end = tokenizer.end_of_text
    sequences = [[end, *tokenizer.encode(text), end] for text in texts]
    least = [-stories.log_probability(text, split) for text in texts]
    nats = [
        -float(one.log_probabilities.double().sum())
        for one in score(model, sequences)
    ]
    lengths = [len(sequence) - 1 for sequence in sequences]
    n_tokens = sum(lengths)
    excess = [a - b for a, b in zip(nats, least, strict=True)]
    gap = math.fsum(excess) / n_tokens
    # The error of a ratio: how far each story is from what its length says.
    residuals = [x - gap * n for x, n in zip(excess, lengths, strict=True)]
    spread = math.fsum(r * r for r in residuals) / (n_stories - 1)
    error = math.sqrt(spread * n_stories) / n_tokens
    return Gap(n_stories, n_tokens, math.fsum(nats), math.fsum(least), error)


@dataclass(frozen=True)
class Sample:
    """A story that a model wrote, and what the checker says of it."""

    text: str
    verdict: stories.Verdict


def grade_samples(
    model: GPT2,
    tokenizer: Tokenizer,
    n_samples: int = 100,
    seed: int = 0,
    batch_size: int = 50,
    temperature: float = 1.0,
) -> list[Sample]:
    """Let a model write stories, and check each.

    One that has not come to its end where the model's positions end is
    checked as it is, and so is no story.

    Args:
        model: One that was trained on stories.
        tokenizer: Its own.
        n_samples: How many it is to write.
        seed: Of the draws.
        batch_size: Stories that are written side by side.
        temperature: 1 is the model's own distribution.
    """
    end = tokenizer.end_of_text
    device = model.device
    generator = seeded(seed, device)
    samples: list[Sample] = []
    while len(samples) < n_samples:
        written = generate(
            model,
            torch.tensor([[end]], device=device),
            model.config.n_ctx,
            Sampling(temperature),
            n_samples=min(batch_size, n_samples - len(samples)),
            stop_tokens=[end],
            seed=generator,
        )
        for ids in written[:, 1:].tolist():
            story = ids[: ids.index(end)] if end in ids else ids
            text = tokenizer.decode(story)
            samples.append(Sample(text, stories.check(text)))
    return samples


@dataclass(frozen=True)
class ProbeGrade:
    """How a model did on the probes of one kind."""

    kind: str
    """One of `gpt2.stories.KINDS`."""
    n_probes: int
    n_right: int
    mean_distance: float
    """Words between what decides the answer and the answer."""


def grade_probes(
    model: GPT2,
    tokenizer: Tokenizer,
    n_per_kind: int = 100,
    seed: int = 0,
    split: str = "held_out",
    kinds: Sequence[str] | None = None,
) -> list[ProbeGrade]:
    """Ask a model questions to which the story so far is the answer.

    Args:
        model: One that was trained on stories.
        tokenizer: Its own.
        n_per_kind: How many questions of each kind.
        seed: Of the chance by which they are chosen.
        split: `held_out` asks about combinations never seen in training.
        kinds: Some of `gpt2.stories.KINDS`; None for all.
    """
    wanted = list(stories.KINDS if kinds is None else kinds)
    if n_per_kind < 1:
        raise ValueError(f"n_per_kind must be 1 or more; got {n_per_kind}")
    asked = stories.probes(n_per_kind * len(wanted), seed, split, wanted)
    right = continues_greedily(
        model, tokenizer, [(probe.prompt, probe.answer) for probe in asked]
    )
    grades = []
    for kind in wanted:
        mine = [i for i, probe in enumerate(asked) if probe.kind == kind]
        distances = [asked[i].distance for i in mine]
        grades.append(
            ProbeGrade(
                kind,
                len(mine),
                sum(right[i] for i in mine),
                sum(distances) / len(distances),
            )
        )
    return grades

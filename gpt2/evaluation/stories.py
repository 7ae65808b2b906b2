"""How much of the language of stories a model has learned.

Every probability of the language is known (`gpt2.stories`), so a model can be
graded exactly: how far its loss is above the entropy, how many of its samples
are valid stories, and what it remembers over which distance.
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
from gpt2.model import LanguageModel
from gpt2.progress import task, track
from gpt2.sampling import Sampling, seeded
from gpt2.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Gap:
    """A model's loss on stories, compared with the lowest possible loss."""

    n_stories: int
    n_tokens: int
    """Including an end of text for each story."""
    nats: float
    """The model's loss: the sum of -log p over all stories, in nats."""
    least_nats: float
    """The same sum by the language's own probabilities, in nats."""
    standard_error: float
    """The standard error of `per_token`, from the spread between stories."""

    @property
    def per_token(self) -> float:
        """The avoidable part of the loss, in nats per token."""
        return (self.nats - self.least_nats) / self.n_tokens

    def __repr__(self) -> str:
        return (
            f"Gap({self.per_token:.4f} ± {self.standard_error:.4f} nats per "
            f"token, {self.n_stories:,} stories)"
        )


def measure_gap(
    model: LanguageModel,
    tokenizer: Tokenizer,
    n_stories: int = 1000,
    seed: int = 0,
    split: str = "train",
) -> Gap:
    """Compare a model's loss with the lowest possible, on new stories.

    Both are measured on the same stories, so their difference varies much less
    than either loss does.

    Args:
        model: A model trained on stories.
        tokenizer: The tokenizer that it was trained with.
        n_stories: How many stories to sample, at least 2.
        seed: The seed of the stories.
        split: The split of the language; see `gpt2.stories`.

    Raises:
        ValueError: There are fewer than two stories, there is no such split,
            or a story does not fit into `n_ctx`.
    """
    if n_stories < 2:
        raise ValueError(
            f"n_stories must be 2 or more, for a standard error; got "
            f"{n_stories}"
        )
    # Far from the seeds of the stories that `gpt2 train` uses.
    rng = random.Random(seed + 2**32)
    texts = [stories.sample(rng, split) for _ in range(n_stories)]
    end = tokenizer.end_of_text
    sequences = [[end, *tokenizer.encode(text), end] for text in texts]
    least = [-stories.log_probability(text, split) for text in texts]
    scores = score(model, sequences)
    scores = track(scores, "Measuring the loss", n_stories, "stories")
    nats = [one.nats for one in scores]
    lengths = [len(sequence) - 1 for sequence in sequences]
    n_tokens = sum(lengths)
    excess = [a - b for a, b in zip(nats, least, strict=True)]
    gap = math.fsum(excess) / n_tokens
    # The standard error of a ratio, from what the lengths do not explain.
    residuals = [x - gap * n for x, n in zip(excess, lengths, strict=True)]
    spread = math.fsum(r * r for r in residuals) / (n_stories - 1)
    error = math.sqrt(spread * n_stories) / n_tokens
    return Gap(n_stories, n_tokens, math.fsum(nats), math.fsum(least), error)


@dataclass(frozen=True)
class Sample:
    """A text that a model generated, and the checker's verdict on it."""

    text: str
    verdict: stories.Verdict


def grade_samples(
    model: LanguageModel,
    tokenizer: Tokenizer,
    n_samples: int = 100,
    seed: int = 0,
    batch_size: int = 50,
    temperature: float = 1.0,
) -> list[Sample]:
    """Generate stories with a model, and check each.

    A text that reaches `n_ctx` tokens without an end is checked as it is, and
    so is not a story.

    Args:
        model: A model trained on stories.
        tokenizer: The tokenizer that it was trained with.
        n_samples: How many texts to generate.
        seed: The seed of the draws, from 0 to 2**32 - 1.
        batch_size: How many texts to generate at the same time.
        temperature: See `gpt2.sampling.Sampling`; 1 samples from the model's
            own distribution.

    Raises:
        ValueError: The seed or the temperature is out of range.
    """
    end = tokenizer.end_of_text
    device = model.device
    generator = seeded(seed, device)
    samples: list[Sample] = []
    with task("Generating stories", n_samples, "stories") as advance:
        while len(samples) < n_samples:
            written = generate(
                model,
                torch.tensor([[end]], device=device),
                model.config.n_ctx,
                Sampling(temperature),
                n_samples=min(batch_size, n_samples - len(samples)),
                stop_tokens=[end],
                n_vocab=tokenizer.n_vocab,
                seed=generator,
            )
            for ids in written[:, 1:].tolist():
                story = ids[: ids.index(end)] if end in ids else ids
                text = tokenizer.decode(story)
                samples.append(Sample(text, stories.check(text)))
            advance(len(written))
    return samples


@dataclass(frozen=True)
class ProbeGrade:
    """How many probes of one kind a model answered right."""

    kind: str
    """One of `gpt2.stories.KINDS`."""
    n_probes: int
    n_right: int
    mean_distance: float
    """The mean number of words from what decides the answer to the answer."""


def grade_probes(
    model: LanguageModel,
    tokenizer: Tokenizer,
    n_per_kind: int = 100,
    seed: int = 0,
    split: str = "held_out",
    kinds: Sequence[str] | None = None,
) -> list[ProbeGrade]:
    """Ask a model questions that the story so far answers.

    Args:
        model: A model trained on stories.
        tokenizer: The tokenizer that it was trained with.
        n_per_kind: How many questions of each kind.
        seed: The seed by which stories and questions are chosen.
        split: `held_out` asks about combinations never seen in training.
        kinds: Some of `gpt2.stories.KINDS`; None: all.

    Raises:
        ValueError: `n_per_kind` is below 1, or there is no such kind or
            split.
    """
    kinds = list(stories.KINDS if kinds is None else kinds)
    if n_per_kind < 1:
        raise ValueError(f"n_per_kind must be 1 or more; got {n_per_kind}")
    probes = stories.probes(n_per_kind * len(kinds), seed, split, kinds)
    right = continues_greedily(
        model, tokenizer, [(probe.prompt, probe.answer) for probe in probes]
    )
    grades = []
    for kind in kinds:
        own = [i for i, probe in enumerate(probes) if probe.kind == kind]
        n_right = sum(right[i] for i in own)
        distance = sum(probes[i].distance for i in own) / len(own)
        grades.append(ProbeGrade(kind, len(own), n_right, distance))
    return grades

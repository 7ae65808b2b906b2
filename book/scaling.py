"""Train models of several sizes on several amounts of text.

    python book/scaling.py [PROCESSES]      # as many runs at a time

Every run reads new stories, each once, so the tokens that it reads are the
data that it has. Its learning rate falls to a hundredth over exactly these
tokens. What is measured is the gap, on stories that no run reads: the loss
less the lowest possible loss, which for this language is known.

The gaps go to `gpt2_book/data/scaling.json`, run by run. A run that is in the
file is not repeated. Chapter 18 of the book fits the scaling law to them.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gpt2
from gpt2 import GPT2, GPT2Config, Tokenizer, stories
from gpt2.data import pad
from gpt2.evaluation.stories import grade_probes, measure_gap
from gpt2.training.activation import choose_activation
from gpt2.training.cross_entropy import NextTokenLoss
from gpt2.training.memory import freed_memory_kept
from gpt2.training.optimizer import make_optimizers, set_learning_rate
from gpt2.training.settings import TrainingSettings
from gpt2_book import DATA

PLACE = DATA / "scaling.json"
SEEDS = (0, 1)
TOKENS = (500_000, 1_000_000, 2_000_000, 4_000_000)
SIZES = {
    16: (2, 2),
    24: (2, 2),
    32: (2, 2),
    48: (3, 3),
    64: (4, 4),
    96: (4, 4),
}
"""Layers and heads, by the width C."""
PREDICTED = {128: (4, 4)}
"""The size that the law predicts before it is trained."""
OTHER_DEPTHS = ((32, 4, 2), (64, 1, 4), (64, 2, 4))
"""Width, layers and heads of models that tell width from depth."""
N_STORIES = 16
"""Stories in a step."""
TOKENS_PER_STEP = 1460
"""The mean, for the length of the schedule: a story has 91.25 tokens."""
N_MEASURED = 1000
"""Stories on which the gap is measured."""
N_PROBES = 20
"""Questions of each kind."""


@dataclass(frozen=True)
class Setting:
    """What a run is."""

    n_embd: int
    n_layer: int
    n_head: int
    n_tokens: int
    seed: int

    @property
    def learning_rate(self) -> float:
        """The highest learning rate, 1 / C.

        In trial runs of 0.3 to 0.8 million tokens with C = 16, 48 and 96, it
        was among the best, and twice or half as much made little difference.
        """
        return 1 / self.n_embd

    @property
    def config(self) -> GPT2Config:
        """The model."""
        return GPT2Config(
            n_vocab=1440,
            n_ctx=256,
            n_embd=self.n_embd,
            n_head=self.n_head,
            n_layer=self.n_layer,
            embd_dropout=0,
            attn_dropout=0,
            resid_dropout=0,
        )

    def build(self) -> GPT2:
        """Return a new model."""
        return GPT2(self.config)


def train(setting: Setting, tokenizer: Tokenizer) -> tuple[GPT2, int]:
    """Train a model until it has read its tokens.

    Returns:
        The model, and how many tokens it has predicted.
    """
    torch.manual_seed(setting.seed)
    model = setting.build().train()
    choose_activation(model)
    settings = TrainingSettings(
        n_steps=setting.n_tokens // TOKENS_PER_STEP,
        batch_size=N_STORIES,
        learning_rate=setting.learning_rate,
        n_warmup=100,
        weight_decay=0.0,
        precision="float32",
    )
    optimizers = make_optimizers(model, settings)
    loss = NextTokenLoss(model, torch.float32)
    rng, end, n_read = random.Random(setting.seed), tokenizer.end_of_text, 0
    for step in range(settings.n_steps):
        texts = [stories.sample(rng) for _ in range(N_STORIES)]
        batch, mask = pad([[end, *tokenizer.encode(t), end] for t in texts])
        set_learning_rate(optimizers, settings.learning_rate_at(step))
        model.zero_grad()
        loss(batch, mask).backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for optimizer in optimizers:
            optimizer.step()
        n_read += int(mask[:, 1:].sum())
    return model.eval(), n_read


def run(setting: Setting) -> dict[str, Any]:
    """Train one model, and measure it."""
    torch.set_num_threads(1)
    _, tokenizer = gpt2.load("story")
    began = time.perf_counter()
    with freed_memory_kept(torch.device("cpu")):
        model, n_read = train(setting, tokenizer)
    seconds = time.perf_counter() - began
    gap = measure_gap(model, tokenizer, N_MEASURED)
    grades = grade_probes(model, tokenizer, N_PROBES)
    return {
        **asdict(setting),
        "learning_rate": setting.learning_rate,
        "n_read": n_read,
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "n_in_layers": sum(p.numel() for p in model.h.parameters()),
        "gap": round(gap.per_token, 5),
        "standard_error": round(gap.standard_error, 5),
        "least": round(gap.least_nats / gap.n_tokens, 5),
        "right": {grade.kind: grade.n_right for grade in grades},
        "seconds": round(seconds),
    }


def settings() -> list[Setting]:
    """List all runs, in the order in which they are wanted."""
    sizes = {**SIZES, **PREDICTED}
    series = [
        Setting(width, *sizes[width], n_tokens, seed)
        for n_tokens in TOKENS
        for seed in SEEDS
        for width in sizes
        if width in SIZES or n_tokens == TOKENS[-1]
    ]
    return series + [
        Setting(*shape, TOKENS[-1], SEEDS[0]) for shape in OTHER_DEPTHS
    ]


def is_done(setting: Setting, runs: list[dict[str, Any]]) -> bool:
    """Tell whether a run is in the list."""
    return any(asdict(setting).items() <= one.items() for one in runs)


def save(runs: list[dict[str, Any]], path: Path) -> None:
    """Write the runs to a file, completely or not at all."""
    part = path.with_suffix(".part")
    lines = ",\n".join(json.dumps(one) for one in runs)
    part.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    part.replace(path)


def run_all(wanted: Sequence[Setting], path: Path) -> None:
    """Train what is not in the file yet, and save each gap at once.

    The first argument on the command line is the number of processes.
    """
    runs = json.loads(path.read_text()) if path.exists() else []
    missing = [one for one in wanted if not is_done(one, runs)]
    n_processes = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count()
    with ProcessPoolExecutor(n_processes) as pool:
        settings_of = {pool.submit(run, one): one for one in missing}
        for count, future in enumerate(as_completed(settings_of), start=1):
            one = future.result()
            runs.append(one)
            save(runs, path)
            print(
                f"{count} of {len(missing)}: {settings_of[future]}: "
                f"{one['gap']:.4f} nats, {one['seconds']} s",
                flush=True,
            )


if __name__ == "__main__":
    run_all(settings(), PLACE)

"""Train small models with one part removed each, and a complete one.

    python book/ablations.py       # about 20 minutes on one core

All models have the same sizes, read the same stories in the same order, and
take the same steps; with the same seed, weights that two of them share have
the same initial values. They differ only in the part that was removed. Chapter
14 of the book removes the same parts from the trained model, by the same
functions, and plots the losses that this script writes to
`gpt2_book/data/ablations.json`. One more model is a control: nothing is
missing, but its scores begin as large as those of the model without the scale.
Two more have a residual path around one of the two branches only. And the
model without residual paths is trained at lower learning rates, too,
beside the whole one.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gpt2
from gpt2 import (
    GPT2,
    GPT2Config,
    GPT2Layer,
    MultiHeadAttention,
    Tokenizer,
    stories,
)
from gpt2.cache import LayerCache
from gpt2.evaluation.circuits import record_attention
from gpt2.linear import normal_parameter
from gpt2.training.optimizer import make_optimizers, set_learning_rate
from gpt2.training.settings import TrainingSettings
from gpt2_book import DATA

PLACE = DATA / "ablations.json"
SEEDS = (0, 1, 2)
CONFIG = GPT2Config(
    n_vocab=1440,
    n_ctx=128,
    n_embd=64,
    n_head=2,
    n_layer=4,
    embd_dropout=0,
    attn_dropout=0,
    resid_dropout=0,
)
SETTINGS = TrainingSettings(
    n_steps=300,
    batch_size=8,
    optimizer="muon",
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    n_warmup=50,
    weight_decay=0.01,
    evaluate_every=25,
    evaluate_rows=32,
)
LOWER_RATES = (3e-3, 1e-3)


class Unscaled(MultiHeadAttention):
    """Attention whose scores are plain dot products."""

    def project(self, *inputs: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Make the queries longer by what the scores are divided by."""
        q, k, v = super().project(*inputs)
        return q * math.sqrt(q.size(-1)), k, v


class Unmasked(MultiHeadAttention):
    """Attention that looks into the future."""

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
    ) -> Tensor:
        """Attend, and take no notice of `causal`."""
        return super().attend(query, key, value, mask, False)


class Replacing(GPT2Layer):
    """A layer that puts its results in the place of the stream."""

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Do what a layer does, without the two additions."""
        x = self.attn(self.ln_1(x), mask=mask, cache=cache)
        return self.mlp(self.ln_2(x))


class OnlyAroundAttention(GPT2Layer):
    """A layer whose feed-forward replaces the stream."""

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Do what a layer does, without the second addition."""
        x = x + self.attn(self.ln_1(x), mask=mask, cache=cache)
        return self.mlp(self.ln_2(x))


class OnlyAroundFeedForward(GPT2Layer):
    """A layer whose attention replaces the stream."""

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Do what a layer does, without the first addition."""
        x = self.attn(self.ln_1(x), mask=mask, cache=cache)
        return x + self.mlp(self.ln_2(x))


class Untied(GPT2):
    """A model with an output matrix of its own."""

    output: nn.Parameter

    def unembed(self, hidden: Tensor) -> Tensor:
        """Compare each vector with the rows of the other table."""
        return F.linear(hidden, self.output)


def no_scale(model: GPT2) -> None:
    """Leave out the division by the root of D."""
    for layer in model.h:
        layer.attn.__class__ = Unscaled


def no_positions(model: GPT2) -> None:
    """Leave out the position embeddings."""
    model.wpe.weight.requires_grad_(False).zero_()


def no_stream(model: GPT2) -> None:
    """Leave out the residual paths."""
    for layer in model.h:
        layer.__class__ = Replacing


def no_final_norm(model: GPT2) -> None:
    """Leave out the last norm."""
    model.ln_f = nn.Identity()


def no_norms(model: GPT2) -> None:
    """Leave out every norm."""
    model.ln_f = nn.Identity()
    for layer in model.h:
        layer.ln_1, layer.ln_2 = nn.Identity(), nn.Identity()


def no_mask(model: GPT2) -> None:
    """Leave out the causal mask."""
    for layer in model.h:
        layer.attn.__class__ = Unmasked


def no_bend(model: GPT2) -> None:
    """Leave out the GELU, so that the feed-forward is linear."""
    for layer in model.h:
        layer.mlp.activation = nn.Identity()


def relu_for_gelu(model: GPT2) -> None:
    """Leave out what a GELU has and a ReLU has not."""
    for layer in model.h:
        layer.mlp.activation = nn.ReLU()


def no_tie(model: GPT2) -> None:
    """Give the output a table of its own, drawn like the other."""
    model.__class__ = Untied
    model.output = normal_parameter(*model.wte.weight.shape, std=0.02)


REMOVALS: dict[str, Callable[[GPT2], None]] = {
    "nothing": lambda model: None,
    "the scale": no_scale,
    "the positions": no_positions,
    "the residual paths": no_stream,
    "the final norm": no_final_norm,
    "all norms": no_norms,
    "the mask": no_mask,
    "the GELU": no_bend,
    "the GELU (ReLU)": relu_for_gelu,
    "the tied output": no_tie,
}


def long_queries(model: GPT2) -> None:
    """Make the queries longer by sqrt(D), which undoes the scale at first."""
    width, n_head = model.config.n_embd, model.config.n_head
    for layer in model.h:
        maps = layer.attn.c_attn
        maps.weight.data[:, :width] *= math.sqrt(width / n_head)
        maps.bias.data[:width] *= math.sqrt(width / n_head)


def stream_around_attention(model: GPT2) -> None:
    """Leave out the residual path around the feed-forward."""
    for layer in model.h:
        layer.__class__ = OnlyAroundAttention


def stream_around_feed_forward(model: GPT2) -> None:
    """Leave out the residual path around attention."""
    for layer in model.h:
        layer.__class__ = OnlyAroundFeedForward


CONTROLS: dict[str, Callable[[GPT2], None]] = {
    "long queries": long_queries,
    "stream around attention": stream_around_attention,
    "stream around the feed-forward": stream_around_feed_forward,
}
SLOWER = ("nothing", "the residual paths")
"""What is removed from the models that are trained at lower rates as well."""


def story_rows(
    tokenizer: Tokenizer, n_rows: int, seed: int, split: str = "train"
) -> Tensor:
    """Generate stories, and cut their concatenated tokens into rows.

    Args:
        tokenizer: Encodes the stories.
        n_rows: How many rows.
        seed: Of the stories.
        split: Which of the language's splits to draw from.

    Returns:
        (n_rows, n_ctx + 1) of int64.
    """
    rng, ids = random.Random(seed), []
    length = CONFIG.n_ctx + 1
    while len(ids) < n_rows * length:
        ids.append(tokenizer.end_of_text)
        ids += tokenizer.encode(stories.sample(rng, split))
    return torch.tensor(ids[: n_rows * length]).view(n_rows, length)


@torch.no_grad()
def held_out_loss(model: GPT2, rows: Tensor) -> float:
    """Return the mean loss on rows, as in training, in nats per token."""
    return gpt2.next_token_loss(model, rows).item()


@torch.no_grad()
def honest_loss(model: GPT2, rows: Tensor) -> float:
    """Return the mean loss on tokens that the model cannot see yet.

    As in generation, the model reads the beginning of a row and predicts the
    next token; beginnings of seven lengths are tried.
    """
    losses = [
        F.cross_entropy(model(rows[:, :n], last_only=True), rows[:, n])
        for n in range(16, rows.size(1) - 1, 16)
    ]
    return torch.stack(losses).mean().item()


def weight_ahead(model: GPT2, rows: Tensor) -> float:
    """Return the mean attention weight on the next position.

    It is that of the head that has the largest.
    """
    weights = record_attention(model, rows[:, :-1])  # (n_layer, B, H, T, T)
    ahead = weights.diagonal(1, dim1=-2, dim2=-1)  # (n_layer, B, H, T - 1)
    return ahead.mean(dim=(1, 3)).max().item()


def training(
    remove: Callable[[GPT2], None],
    tokenizer: Tokenizer,
    seed: int,
    settings: TrainingSettings = SETTINGS,
) -> Iterator[GPT2]:
    """Train a model that lacks a part.

    Args:
        remove: Takes the part out of a new model.
        tokenizer: Encodes the stories.
        seed: Of the weights and of the stories.
        settings: Of the steps; how many there are is always the same.

    Yields:
        The model, before the first step and after every 25th.
    """
    torch.manual_seed(seed)
    model = GPT2(CONFIG)
    remove(model)
    n_rows = SETTINGS.n_steps * SETTINGS.batch_size
    batches = story_rows(tokenizer, n_rows, seed).split(SETTINGS.batch_size)
    optimizers = make_optimizers(model, settings)
    for step, batch in enumerate(batches):
        if step % SETTINGS.evaluate_every == 0:
            yield model
        set_learning_rate(optimizers, settings.learning_rate_at(step))
        model.zero_grad()
        gpt2.next_token_loss(model, batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip)
        for optimizer in optimizers:
            optimizer.step()
    yield model


@torch.no_grad()
def write(
    model: GPT2, tokenizer: Tokenizer, text: str, n_tokens: int = 40
) -> str:
    """Continue a text, one token at a time and without a cache.

    Without a mask, earlier positions attend to every new token, so the keys
    and values of a cache would be out of date.
    """
    generator = torch.Generator().manual_seed(0)
    ids = [tokenizer.end_of_text, *tokenizer.encode(text)]
    for _ in range(n_tokens):
        logits = model(torch.tensor([ids]), last_only=True)[0]
        ids.append(int(logits.softmax(-1).multinomial(1, generator=generator)))
    return tokenizer.decode(ids[1:])


def one_run(removed: str, tokenizer: Tokenizer, seed: int) -> dict[str, Any]:
    """Train one model, and return its losses and a sample.

    Of a model without a mask, the honest losses too, and in the end the
    attention to the next position.
    """
    rows = story_rows(tokenizer, SETTINGS.evaluate_rows, 0, "held_out")
    losses, honest, change = [], [], (REMOVALS | CONTROLS)[removed]
    for model in training(change, tokenizer, seed):
        losses.append(round(held_out_loss(model, rows), 4))
        if removed == "the mask":  # the others see no future in any case
            honest.append(round(honest_loss(model, rows), 4))
    text = write(model, tokenizer, "Ella lost her")
    run = {"loss": losses, "honest": honest, "text": text}
    if removed == "the mask":
        run["ahead"] = round(weight_ahead(model, rows), 4)
    return run


def slower_run(
    removed: str, tokenizer: Tokenizer, seed: int, rate: float
) -> list[float]:
    """Train one model at another learning rate, and return its losses."""
    rows = story_rows(tokenizer, SETTINGS.evaluate_rows, 0, "held_out")
    settings = dataclasses.replace(
        SETTINGS, learning_rate=rate, final_learning_rate=rate / 10
    )
    models = training(REMOVALS[removed], tokenizer, seed, settings)
    return [round(held_out_loss(model, rows), 4) for model in models]


def all_slower_runs(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the losses by what is removed, by rate, and for each seed."""
    return {
        removed: {
            str(rate): [
                slower_run(removed, tokenizer, seed, rate) for seed in SEEDS
            ]
            for rate in LOWER_RATES
        }
        for removed in SLOWER
    }


def main() -> None:
    """Train all models with all seeds, and save their losses."""
    torch.set_num_threads(1)  # for sums in a fixed order
    _, tokenizer = gpt2.load("story")
    runs: dict[str, list[dict[str, Any]]] = {}
    for removed in REMOVALS | CONTROLS:
        runs[removed] = []
        for seed in SEEDS:
            begin = time.perf_counter()
            run = one_run(removed, tokenizer, seed)
            runs[removed].append(run)
            print(
                f"{removed}, seed {seed}: {run['loss'][-1]:.3f}, "
                f"{time.perf_counter() - begin:.0f} s",
                flush=True,
            )
    save(runs, all_slower_runs(tokenizer), PLACE)


def save(
    runs: dict[str, list[dict[str, Any]]], slower: dict[str, Any], path: Path
) -> None:
    """Write the losses to a file, completely or not at all."""
    last = SETTINGS.n_steps + 1
    steps = [*range(0, last, SETTINGS.evaluate_every)]
    part = path.with_suffix(".part")
    kept = {
        "steps": steps,
        "seeds": SEEDS,
        "without": {part: runs[part] for part in REMOVALS},
        "controls": {name: runs[name] for name in CONTROLS},
        "slower": slower,
    }
    part.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()

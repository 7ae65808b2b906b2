"""A training step in three ways, each in its own process.

    python training.py NAME THREADS

does one step for each line of standard input: 4 rows of 256 tokens, bfloat16
by autocast, fused AdamW, gradient clipping. It answers with the seconds of the
step and the loss.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

ROWS, CONTEXT = 4, 256
SIZES = {
    "124M": {},
    "3M": {
        "n_vocab": 2048,
        "n_ctx": 256,
        "n_embd": 192,
        "n_head": 4,
        "n_layer": 4,
    },
}
NO_DROPOUT = {"embd_dropout": 0, "attn_dropout": 0, "resid_dropout": 0}


def batches(n_vocab: int) -> Iterator[torch.Tensor]:
    """Yield random tokens, (ROWS, CONTEXT + 1) of int64."""
    while True:
        yield torch.randint(n_vocab, (ROWS, CONTEXT + 1))


def package(size: str) -> Iterator[float]:
    """Train with `gpt2.training`, as `gpt2 train` does."""
    from gpt2.config import GPT2Config
    from gpt2.data import read_tokens, write_tokens
    from gpt2.model import GPT2
    from gpt2.training.loop import Run
    from gpt2.training.settings import TrainingSettings

    config = GPT2Config(**SIZES[size], **NO_DROPOUT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokens.bin")
        ids = torch.randint(config.n_vocab, (200_000,)).tolist()
        write_tokens(path, [ids], config.n_vocab, end_of_text=0)
        settings = TrainingSettings(
            n_steps=1000,
            batch_size=ROWS,
            context=CONTEXT,
            optimizer="adamw",
            learning_rate=1e-3,
            weight_decay=0.1,
            evaluate_every=1000,
            save_every=1000,
        )
        run = Run(GPT2(config), read_tokens(path), settings, folder)
        for report in run.steps():
            yield report.loss


def plain(size: str) -> Iterator[float]:
    """Train the same model with a plain loop."""
    from gpt2.config import GPT2Config
    from gpt2.model import GPT2, next_token_loss

    config = GPT2Config(**SIZES[size], **NO_DROPOUT)
    model = GPT2(config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    for tokens in batches(config.n_vocab):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = next_token_loss(model, tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.item()


def transformers(size: str) -> Iterator[float]:
    """Train the model of transformers with the same plain loop."""
    from transformers import GPT2Config, GPT2LMHeadModel

    fields = dict(SIZES[size])
    if fields:
        fields["vocab_size"] = fields.pop("n_vocab")
    config = GPT2Config(
        **fields, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False
    )
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    for tokens in batches(config.vocab_size):
        optimizer.zero_grad()
        inputs = tokens[:, :-1]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(inputs, labels=inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.item()


WAYS = {"gpt2": package, "plain": plain, "transformers": transformers}


def main(name: str, threads: str) -> None:
    """Do a step for each line of standard input."""
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keep other output out of the answers
    way, size = name.split()
    steps = WAYS[way](size)
    for _ in sys.stdin:
        began = time.perf_counter()
        loss = next(steps)
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "loss": loss}), file=out)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""How the cost of a step grows, compared with what the machine can do.

    python scale.py THREADS [SIZE ...]

prints JSON: for each model, batch size and context, the seconds of a step, the
bytes that it must read and the operations that it must do, and the rates at
which `probe.py` could read as many bytes and multiply at that time. All are
medians of several rounds, in which the step and the probe take turns.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import probe
import torch

from gpt2.config import GPT2Config
from gpt2.inference.packed import for_inference
from gpt2.model import GPT2, LanguageModel

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1, "int4": 0.5 + 2 / 32}
"""Of a weight; in int4, 32 of them share a scale of 2 bytes."""
KIND = {"int4": "int8"}
"""The products that a precision computes, if they are not its own."""
CONTEXTS = (1, 64, 128, 256, 512, 768, 1000)
BATCHES = (1, 2, 4, 8, 16, 32)
PROMPTS = ((512, 1), (128, 16), (128, 32))
"""Tokens and sequences of the prompts whose reading is measured."""
ROUNDS, ROUNDS_OF_LARGE = 7, 3
PASSES = 5
Case = tuple[int, int]
SIZES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")


@torch.no_grad()
def step(model: LanguageModel, context: int, batch: int) -> float:
    """Return the seconds that a token after `context` others takes."""
    cache = model.new_cache(batch, context + 17)
    model(torch.zeros(batch, context, dtype=torch.long), cache=cache)
    token, times = torch.zeros(batch, 1, dtype=torch.long), []
    for _ in range(16):
        began = time.perf_counter()
        model(token, cache=cache, last_only=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


@torch.no_grad()
def prompt(model: LanguageModel, length: int, batch: int) -> float:
    """Return the seconds that reading prompts takes."""
    cache = model.new_cache(batch, length)
    tokens = torch.zeros(batch, length, dtype=torch.long)
    began = time.perf_counter()
    model(tokens, cache=cache, last_only=True)
    return time.perf_counter() - began


def layer_weights(config: GPT2Config) -> int:
    """Return how many weights the matrices of all layers have."""
    layer = 4 * config.n_embd**2 + 2 * config.n_embd * config.inner_size
    return config.n_layer * layer


def bytes_read(
    config: GPT2Config, precision: str, context: int, batch: int
) -> int:
    """Return the bytes that a step must read: matrices and caches."""
    matrices = layer_weights(config) + config.n_vocab * config.n_embd
    kept = 4 if precision == "float32" else 2  # bytes per number
    cache = 2 * config.n_layer * config.n_embd * context * kept
    return int(matrices * BYTES[precision]) + batch * cache


def operations(
    config: GPT2Config, context: int, length: int, batch: int
) -> int:
    """Return the operations that reading `length` more tokens needs.

    A product and its addition count as two. The logits are those of the last
    token only. Each token attends to the `context` tokens before, to those of
    its own prompt that precede it, and to itself.
    """
    products = length * layer_weights(config) + config.n_vocab * config.n_embd
    pairs = length * context + length * (length + 1) // 2
    products += 2 * config.n_layer * config.n_embd * pairs
    return 2 * batch * products


def random_model(config: GPT2Config) -> GPT2:
    """Return a model of random weights, made quickly."""
    with torch.device("meta"):
        model = GPT2(config)
    model = model.to_empty(device="cpu").eval()
    some = torch.randn(1 << 16) * 0.02
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        for part in flat.split(len(some)):
            part.copy_(some[: len(part)])
    return model


def alternately(
    measured: dict[Case, Callable[[], float]],
    rates: Callable[[], list[float]],
    rounds: int,
) -> Iterator[tuple[Case, float, list[float]]]:
    """Yield each case with the medians of its seconds, and of each rate."""
    seconds: dict[Case, list[float]] = {case: [] for case in measured}
    found: dict[Case, list[list[float]]] = {case: [] for case in measured}
    for _ in range(rounds):
        for case, run in measured.items():
            seconds[case].append(run())
            found[case].append(rates())
    for case in measured:
        medians = [
            statistics.median(r) for r in zip(*found[case], strict=True)
        ]
        yield case, statistics.median(seconds[case]), medians


def steps_of(
    model: LanguageModel,
    size: str,
    precision: str,
    forms: list[probe.Form],
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """Measure the steps of a model, with several contexts if it is small."""
    config = model.config
    cases = [(128, 1)]
    if size == "gpt2":
        cases += [(context, 1) for context in CONTEXTS]
        cases += [(128, batch) for batch in BATCHES]
    n_bytes = bytes_read(config, precision, 0, 1)
    kinds = {form.huge for form in forms}
    memory = {huge: probe.Memory(n_bytes, huge) for huge in kinds}

    def rates() -> list[float]:
        all_passes = [memory[f.huge].rate(f, PASSES) for f in forms]
        return [statistics.median(passes) for passes in all_passes]

    runs = {case: partial(step, model, *case) for case in dict.fromkeys(cases)}
    for (context, batch), took, medians in alternately(runs, rates, rounds):
        yield {
            "size": size,
            "precision": precision,
            "context": context,
            "batch": batch,
            "seconds": took,
            "bytes": bytes_read(config, precision, context, batch),
            "operations": operations(config, context, 1, batch),
            "bandwidth": max(medians),
        }


def prompts_of(
    model: LanguageModel, precision: str, rounds: int
) -> Iterator[dict[str, Any]]:
    """Measure how fast a model reads prompts."""
    threads, kind = torch.get_num_threads(), KIND.get(precision, precision)

    def rates() -> list[float]:
        both = probe.peak(kind, threads), probe.products(kind)
        return [rate or 0.0 for rate in both]

    runs = {case: partial(prompt, model, *case) for case in PROMPTS}
    for (length, batch), took, medians in alternately(runs, rates, rounds):
        yield {
            "precision": precision,
            "prompt": length,
            "batch": batch,
            "seconds": took,
            "operations": operations(model.config, 0, length, batch),
            "peak": medians[0],
            "products": medians[1],
        }


def fits(size: str, precision: str, n_buffers: int) -> bool:
    """Return whether there is memory to pack a model, and to probe beside it.

    Packing needs the model and its packed weights. Later the model is gone,
    but each kind of page has a buffer of as many bytes as the packed weights.
    """
    info = Path("/proc/meminfo")
    if not info.exists():
        return True
    available = info.read_text().split("MemAvailable:")[1].split()[0]
    config = GPT2Config.from_name(size)
    model = bytes_read(config, "float32", 0, 1)
    packed = bytes_read(config, precision, 0, 1)
    needed = packed + max(model, n_buffers * packed)
    return 1.1 * needed < 1024 * int(available)


def measure(threads: int, sizes: Sequence[str]) -> dict[str, Any]:
    """Measure contexts, batch sizes, prompts and model sizes."""
    forms = probe.fastest_forms(threads)
    found: dict[str, Any] = {
        "forms": [str(form) for form in forms],
        "peak": {kind: probe.peak(kind, threads) for kind in probe.KINDS},
        "products": {kind: probe.products(kind) for kind in probe.KINDS},
        "left out": [],
        "steps": [],
        "prompts": [],
    }
    for size, precision in itertools.product(sizes, BYTES):
        name = f"{size} {precision}"
        print(f"scale: {name}", file=sys.stderr, flush=True)
        if not fits(size, precision, len({form.huge for form in forms})):
            found["left out"].append(f"{name}: not enough memory")
            continue
        model = random_model(GPT2Config.from_name(size))
        try:
            packed = for_inference(model, precision, consume=True)
        except ValueError as error:
            found["left out"].append(f"{name}: {error}")
            continue
        rounds = ROUNDS if size == "gpt2" else ROUNDS_OF_LARGE
        found["steps"] += steps_of(packed, size, precision, forms, rounds)
        if size == "gpt2":
            found["prompts"] += prompts_of(packed, precision, rounds)
        del packed, model  # before the next ones are made
    return found


def main(threads: str, *sizes: str) -> None:
    """Print all measurements as JSON."""
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    print(json.dumps(measure(int(threads), sizes or SIZES)))


if __name__ == "__main__":
    main(*sys.argv[1:])

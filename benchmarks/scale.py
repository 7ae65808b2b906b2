"""How the cost of a decoding step grows, compared with its memory traffic.

    python scale.py THREADS

prints a line of JSON: for each model, batch size and context, the seconds of a
step, the bytes that it must read, and the memory bandwidth in bytes per second
at that time; medians of several rounds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from gpt2.config import GPT2Config
from gpt2.inference.packed import for_inference
from gpt2.model import GPT2, LanguageModel

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
CONTEXTS = (1, 64, 128, 256, 512, 768, 1000)
BATCHES = (1, 2, 4, 8, 16, 32)
N_NUMBERS = 1 << 27  # 512 MiB, larger than any processor cache
ROUNDS = 7
SIZES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")


def bandwidth(numbers: torch.Tensor) -> float:
    """Return the bytes per second that are read from memory."""
    times = []
    for _ in range(9):
        began = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - began)
    return numbers.nbytes / statistics.median(times)


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


def bytes_read(
    config: GPT2Config, precision: str, context: int, batch: int
) -> int:
    """Return the bytes that a step must read: matrices and caches."""
    layer = 4 * config.n_embd**2 + 2 * config.n_embd * config.inner_size
    matrices = config.n_layer * layer + config.n_vocab * config.n_embd
    kept = 4 if precision == "float32" else 2  # bytes per number
    cache = 2 * config.n_layer * config.n_embd * context * kept
    return matrices * BYTES[precision] + batch * cache


def measure() -> Iterator[dict[str, Any]]:
    """Measure contexts, batch sizes and model sizes."""
    numbers = torch.ones(N_NUMBERS)
    for size in SIZES:
        config = GPT2Config.from_name(size)
        with torch.device("meta"):
            model = GPT2(config)
        model = model.to_empty(device="cpu").eval()
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.02)
        for precision in ("bfloat16", "int8"):
            packed = for_inference(model, precision)
            cases = [(128, 1)]
            if size == "gpt2":
                cases += [(context, 1) for context in CONTEXTS]
                cases += [(128, batch) for batch in BATCHES]
            # Alternate, because the memory bandwidth varies over time.
            found: dict[tuple[int, int], list[tuple[float, float]]] = {}
            for case in ROUNDS * list(dict.fromkeys(cases)):
                both = step(packed, *case), bandwidth(numbers)
                found.setdefault(case, []).append(both)
            for (context, batch), measured in found.items():
                seconds, speed = map(
                    statistics.median, zip(*measured, strict=True)
                )
                yield {
                    "size": size,
                    "precision": precision,
                    "context": context,
                    "batch": batch,
                    "seconds": seconds,
                    "bytes": bytes_read(config, precision, context, batch),
                    "bandwidth": speed,
                }
            del packed


def main(threads: str) -> None:
    """Print all measurements as JSON."""
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    print(json.dumps(list(measure())))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Measure what `gpt2.inference` gains from huge pages.

    python huge_pages.py [ROUNDS]

Packs GPT-2 124M with random weights, and prints the median processor time of a
step of generation after 128 tokens, by one thread, with the weights on huge
and on ordinary pages, in turn.
"""

from __future__ import annotations

import mmap
import sys
import time
from statistics import median
from typing import Any

PRECISIONS = ("float32", "bfloat16", "int8")
N_PROMPT, N_STEPS = 128, 16


def pages(model: Any, precision: str, rounds: int) -> tuple[float, float]:
    """Return the seconds of a step on huge and on ordinary pages."""
    import gpt2

    packed = [gpt2.for_inference(model, precision)]
    advice = mmap.MADV_HUGEPAGE
    del mmap.MADV_HUGEPAGE
    packed.append(gpt2.for_inference(model, precision))
    mmap.MADV_HUGEPAGE = advice
    found: list[list[float]] = [[], []]
    for _ in range(rounds):
        for one, times in zip(packed, found, strict=True):
            times.append(step(one))
    return median(found[0]), median(found[1])


def step(packed: Any) -> float:
    """Return the median seconds of a step."""
    import torch

    cache = packed.new_cache(1, N_PROMPT + N_STEPS)
    packed(torch.zeros(1, N_PROMPT, dtype=torch.long), cache=cache)
    token, times = torch.zeros(1, 1, dtype=torch.long), []
    for _ in range(N_STEPS):
        began = time.thread_time()
        packed(token, cache=cache, last_only=True)
        times.append(time.thread_time() - began)
    return median(times)


def main(rounds: str = "9") -> None:
    """Print the table."""
    import torch

    import gpt2

    torch.set_num_threads(1)
    model = gpt2.GPT2(gpt2.GPT2Config.from_name("gpt2")).eval()
    print("| ms of a step | huge pages | ordinary pages |")
    print("| --- | --- | --- |")
    for precision in PRECISIONS:
        huge, ordinary = pages(model, precision, int(rounds))
        print(f"| {precision} | {1e3 * huge:.2f} | {1e3 * ordinary:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])

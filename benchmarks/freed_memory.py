"""Measure what `gpt2.training.memory` saves: training steps with and without.

    python freed_memory.py [SIZE] [ROUNDS]

Each round trains a new model for 20 steps in a process of its own, once with
`freed_memory_kept` and once without. For both, it prints medians over all
steps but the first ones: the duration, the processor time (which depends less
on what else is running), and the number of pages that the kernel handed out.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from contextlib import nullcontext
from statistics import median

WARM_UP, STEPS = 4, 20
WAYS = ("with", "without")


def measure(way: str, size: str) -> None:
    """Train, and print a line of JSON for each step."""
    import torch
    from training import package

    from gpt2.training import loop

    torch.manual_seed(0)
    if way == "without":
        loop.freed_memory_kept = lambda device: nullcontext()
    steps = package(size)
    for _ in range(STEPS):
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        next(steps)
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime
        cpu -= before.ru_utime + before.ru_stime
        pages = after.ru_minflt - before.ru_minflt
        print(json.dumps([seconds, cpu, pages]))


def main(size: str = "3M", rounds: str = "3") -> None:
    """Run both ways in turn, and print their medians."""
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(int(rounds)):
        for way in WAYS:
            done = subprocess.run(
                [sys.executable, __file__, way, size],
                capture_output=True,
                text=True,
                check=True,
            )
            lines = done.stdout.splitlines()[WARM_UP:]
            found[way] += [json.loads(line) for line in lines]
    for way, steps in found.items():
        seconds, cpu, pages = map(median, zip(*steps, strict=True))
        print(
            f"{size} {way:7}  {1e3 * seconds:7.1f} ms per step, "
            f"{1e3 * cpu:7.1f} ms processor time, {pages:7,.0f} pages"
        )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WAYS:
        measure(*sys.argv[1:])
    else:
        main(*sys.argv[1:])

"""Measure what `gpt2.inference` gains from managing memory itself.

    python packed_memory.py [ROUNDS]

Each round loads and packs GPT-2 124M with random weights and generates a few
tokens, each time in a process of its own: as the package does it, on ordinary
instead of huge pages, and without releasing what is packed. For each it prints
the medians of the duration of a step after 128 tokens, the time to pack, and
the peak memory of the process until it has packed.
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

PRECISIONS = ("float32", "bfloat16", "int8")
WAYS = ("as it is", "ordinary pages", "not released")
N_PROMPT, N_STEPS = 128, 24


def measure(way: str, precision: str, folder: str) -> None:
    """Pack and generate, and print a line of JSON."""
    import torch
    from contestants import memory

    import gpt2
    from gpt2.inference import compiled

    if way == "ordinary pages":
        del mmap.MADV_HUGEPAGE
    if way == "not released":
        compiled.release_pages = lambda tensor: None
    compiled.library()
    model = gpt2.load_model(folder)
    began = time.perf_counter()
    packed = gpt2.for_inference(model, precision, consume=True)
    seconds, peak = time.perf_counter() - began, memory()["peak"]
    cache = packed.new_cache(1, N_PROMPT + N_STEPS)
    packed(torch.zeros(1, N_PROMPT, dtype=torch.long), cache=cache)
    token, steps = torch.zeros(1, 1, dtype=torch.long), []
    for _ in range(N_STEPS):
        began = time.perf_counter()
        packed(token, cache=cache, last_only=True)
        steps.append(time.perf_counter() - began)
    print(json.dumps([median(steps), seconds, peak]))


def main(rounds: str = "5") -> None:
    """Run all ways in turn, and print their medians."""
    import gpt2

    cases = [(way, precision) for precision in PRECISIONS for way in WAYS]
    found: dict[tuple[str, str], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = gpt2.GPT2(gpt2.GPT2Config.from_name("gpt2"))
        gpt2.save(model, None, Path(folder))
        for case in cases * int(rounds):
            done = subprocess.run(
                [sys.executable, __file__, *case, folder],
                capture_output=True,
                text=True,
                check=True,
            )
            found.setdefault(case, []).append(json.loads(done.stdout))
    print("| precision | memory | ms for a step | ms to pack | peak, MB |")
    print("| --- | --- | --- | --- | --- |")
    for way, precision in cases:
        step, pack, peak = map(
            median, zip(*found[way, precision], strict=True)
        )
        print(
            f"| {precision} | {way} | {1e3 * step:.2f} | {1e3 * pack:.0f} | "
            f"{peak / 1e6:.0f} |"
        )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WAYS:
        measure(*sys.argv[1:])
    else:
        main(*sys.argv[1:])

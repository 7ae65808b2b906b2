"""Measure the engines side by side.

    make bench                          # everything that can be run here
    python benchmarks/run.py --rounds 3 --only "gpt2 int8" "llama.cpp Q8_0"

The contestants take turns, round by round, so that a temporary slowdown of the
machine affects all of them. The result of each is its median over all rounds.
The measurements go to `results/results.json`, from which `report.py` makes the
tables and the plots.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the imports below

import report  # noqa: E402
import training  # noqa: E402
from checkpoint import write_all  # noqa: E402
from contestants import NAMES  # noqa: E402


@dataclass(frozen=True)
class Case:
    """What to generate: `n_new` tokens for each of `batch` prompts."""

    name: str
    n_prompt: int
    n_new: int
    batch: int

    @property
    def prompts(self) -> list[list[int]]:
        """Random prompts, the same for every contestant."""
        rng = random.Random(0)
        return [
            [rng.randrange(50_000) for _ in range(self.n_prompt)]
            for _ in range(self.batch)
        ]


CASES = (
    Case("prompt 128", 128, 64, 1),
    Case("prompt 512", 512, 64, 1),
    Case("batch 8", 128, 32, 8),
)
SHORT = Case("short", 16, 1, 1)


class Process:
    """A script that answers each line of JSON with another line of JSON."""

    def __init__(self, script: str, *arguments: str) -> None:
        """Start the script."""
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.failed = ""

    def ask(self, request: Any = None) -> dict[str, Any]:
        """Send a request and return the answer, empty if the script ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.failed:
            return {}
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.failed = f"ended with code {self.process.wait()}"
            return {}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """Let the script end."""
        with suppress(BrokenPipeError):
            self.process.communicate()


@dataclass
class Contestant:
    """An engine, and its measurements: seconds, and memory in bytes."""

    name: str
    process: Process
    version: str = ""
    memory: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[float]] = field(default_factory=dict)
    between: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)

    def write(self, case: Case, counts: bool = True) -> None:
        """Generate once, and store the times if it counts."""
        request = {"prompts": case.prompts, "n_new": case.n_new}
        answer = self.process.ask(request)
        if not answer or "cannot" in answer:
            return
        self.version, seconds = answer["version"], answer["seconds"]
        self.memory = answer["memory"]
        if counts:
            gaps = [b - a for a, b in pairwise(seconds)]
            self.first.setdefault(case.name, []).append(seconds[0])
            middle = statistics.median(gaps)
            self.between.setdefault(case.name, []).append(middle)
            self.tokens[case.name] = answer["tokens"]


def generation(
    names: list[str], folder: Path, threads: int, rounds: int
) -> dict[str, Any]:
    """Measure generation by all engines, in turn."""
    contestants = [
        Contestant(
            name, Process("contestants.py", name, str(folder), str(threads))
        )
        for name in names
    ]
    for case in CASES:
        for turn in range(rounds + 1):
            for one in contestants:
                one.write(case, counts=turn > 0)  # the first is a warm-up
            say(f"{case.name}: round {turn} of {rounds}")
    for one in contestants:
        one.process.stop()
    return {
        one.name: {
            "version": one.version,
            "failed": one.process.failed,
            "memory": one.memory,
            "first": one.first,
            "between": one.between,
            "agrees": agreement(one, contestants[0]),
        }
        for one in contestants
    }


def agreement(one: Contestant, other: Contestant) -> float | None:
    """Return the share of tokens on which two engines agree, if both ran.

    With random weights, near ties are frequent, and after a tie that falls the
    other way, all later tokens differ. So this is no test, but a share near 0
    would show that an engine computes something else.
    """
    pairs = [
        (a, b)
        for case in one.tokens.keys() & other.tokens.keys()
        for step, same in zip(
            one.tokens[case], other.tokens[case], strict=False
        )
        for a, b in zip(step, same, strict=True)
    ]
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def start(
    names: list[str], folder: Path, threads: int, rounds: int
) -> dict[str, list[float]]:
    """Measure the seconds from the start of a process to its first token."""
    seconds: dict[str, list[float]] = {"import torch": []}
    for turn in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        seconds["import torch"].append(time.perf_counter() - began)
        for name in names:
            process = Process(
                "contestants.py", name, str(folder), str(threads)
            )
            request = {"prompts": SHORT.prompts, "n_new": 1}
            if process.ask(request):
                took = time.perf_counter() - process.began
                seconds.setdefault(name, []).append(took)
            process.stop()
        say(f"start: round {turn + 1} of {rounds}")
    return seconds


def train(threads: int, rounds: int) -> dict[str, list[float]]:
    """Measure the seconds of a training step, in turn."""
    seconds: dict[str, list[float]] = {}
    for size in training.SIZES:
        names = [f"{way} {size}" for way in training.WAYS]
        running = [Process("training.py", n, str(threads)) for n in names]
        for turn in range(rounds + 1):
            for name, process in zip(names, running, strict=True):
                answer = process.ask()
                if answer and turn:  # the first is a warm-up
                    seconds.setdefault(name, []).append(answer["seconds"])
            say(f"training {size}: round {turn} of {rounds}")
        for process in running:
            process.stop()
    return seconds


def scale(threads: int) -> list[dict[str, Any]]:
    """Measure how the cost of a step grows with context, batch and size."""
    say("scale: contexts, batches and the four sizes")
    command = [sys.executable, str(HERE / "scale.py"), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def machine() -> dict[str, str]:
    """Describe the machine."""
    cpu = platform.processor() or platform.machine()
    info, flags = Path("/proc/cpuinfo"), set[str]()
    for line in info.read_text().splitlines() if info.exists() else []:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            cpu = value.strip()
        if key.strip() == "flags":
            flags = set(value.split())
    wide = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    return {
        "processor": cpu,
        "instructions": " ".join(f for f in wide if f in flags),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def say(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


PARTS = ("generation", "start", "training", "scale")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, default=HERE / "_checkpoint")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    names, threads = list(options.only), options.threads
    folder, rounds = options.folder, options.rounds
    say("writing the checkpoint in every format")
    write_all(folder)
    path = options.output / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results["machine"] = machine() | {"threads": str(threads)}
    for part in options.parts:
        if part == "generation":
            results[part] = generation(names, folder, threads, rounds)
        elif part == "start":
            results[part] = start(names, folder, threads, min(rounds, 5))
        elif part == "training":
            results[part] = train(threads, rounds)
        else:
            results[part] = scale(threads)
        options.output.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".writing")
        draft.write_text(json.dumps(results, indent=1) + "\n")
        draft.replace(path)
    report.write(options.output)


if __name__ == "__main__":
    main()

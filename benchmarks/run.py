"""Measure the engines side by side.

    make bench                          # everything that can be run here
    python benchmarks/run.py --rounds 3 --only "gpt2 int8" "llama.cpp Q8_0"

The contestants take turns, round by round, so that a temporary slowdown of the
machine affects all of them. The result of each is its median over all rounds.
The measurements go to a file that is named after the machine and the date, in
`results` or another folder; `report.py` makes tables and plots of all files in
it. A run of some parts or contestants keeps what the file has of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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
from contestants import GPU_NAMES, NAMES  # noqa: E402
from scale import SIZES  # noqa: E402


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
    Case("batch 16", 128, 9, 16),
    Case("batch 32", 128, 9, 32),
)
SHORT = Case("short", 16, 1, 1)


class Process:
    """A script that answers each line of JSON with another line of JSON."""

    def __init__(
        self, script: str, *arguments: str, cache: str | None = None
    ) -> None:
        """Start the script, with the user's cache in another folder if given.

        What it says goes to a file, so that its last words can be reported.
        """
        self.said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env=os.environ | ({"XDG_CACHE_HOME": cache} if cache else {}),
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
            self.said.seek(0)
            lines = [line.strip() for line in self.said if line.strip()]
            if lines:  # without the folders of this machine
                words = re.sub(r"(/[\w.+-]+)+/", "", lines[-1])
                self.failed += f": {words[:200]}"
            return {}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """Let the script end."""
        with suppress(BrokenPipeError):
            self.process.communicate()
        self.said.close()


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
        if not answer:
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
    names: Sequence[str],
    cases: Sequence[Case],
    folder: Path,
    threads: int,
    rounds: int,
) -> dict[str, Any]:
    """Measure generation by all engines, in turn.

    Prompts of many texts take long. They get half as many rounds.
    """
    contestants = []
    for name in names:
        process = Process("contestants.py", name, str(folder), str(threads))
        contestants.append(Contestant(name, process))
        contestants[-1].write(SHORT, counts=False)  # so one loads at a time
        say(f"{name}: {process.failed or 'ready'}")
    for case in cases:
        turns = rounds if case.batch < 16 else -(-rounds // 2)
        for turn in range(turns + 1):
            for one in contestants:
                one.write(case, counts=turn > 0)  # the first is a warm-up
            say(f"{case.name}: round {turn} of {turns}")
    for one in contestants:
        one.process.stop()
    by_name = {one.name: one for one in contestants}
    first = by_name.get(NAMES[0]) or by_name.get(GPU_NAMES[0])
    return {
        one.name: {
            "version": one.version,
            "failed": one.process.failed,
            "memory": one.memory,
            "first": one.first,
            "between": one.between,
            "agrees": agreement(one, first) if first else None,
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


SLOW = 10
"""Seconds to the first token after which an engine is started only once."""


def start(
    names: Sequence[str], folder: Path, threads: int, rounds: int
) -> dict[str, list[float]]:
    """Measure the seconds from the start of a process to its first token.

    The package compiles its C code at first use. How long that takes is
    measured too, with an empty cache.
    """
    seconds: dict[str, list[float]] = {"import torch": []}

    def measure(name: str, label: str, cache: str | None = None) -> None:
        arguments = ("contestants.py", name, str(folder), str(threads))
        process = Process(*arguments, cache=cache)
        if process.ask({"prompts": SHORT.prompts, "n_new": 1}):
            took = time.perf_counter() - process.began
            seconds.setdefault(label, []).append(took)
        process.stop()

    packed = [n for n in names if n in ("gpt2 bfloat16", "gpt2 int8")]
    for turn in range(rounds):
        seconds["import torch"].append(import_torch())
        for name in names:
            if max(seconds.get(name, [0])) < SLOW:
                measure(name, name)
        for name in packed[:1]:
            with tempfile.TemporaryDirectory() as empty:
                measure(name, f"{name}, its C code compiled first", empty)
        say(f"start: round {turn + 1} of {rounds}")
    return seconds


def import_torch() -> float:
    """Return the seconds from a process's start to an imported PyTorch."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", "import torch; print('imported', flush=True)"],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it takes some time to end, too
        return time.perf_counter() - began


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


def scale(threads: int, sizes: Sequence[str]) -> dict[str, Any]:
    """Measure how the cost of a step grows with context, batch and size."""
    say("scale: contexts, batches and the four sizes")
    command = [sys.executable, str(HERE / "scale.py"), str(threads), *sizes]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def gpu(folder: Path, threads: int, rounds: int) -> dict[str, Any] | None:
    """Measure bfloat16 on a GPU, and the card's bandwidth, if there is one."""
    import torch

    if not torch.cuda.is_available():
        say("gpu: none")
        return None
    names = torch.cuda.get_device_name(), torch.version.cuda
    numbers = torch.ones(1 << 30, dtype=torch.bfloat16, device="cuda")
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        began = time.perf_counter()
        numbers.sum()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    bandwidth = numbers.nbytes / min(times)
    del numbers
    torch.cuda.empty_cache()
    engines = generation(GPU_NAMES, CASES, folder, threads, rounds)
    return {"card": names, "bandwidth": bandwidth, "engines": engines}


def machine() -> dict[str, str]:
    """Describe the machine."""
    cpu = platform.processor() or platform.machine()
    info, flags = Path("/proc/cpuinfo"), set[str]()
    generation = {"cpu family": "", "model": ""}
    for line in info.read_text().splitlines() if info.exists() else []:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            cpu = value.strip()
        if key.strip() in generation:
            generation[key.strip()] = value.strip()
        if key.strip() == "flags":
            flags = set(value.split())
    wide = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    return {
        "processor": cpu,
        "generation": " ".join(f"{k} {v}" for k, v in generation.items() if v),
        "instructions": " ".join(f for f in wide if f in flags),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def machine_name(facts: dict[str, str]) -> str:
    """Return a name for a machine's results: only what it is, and when."""
    best = (facts["instructions"].split() or [""])[-1]
    which = f"{facts['processor']} {facts['generation']}"
    text = f"{which} {best} {facts['cores']} cores"
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return f"{words}-{facts['date']}"


def say(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


PARTS = ("generation", "start", "training", "scale", "gpu")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, default=HERE / "_checkpoint")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument(
        "--name", help="for the file of results, instead of the machine's"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--sizes",
        nargs="+",
        choices=list(SIZES),
        default=SIZES,
        help="of the models in the part `scale`",
    )
    return parser.parse_args()


def measure(part: str, given: argparse.Namespace) -> Any:
    """Measure one part."""
    names, threads, rounds = given.only, given.threads, given.rounds
    if part == "generation":
        cases = [case for case in CASES if case.name in given.cases]
        return generation(names, cases, given.folder, threads, rounds)
    if part == "start":
        return start(names, given.folder, threads, min(rounds, 5))
    if part == "training":
        return train(threads, rounds)
    if part == "scale":
        return scale(threads, given.sizes)
    return gpu(given.folder, threads, rounds)


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return new results, and those of other names and cases from before."""
    both = {}
    for name, found in (old | new).items():
        if name in old and isinstance(found, dict):
            cases = {
                key: old[name][key] | found[key]
                for key in ("first", "between")
            }
            found = found | cases
        both[name] = found
    return both


def main() -> None:
    """Run the benchmark."""
    given = options()
    if {"generation", "start", "gpu"} & {*given.parts}:
        say("writing the checkpoint in every format")
        write_all(given.folder)
    given.output.mkdir(parents=True, exist_ok=True)
    facts = machine() | {"threads": str(given.threads)}
    path = given.output / f"{given.name or machine_name(facts)}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results["machine"] = facts
    for part in given.parts:
        found = measure(part, given)
        if found is None:
            continue
        if part in ("generation", "start"):
            found = merged(results.get(part, {}), found)
        results[part] = found
        draft = path.with_suffix(".writing")
        draft.write_text(json.dumps(results, indent=1) + "\n")
        draft.replace(path)
    report.write(given.output)


if __name__ == "__main__":
    main()

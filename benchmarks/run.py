"""Time the engines side by side, and write down how they compare.

    python benchmarks/run.py            # all that is here; `make bench`
    python benchmarks/run.py --rounds 3 --only "gpt2 int8" "llama.cpp Q8_0"

The contestants take turns, round by round, so that a machine that is slower
for a while is slower for all. What is told of a contestant is the median over
all rounds, of the time to the first token and of the time between two tokens.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from checkpoint import write_all  # noqa: E402
from contestants import NAMES  # noqa: E402


@dataclass
class Contestant:
    """A process that waits for requests."""

    name: str
    process: subprocess.Popen[str]
    version: str = ""
    load_seconds: float = 0.0
    memory: int = 0
    failed: str = ""
    first: dict[str, list[float]] = field(default_factory=dict)
    between: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, folder: Path, threads: int) -> Contestant:
        """Start it, and wait until it is ready."""
        process = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "contestants.py"),
                *(name, str(folder), str(threads)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self = cls(name, process)
        if ready := self._answer():
            self.version = ready["version"]
            self.load_seconds = ready["seconds"]
        return self

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.failed = f"ended with code {self.process.wait()}"
            return {}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, case: Case) -> None:
        """Let it write once."""
        if self.failed:
            return
        assert self.process.stdin is not None
        request = {"prompts": case.prompts, "n_new": case.n_new}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        if "cannot" in answer or not answer:
            return
        seconds = answer["seconds"]
        self.first.setdefault(case.name, []).append(seconds[0])
        gaps = [b - a for a, b in zip(seconds, seconds[1:], strict=False)]
        self.between.setdefault(case.name, []).append(statistics.median(gaps))
        self.tokens[case.name] = answer["tokens"]
        self.memory = max(self.memory, answer["memory"])

    def stop(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()


@dataclass(frozen=True)
class Case:
    """What is to be written."""

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
    Case("prompt 128", 128, 128, 1),
    Case("prompt 512", 512, 128, 1),
    Case("batch 8", 128, 64, 8),
)


def spread(values: list[float]) -> str:
    """Say how far the middle half of the rounds lies apart."""
    if len(values) < 4:
        return ""
    low, _, high = statistics.quantiles(values, n=4)
    return f" ± {(high - low) / 2 / statistics.median(values):.0%}"


def table(contestants: list[Contestant]) -> str:
    """Return the results as a table in Markdown."""
    head = ["engine", "version"]
    for case in CASES:
        head += [f"{case.name}: tokens/s", "first token, ms"]
    lines = [head, ["---"] * len(head)]
    for one in contestants:
        row = [one.name, one.version]
        for case in CASES:
            if times := one.between.get(case.name):
                rate = case.batch / statistics.median(times)
                first = 1000 * statistics.median(one.first[case.name])
                row += [f"{rate:.1f}{spread(times)}", f"{first:.0f}"]
            else:
                row += [one.failed or "not run", ""]
        lines.append([*row, f"{one.memory / 1e6:.0f}"])
    lines[0].append("memory, MB")
    lines[1].append("---")
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def draw(contestants: list[Contestant], path: Path) -> None:
    """Draw tokens per second, case by case."""
    from matplotlib import pyplot as plt

    from gpt2 import drawing

    drawing.use_style()
    figure, panels = plt.subplots(1, len(CASES), figsize=(9, 4), sharey=True)
    names = [one.name for one in reversed(contestants)]
    for axes, case in zip(panels, CASES, strict=True):
        for place, one in enumerate(reversed(contestants)):
            if times := one.between.get(case.name):
                ours = one.name.startswith("gpt2")
                color = drawing.COLORS["stream" if ours else "position"]
                rate = case.batch / statistics.median(times)
                axes.barh(place, rate, color=color)
                axes.text(rate, place, f" {rate:.0f}", va="center", fontsize=8)
        axes.set(title=case.name, xlabel="tokens per second")
        axes.set_yticks(range(len(names)), names)
        axes.margins(x=0.15)
    figure.savefig(path)
    plt.close(figure)


def machine() -> dict[str, str]:
    """Describe where this runs."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    flags: set[str] = set()
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                cpu = value.strip()
            if key.strip() == "flags":
                flags = set(value.split())
    wide = [
        f for f in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if f in flags
    ]
    return {
        "cpu": cpu,
        "instructions": " ".join(wide),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=HERE / "_checkpoint")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    options = parser.parse_args()
    print("Writing the checkpoint in every format ...", flush=True)
    write_all(options.folder)
    contestants = []
    for name in options.only:
        print(f"starting {name}", flush=True)
        start = Contestant.start(name, options.folder, options.threads)
        contestants.append(start)
    for case in CASES:
        for turn in range(options.rounds + 1):
            for one in contestants:
                one.ask(case)
                if turn == 0:  # the first is to warm up
                    one.first.pop(case.name, None)
                    one.between.pop(case.name, None)
            print(f"{case.name}: round {turn} of {options.rounds}", flush=True)
    for one in contestants:
        one.stop()
    options.output.mkdir(parents=True, exist_ok=True)
    text = table(contestants)
    facts = machine() | {"threads": str(options.threads)}
    raw = {
        "machine": facts,
        "contestants": {
            one.name: {
                "version": one.version,
                "load_seconds": one.load_seconds,
                "memory": one.memory,
                "failed": one.failed,
                "first": one.first,
                "between": one.between,
            }
            for one in contestants
        },
    }
    (options.output / "generation.json").write_text(json.dumps(raw, indent=1))
    (options.output / "generation.md").write_text(
        "\n".join(f"{k}: {v}  " for k, v in facts.items()) + "\n\n" + text
    )
    draw(contestants, options.output / "generation.png")
    print(text)


if __name__ == "__main__":
    main()

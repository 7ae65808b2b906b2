"""Make the tables and the plots from the measurements of `run.py`.

    python benchmarks/report.py

writes `results/results.md`, and the pictures in the book.
"""

from __future__ import annotations

import json
import statistics
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from gpt2_book import drawing

HERE = Path(__file__).parent
PICTURES = HERE.parent / "book" / "_static"
CASES = ("prompt 128", "prompt 512", "batch 8")
BATCH = {"batch 8": 8}
OURS = "gpt2 "
# The pairs of engines to compare: (ours, theirs).
CONTESTS = (
    ("gpt2 float32", "transformers float32"),
    ("gpt2 float32", "ctranslate2 float32"),
    ("gpt2 float32", "llama.cpp F32"),
    ("gpt2 bfloat16", "transformers bfloat16"),
    ("gpt2 bfloat16", "llama.cpp BF16"),
    ("gpt2 int8", "ctranslate2 int8_float32"),
    ("gpt2 int8", "llama.cpp Q8_0"),
)


def rate(engine: dict[str, Any], case: str) -> float | None:
    """Return an engine's median tokens per second, if it ran."""
    times = engine["between"].get(case)
    return BATCH.get(case, 1) / statistics.median(times) if times else None


def first(engine: dict[str, Any], case: str) -> float | None:
    """Return an engine's median milliseconds to the first token."""
    times = engine["first"].get(case)
    return 1000 * statistics.median(times) if times else None


def spread(values: list[float]) -> str:
    """Return half the interquartile range, in percent of the median."""
    if len(values) < 4:
        return ""
    low, _, high = statistics.quantiles(values, n=4)
    return f" ± {(high - low) / 2 / statistics.median(values):.0%}"


def table(rows: list[list[str]]) -> str:
    """Format a table in Markdown; the first row is the header."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def generation(engines: dict[str, Any]) -> str:
    """Return the table of generation: speed, first token, and memory."""
    rows = [["engine", "version"]]
    for case in CASES:
        rows[0] += [f"{case}: tokens/s", "first token, ms"]
    rows[0] += ["memory, MB", "peak, MB", "same tokens"]
    for name, one in engines.items():
        row = [name, one["version"]]
        for case in CASES:
            speed, begin = rate(one, case), first(one, case)
            if speed is None or begin is None:
                row += [one["failed"] or "not run", ""]
            else:
                about = spread(one["between"][case])
                row += [f"{speed:.1f}{about}", f"{begin:.0f}"]
        for moment in ("now", "peak"):
            held = one["memory"].get(moment)
            row.append(f"{held / 1e6:.0f}" if held else "")
        same = one["agrees"]
        row.append("" if same is None else f"{same:.0%}")
        rows.append(row)
    return table(rows)


def ratios(engines: dict[str, Any]) -> str:
    """Return the table of how many times as fast ours are as the others."""
    rows = [["ours", "theirs", *CASES, *(f"first, {c}" for c in CASES)]]
    for ours, theirs in CONTESTS:
        row = [ours, theirs]
        for measure, up in ((rate, True), (first, False)):
            for case in CASES:
                a = measure(engines.get(ours, EMPTY), case)
                b = measure(engines.get(theirs, EMPTY), case)
                both = a is not None and b is not None
                row.append(f"{a / b if up else b / a:.2f}" if both else "")
        rows.append(row)
    return table(rows)


EMPTY: dict[str, Any] = {"between": {}, "first": {}}


def medians(measured: dict[str, list[float]], unit: str) -> str:
    """Return the table of the median for each name."""
    rows = [["", unit]]
    for name, times in measured.items():
        median = statistics.median(times)
        rows.append([name, f"{median:.3g}{spread(times)}"])
    return table(rows)


def cost(steps: list[dict[str, Any]]) -> str:
    """Return the table of a step's time and of the time to read its bytes."""
    head = ["model", "precision", "tokens before", "batch"]
    rows = [[*head, "ms", "ms for its bytes", "share"]]
    for one in steps:
        least = one["bytes"] / one["bandwidth"]
        rows.append(
            [
                *(one["size"], one["precision"]),
                *(str(one["context"]), str(one["batch"])),
                *(f"{1000 * one['seconds']:.1f}", f"{1000 * least:.1f}"),
                f"{least / one['seconds']:.0%}",
            ]
        )
    return table(rows)


def draw_speed(engines: dict[str, Any], path: Path) -> None:
    """Draw the tokens per second of all engines that ran."""
    names = [n for n, one in engines.items() if one["between"]]
    figure, panels = plt.subplots(3, 1, figsize=(5.2, 9), layout="tight")
    for axes, case in zip(panels, CASES, strict=True):
        for place, name in enumerate(reversed(names)):
            speed = rate(engines[name], case) or 0
            ours = name.startswith(OURS)
            color = drawing.COLORS["stream" if ours else "position"]
            axes.barh(place, speed, color=color)
            axes.text(speed, place, f" {speed:.0f}", va="center", fontsize=9)
        axes.set(title=case)
        axes.margins(x=0.15)
        axes.set_yticks(range(len(names)), reversed(names))
    panels[-1].set_xlabel("tokens per second")
    figure.savefig(path)
    plt.close(figure)


def draw_cost(steps: list[dict[str, Any]], path: Path) -> None:
    """Draw the time of a step over context, batch and model size."""
    figure, panels = plt.subplots(3, 1, figsize=(5.2, 7.5), layout="tight")
    colors = {
        "bfloat16": drawing.COLORS["stream"],
        "int8": drawing.COLORS["key"],
    }
    cut = {
        "context": [s for s in steps if s["batch"] == 1],
        "batch": [s for s in steps if s["context"] == 128],
    }
    cut = {k: [s for s in v if s["size"] == "gpt2"] for k, v in cut.items()}
    cut["size"] = [s for s in steps if s["context"] == 128 and s["batch"] == 1]
    labels = {
        "context": "tokens before",
        "batch": "sequences at a time",
        "size": "",
    }
    for axes, (name, some) in zip(panels, cut.items(), strict=True):
        some = sorted(some, key=lambda s: s["precision"])
        for precision, group in groupby(some, lambda s: s["precision"]):
            rows = list(group)
            if name != "size":
                rows.sort(key=lambda s: s[name])
            x = (
                [s[name].removeprefix("gpt2-") for s in rows]
                if (name == "size")
                else [s[name] for s in rows]
            )
            color = colors[precision]
            took = [1000 * s["seconds"] for s in rows]
            least = [1000 * s["bytes"] / s["bandwidth"] for s in rows]
            axes.plot(x, took, "o-", color=color, label=precision)
            axes.plot(x, least, "--", color=color)
        axes.set(xlabel=labels[name], ylim=(0, None), ylabel="ms per step")
    panels[0].legend()
    figure.savefig(path)
    plt.close(figure)


def write(folder: Path, pictures: Path = PICTURES) -> None:
    """Write the report of a folder's `results.json`."""
    drawing.use_style()
    results = json.loads((folder / "results.json").read_text())
    parts = ["# Results", ""]
    parts += [f"- {k}: {v}" for k, v in results["machine"].items()]
    if "generation" in results:
        engines = results["generation"]
        parts += ["", "## Generation, GPT-2 124M", "", generation(engines), ""]
        parts += [
            "Same tokens: the share of tokens that equal those of the first "
            "engine. With random weights, near ties are frequent.",
            "",
        ]
        parts += ["Speed of ours over theirs (above 1, ours is faster):", ""]
        parts += [ratios(engines)]
        draw_speed(engines, pictures / "speed.png")
    if "start" in results:
        text = medians(results["start"], "seconds from start to first token")
        parts += ["", "## Start-up", "", text]
    if "training" in results:
        unit = "seconds for a step of 4 x 256 tokens"
        text = medians(results["training"], unit)
        parts += ["", "## Training", "", text]
    if "scale" in results:
        parts += ["", "## How the cost of a step grows", ""]
        note = "The memory bandwidth was measured alternately with each."
        parts += [note, ""]
        parts += [cost(results["scale"])]
        draw_cost(results["scale"], pictures / "cost.png")
    (folder / "results.md").write_text("\n".join(parts) + "\n")


if __name__ == "__main__":
    write(HERE / "results")

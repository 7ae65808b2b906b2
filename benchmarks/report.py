"""Make the tables and the plots from the measurements of `run.py`.

    python benchmarks/report.py                # results/results.md, plots
    python benchmarks/report.py --readme       # print the tables for README
    python benchmarks/report.py --book MACHINE # draw the plots of the book

There is a file of measurements for each machine, and the tables that compare
engines show the range over all machines. Nothing is written outside the folder
of the measurements, except by `--book`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from gpt2_book import drawing

HERE = Path(__file__).parent
PICTURES = HERE.parent / "book" / "_static"
CASES = ("prompt 128", "prompt 512", "batch 8", "batch 16", "batch 32")
DRAWN = CASES[:3]
BATCH = {"batch 8": 8, "batch 16": 16, "batch 32": 32}
OURS = "gpt2 "
THEIRS = {
    "float32": (
        *("transformers float32", "transformers-compiled float32"),
        *("openvino float32", "onnxruntime float32"),
        *("ctranslate2 float32", "llama.cpp F32"),
    ),
    "bfloat16": (
        *("transformers bfloat16", "transformers-compiled bfloat16"),
        *("openvino bfloat16", "llama.cpp BF16"),
    ),
    "int8": (
        *("openvino int8", "onnxruntime int8"),
        *("ctranslate2 int8_float32", "llama.cpp Q8_0"),
    ),
    "int4": (
        *("openvino int4", "onnxruntime int4"),
        *("llama.cpp Q4_0", "llama.cpp Q4_K_M"),
    ),
}
CONTESTS = tuple(
    (f"{OURS}{precision}", name)
    for precision, names in THEIRS.items()
    for name in names
)
"""The pairs of engines to compare: (ours, theirs)."""
README_ROWS = {
    "`gpt2`, the model of the book": {"float32": ["gpt2 taught"]},
    "`gpt2`, packed": {p: [f"gpt2 {p}"] for p in THEIRS},
    "transformers": {p: [f"transformers {p}"] for p in THEIRS},
    "transformers, compiled, with a static cache": {
        p: [f"transformers-compiled {p}"] for p in THEIRS
    },
    "OpenVINO": {p: [f"openvino {p}"] for p in THEIRS},
    "ONNX Runtime": {p: [f"onnxruntime {p}"] for p in THEIRS},
    "CTranslate2": {
        "float32": ["ctranslate2 float32"],
        "int8": ["ctranslate2 int8_float32"],
    },
    "llama.cpp": {
        "float32": ["llama.cpp F32"],
        "bfloat16": ["llama.cpp BF16"],
        "int8": ["llama.cpp Q8_0"],
        "int4": ["llama.cpp Q4_0", "llama.cpp Q4_K_M"],
    },
}
EMPTY: dict[str, Any] = {"between": {}, "first": {}}
Measure = Callable[[dict[str, Any], str], float | None]
KIND = {"int4": "int8"}  # the products that a precision computes


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


def speeds(engines: dict[str, Any]) -> str:
    """Return the table of generation: speed, memory, and same tokens."""
    head = ["engine", "version", *(f"{case}: tokens/s" for case in CASES)]
    rows = [[*head, "memory, MB", "peak, MB", "same tokens"]]
    for name, one in engines.items():
        row = [name, one["version"]]
        for case in CASES:
            speed = rate(one, case)
            if speed is None:
                row.append("failed" if one["failed"] else "not run")
            else:
                row.append(f"{speed:.1f}{spread(one['between'][case])}")
        for moment in ("now", "peak"):
            held = one["memory"].get(moment)
            row.append(f"{held / 1e6:.0f}" if held else "")
        same = one["agrees"]
        row.append("" if same is None else f"{same:.0%}")
        rows.append(row)
    return table(rows)


def first_tokens(engines: dict[str, Any]) -> str:
    """Return the table of the milliseconds to the first token."""
    rows = [["engine", *(f"{case}: ms" for case in CASES)]]
    for name, one in engines.items():
        if not one["first"]:
            continue
        times = [first(one, case) for case in CASES]
        shown = ["" if time is None else f"{time:.0f}" for time in times]
        rows.append([name, *shown])
    return table(rows)


def failures(engines: dict[str, Any]) -> str:
    """Return a list of the engines that could not run, and why."""
    return "\n".join(
        f"- {name} {one['failed']}"
        for name, one in engines.items()
        if one["failed"]
    )


def a_range(values: list[float], digits: int) -> str:
    """Format the smallest and the largest of some values, if they differ."""
    if not values:
        return ""
    ends = [f"{value:.{digits}f}" for value in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))


def ratio(
    measure: Measure, case: str, ours: dict[str, Any], theirs: dict[str, Any]
) -> float | None:
    """Return how many times as fast ours is as theirs, if both ran."""
    a, b = measure(ours, case), measure(theirs, case)
    if a is None or b is None:
        return None
    return a / b if measure is rate else b / a


def leads(machines: list[dict[str, Any]]) -> str:
    """Return the table of ours over the fastest other engine, and its name.

    Args:
        machines: The engines of each machine.
    """
    cases = [f"first, {case}" for case in CASES]
    rows = [["precision", *CASES, *cases]]
    for precision, names in THEIRS.items():
        row = [precision]
        for measure, case in itertools.product((rate, first), CASES):
            found = []
            for engines in machines:
                ours = engines.get(f"{OURS}{precision}", EMPTY)
                others = {
                    name: ratio(measure, case, ours, engines[name])
                    for name in names
                    if name in engines
                }
                ran = [(r, name) for name, r in others.items() if r]
                found += [min(ran)] if ran else []
            who = dict.fromkeys(name for _, name in found)
            text = a_range([value for value, _ in found], 2)
            row.append(f"{text} ({', '.join(who)})" if found else "")
        rows.append(row)
    return table(rows)


def ratios(machines: list[dict[str, Any]]) -> str:
    """Return the table of how many times as fast ours are as the others.

    Args:
        machines: The engines of each machine.
    """
    cases = [f"first, {case}" for case in CASES]
    rows = [["ours", "theirs", *CASES, *cases]]
    for ours, theirs in CONTESTS:
        row = [ours, theirs]
        for measure, case in itertools.product((rate, first), CASES):
            found = [
                ratio(measure, case, m.get(ours, EMPTY), m.get(theirs, EMPTY))
                for m in machines
            ]
            row.append(a_range([r for r in found if r], 2))
        rows.append(row)
    return table(rows)


def readme(machines: list[dict[str, Any]], case: str = CASES[0]) -> str:
    """Return the table of tokens per second that README shows.

    Args:
        machines: The engines of each machine.
        case: What is generated.
    """
    rows = [["engine", *THEIRS]]
    for label, engines in README_ROWS.items():
        row = [label]
        for precision in THEIRS:
            cells = []
            for name in engines.get(precision, []):
                one = [rate(m.get(name, EMPTY), case) for m in machines]
                text = a_range([speed for speed in one if speed], 0)
                kind = f" ({name.split()[1]})" if "llama" in name else ""
                cells += [text + kind] if text else []
            row.append(", ".join(cells))
        if any(row[1:]):
            rows.append(row)
    return table(rows)


def medians(measured: dict[str, list[float]], unit: str) -> str:
    """Return the table of the median for each name."""
    rows = [["", unit]]
    for name, times in measured.items():
        median = statistics.median(times)
        rows.append([name, f"{median:.3g}{spread(times)}"])
    return table(rows)


def fastest_products(scale: dict[str, Any], precision: str) -> float | None:
    """Return the operations per second that were measured, if any."""
    kind = KIND.get(precision, precision)
    found = [scale.get(how, {}).get(kind) for how in ("peak", "products")]
    return max((one for one in found if one), default=None)


def least(scale: dict[str, Any], one: dict[str, Any]) -> tuple[float, float]:
    """Return the seconds that a step's bytes, and its products, must take."""
    most = fastest_products(scale, one["precision"])
    products = one["operations"] / most if most else 0.0
    return one["bytes"] / one["bandwidth"], products


def cost(scale: dict[str, Any]) -> str:
    """Return the table of a step's time beside what the machine can do."""
    head = ["model", "precision", "tokens before", "batch", "ms"]
    rows = [[*head, "GB/s", "ms for its bytes", "ms for its products"]]
    rows[0].append("the longer of them, in percent of the step")
    for one in scale["steps"]:
        both = least(scale, one)
        rows.append(
            [
                *(one["size"], one["precision"]),
                *(str(one["context"]), str(one["batch"])),
                f"{1000 * one['seconds']:.1f}",
                f"{one['bandwidth'] / 1e9:.1f}",
                *(f"{1000 * seconds:.1f}" for seconds in both),
                f"{max(both) / one['seconds']:.0%}",
            ]
        )
    return table(rows)


def reading(prompts: list[dict[str, Any]]) -> str:
    """Return the table of how fast prompts are read."""
    head = ["precision", "tokens", "batch", "ms", "GFLOP/s"]
    rows = [[*head, "of the processor's rate", "of PyTorch's products"]]
    for one in prompts:
        done = one["operations"] / one["seconds"]
        most = [one[how] for how in ("peak", "products")]
        rows.append(
            [
                *(one["precision"], str(one["prompt"]), str(one["batch"])),
                f"{1000 * one['seconds']:.0f}",
                f"{done / 1e9:.0f}",
                *(f"{done / rate:.0%}" if rate else "" for rate in most),
            ]
        )
    return table(rows)


def rates(scale: dict[str, Any]) -> list[str]:
    """Return what the machine can do: products, and ways to read memory."""
    lines = []
    for kind, most in scale.get("peak", {}).items():
        told = [f"{most / 1e9:.0f} in registers"] if most else []
        if by_torch := scale["products"].get(kind):
            told.append(f"{by_torch / 1e9:.0f} in PyTorch's products")
        lines.append(f"- {kind}, GFLOP/s: {', '.join(told) or 'none'}")
    lines += [f"- memory is read fastest with {f}" for f in scale["forms"]]
    return lines + [f"- left out: {one}" for one in scale.get("left out", [])]


def draw_speed(engines: dict[str, Any], path: Path) -> None:
    """Draw the tokens per second of all engines that ran."""
    names = [n for n, one in engines.items() if one["between"]]
    size = (5.2, 1.5 + 0.54 * len(names))
    figure, panels = plt.subplots(len(DRAWN), 1, figsize=size, layout="tight")
    for axes, case in zip(panels, DRAWN, strict=True):
        for place, name in enumerate(reversed(names)):
            speed = rate(engines[name], case) or 0
            ours = name.startswith(OURS)
            color = drawing.COLORS["stream" if ours else "position"]
            axes.barh(place, speed, color=color)
            axes.text(speed, place, f" {speed:.0f}", va="center")
        axes.set(title=case, ylim=(-0.7, len(names) - 0.3))
        axes.margins(x=0.15)
        axes.set_yticks(range(len(names)), reversed(names))
    panels[-1].set_xlabel("tokens per second")
    drawing.save(figure, path)
    plt.close(figure)


COST_COLORS = {
    "float32": "position",
    "bfloat16": "stream",
    "int8": "key",
    "int4": "value",
}


def draw_cost(scale: dict[str, Any], path: Path) -> None:
    """Draw the time of a step over context, batch and model size."""
    steps = scale["steps"]
    figure, panels = plt.subplots(3, 1, figsize=(5.2, 7.5), layout="tight")
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
        order = list(COST_COLORS)
        some = sorted(some, key=lambda s: order.index(s["precision"]))
        for precision, group in itertools.groupby(
            some, lambda s: s["precision"]
        ):
            rows = list(group)
            if name != "size":
                rows.sort(key=lambda s: s[name])
            x = (
                [s[name].removeprefix("gpt2-") for s in rows]
                if name == "size"
                else [s[name] for s in rows]
            )
            color = drawing.COLORS[COST_COLORS[precision]]
            took = [1000 * s["seconds"] for s in rows]
            bound = [1000 * max(least(scale, s)) for s in rows]
            axes.plot(x, took, "o-", color=color, label=precision)
            axes.plot(x, bound, "--", color=color)
        axes.set(xlabel=labels[name], ylim=(0, None), ylabel="ms per step")
    panels[1].legend(loc="upper left")
    drawing.save(figure, path)
    plt.close(figure)


def draw(results: dict[str, Any], folder: Path, prefix: str = "") -> None:
    """Draw the plots of one machine into a folder."""
    drawing.use_style()
    if "generation" in results:
        draw_speed(results["generation"], folder / f"{prefix}speed.svg")
    if "scale" in results:
        draw_cost(results["scale"], folder / f"{prefix}cost.svg")


def of_machine(results: dict[str, Any]) -> list[str]:
    """Return the part of the report about one machine."""
    parts = [f"- {k}: {v}" for k, v in results["machine"].items()]
    if engines := results.get("generation"):
        parts += ["", "### Generation, GPT-2 124M", "", speeds(engines), ""]
        parts += [
            "Same tokens: the share of tokens that equal those of the first "
            "engine. With random weights, near ties are frequent.",
            "",
        ]
        if failed := failures(engines):
            parts += ["Could not run:", "", failed, ""]
        parts += ["Time to the first token:", "", first_tokens(engines)]
    if "start" in results:
        text = medians(results["start"], "seconds from start to first token")
        parts += ["", "### Start-up", "", text]
    if "training" in results:
        unit = "seconds for a step of 4 x 256 tokens"
        text = medians(results["training"], unit)
        parts += ["", "### Training", "", text]
    if scale := results.get("scale"):
        parts += ["", "### How the cost of a step grows", ""]
        parts += [*rates(scale), "", cost(scale)]
        if scale.get("prompts"):
            parts += ["", "Reading prompts, GPT-2 124M:", ""]
            parts += [reading(scale["prompts"])]
    if gpu := results.get("gpu"):
        name, bandwidth = gpu["card"][0], gpu["bandwidth"] / 1e9
        parts += ["", "### GPU, bfloat16", ""]
        parts += [f"{name}, which reads {bandwidth:.0f} GB/s", ""]
        parts += [speeds(gpu["engines"]), "", first_tokens(gpu["engines"])]
    return parts


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the results of all machines, by the name of the file.

    Other programs keep their results in the same folder.
    """
    found = {
        path.stem: json.loads(path.read_text())
        for path in sorted(folder.glob("*.json"))
    }
    return {name: one for name, one in found.items() if "machine" in one}


def generations(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the engines of each machine on which generation was measured."""
    return [r["generation"] for r in results.values() if "generation" in r]


def write(folder: Path) -> None:
    """Write the report of a folder, and its plots, into that folder."""
    results = read(folder)
    parts = ["# Results", ""]
    if machines := generations(results):
        over = ""
        if len(machines) > 1:
            over = f", the range over {len(machines)} machines"
        parts += [
            f"Speed of ours over theirs (above 1, ours is faster){over}:",
            "",
            ratios(machines),
            "",
            f"The same for the fastest of the others{over}:",
            "",
            leads(machines),
            "",
        ]
    for name, one in results.items():
        parts += [f"## {name}", "", *of_machine(one), ""]
        draw(one, folder, f"{name}-")
    (folder / "results.md").write_text("\n".join(parts).rstrip() + "\n")


def main() -> None:
    """Write the report, or what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE / "results")
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--book", metavar="MACHINE")
    given = parser.parse_args()
    results = read(given.folder)
    if given.readme:
        machines = generations(results)
        print(readme(machines), leads(machines), sep="\n\n")
    elif given.book:
        if given.book not in results:
            parser.error(f"no {given.book}; there are {', '.join(results)}")
        draw(results[given.book], PICTURES)
    else:
        write(given.folder)


if __name__ == "__main__":
    main()

"""Measure the memory of a process that loads a model and generates with it.

    python benchmarks/memory.py [SIZE ...]

For each size (all four by default) and each way to run it, a process of its
own imports PyTorch, loads a checkpoint of zeros, packs it unless it runs the
taught model, reads a prompt of 128 tokens and writes 16. Meanwhile, its memory
is read every few milliseconds. The measurements go to `results/memory.json`,
and from there to `memory.md` and `memory.svg`.
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the imports below

SIZES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
BYTES = {"taught": 4, "float32": 4, "bfloat16": 2, "int8": 1, "int4": 18 / 32}
"""Bytes of a number in a matrix; all other numbers are float32."""
N_PROMPT, N_NEW, SECONDS = 128, 16, 0.004


def run(way: str, folder: str) -> None:
    """Load and generate; after each stage, print a line of JSON about it."""
    from contestants import memory

    def tell(stage: str) -> None:
        print(json.dumps([stage, time.time(), memory()]), flush=True)

    from gpt2.commands.starting import load_torch

    load_torch()
    import torch

    tell("import torch")
    from gpt2.generation import stream
    from gpt2.inference.packed import for_inference
    from gpt2.sampling import Sampling
    from gpt2.weights.loading import load_model

    model: Any = load_model(folder)
    tell("load")
    if way != "taught":
        model = for_inference(model, way, consume=True)  # type: ignore[arg-type]
        tell("pack")
    prompt = torch.arange(N_PROMPT)[None]
    for i, _ in enumerate(stream(model, prompt, N_NEW, Sampling(0))):
        if i == 0:
            tell("prompt")
    tell("tokens")


def observe(way: str, folder: str) -> dict[str, Any]:
    """Run one way in a process of its own, and watch its memory.

    Returns:
        The seconds of the end of each stage with the bytes that are held then
        and at the peak so far; and a curve of seconds and bytes.
    """
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, __file__, "run", way, folder],
        stdout=subprocess.PIPE,
        text=True,
    )
    statm, curve = Path(f"/proc/{process.pid}/statm"), []
    while process.poll() is None:
        pages = statm.read_text().split()
        if len(pages) > 1 and pages[1] != "0":  # it has not ended
            seconds = round(time.time() - began, 3)
            curve.append([seconds, int(pages[1]) * mmap.PAGESIZE])
        time.sleep(SECONDS)
    assert process.stdout is not None and process.returncode == 0
    lines = [json.loads(line) for line in process.stdout]
    stages = {
        name: [round(at - began, 3), held["now"], held["peak"]]
        for name, at, held in lines
    }
    end = stages["tokens"][0]
    return {"stages": stages, "curve": [x for x in curve if x[0] <= end]}


def weights(size: str, way: str) -> int:
    """Return the bytes of a model's weights, in the way's format."""
    from gpt2.config import GPT2Config
    from gpt2.weights.layout import parameter_shapes

    total = 0.0
    for name, shape in parameter_shapes(GPT2Config.from_name(size)).items():
        matrix = len(shape) == 2 and name != "wpe.weight"
        numbers = shape[0] * (shape[1] if len(shape) == 2 else 1)
        total += numbers * (BYTES[way] if matrix else 4)
    return round(total)


def write(size: str, folder: Path) -> None:
    """Write a checkpoint of zeros, which takes no room on the disk.

    What is held does not depend on the numbers.
    """
    from gpt2.config import GPT2Config
    from gpt2.weights.layout import parameter_shapes

    config, header, end = GPT2Config.from_name(size), {}, 0
    for name, shape in parameter_shapes(config).items():
        begin, end = end, end + 4 * prod(shape)
        header[name] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)  # a hole, which reads as zeros
    fields = {
        "model_type": "gpt2",
        "vocab_size": config.n_vocab,
        "n_positions": config.n_ctx,
        "n_embd": config.n_embd,
        "n_head": config.n_head,
        "n_layer": config.n_layer,
    }
    (folder / "config.json").write_text(json.dumps(fields))


def measure(size: str, ways: Iterable[str] = tuple(BYTES)) -> dict[str, Any]:
    """Write a checkpoint of one size, and observe every way to run it."""
    with tempfile.TemporaryDirectory() as folder:
        write(size, Path(folder))
        found = {}
        for way in ways:
            print(f"{size}, {way}", file=sys.stderr, flush=True)
            found[way] = observe(way, folder)
        return found


def table(results: dict[str, Any]) -> str:
    """Return the table of what is held at the end, and of the peak."""
    rows = [
        "| model | run as | weights | held | peak | held less weights and "
        "`import torch` | peak over held |",
        "| --- " * 7 + "|",
    ]
    for size, ways in results.items():
        for way, one in ways.items():
            own = weights(size, way)
            _, torch, _ = one["stages"]["import torch"]
            _, held, peak = one["stages"]["tokens"]
            cells = [
                *(size, way),
                *(f"{n / 1e6:,.0f}" for n in (own, held, peak)),
                f"{(held - own - torch) / 1e6:,.0f}",
                f"{peak / held:.2f}",
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the memory of each way over a run of the smallest model."""
    import matplotlib.pyplot as plt

    from gpt2_book import drawing

    drawing.use_style()
    ways = results[SIZES[0]]
    figure, panels = plt.subplots(
        len(ways), 1, figsize=(5.2, 1.9 * len(ways)), sharey=True
    )
    for axes, (way, one) in zip(panels, ways.items(), strict=True):
        stages = one["stages"]
        start = stages["import torch"][0]
        x, y = zip(*one["curve"], strict=True)
        seconds = [at - start for at in x]
        axes.fill_between(
            seconds,
            [n / 1e6 for n in y],
            color=drawing.COLORS["stream"],
            alpha=0.35,
            linewidth=0,
        )
        torch = stages["import torch"][1]
        whole = (torch + weights(SIZES[0], way)) / 1e6
        axes.axhline(torch / 1e6, color=drawing.COLORS["position"], lw=1)
        axes.axhline(whole, color=drawing.COLORS["token"], lw=1, ls="--")
        for stage, (at, *_) in stages.items():  # each ends there
            axes.axvline(at - start, color=drawing.PALE, lw=0.8)
            axes.annotate(
                stage,
                (at - start, 1.0),
                xycoords=("data", "axes fraction"),
                rotation=90,
                va="top",
                ha="right",
            )
        axes.set(title=way, xlim=(-0.2, None), ylim=(0, None), ylabel="MB")
    panels[-1].set_xlabel("seconds since PyTorch was imported")
    drawing.save(figure, path)
    plt.close(figure)


NOTE = (
    "In megabytes (10^6 bytes), from `/proc`: what is held after a prompt of "
    "128 tokens and 16 more, and the peak until then. The checkpoint holds "
    "zeros, in float32. In `memory.svg`, the grey line is what `import "
    "torch` takes, and the dashed one adds the weights."
)


def main(*sizes: str) -> None:
    """Measure, and write the results."""
    folder = HERE / "results"
    path = folder / "memory.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for size in sizes or SIZES:
        results[size] = measure(size)
        if size != SIZES[0]:  # only one is drawn
            for one in results[size].values():
                del one["curve"]
        results = {name: results[name] for name in SIZES if name in results}
        path.write_text(json.dumps(results) + "\n")
        text = f"# Memory of a run\n\n{NOTE}\n\n{table(results)}\n"
        (folder / "memory.md").write_text(text)
    draw(results, folder / "memory.svg")


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        run(*sys.argv[2:])
    else:
        main(*sys.argv[1:])

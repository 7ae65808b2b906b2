"""The record of a run, and its picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpt2.training.loop import Report

RECORD = "metrics.jsonl"
PICTURE = "loss.png"


class Metrics:
    """A file with one line of JSON for each step of a run."""

    def __init__(self, folder: Path, facts: dict[str, Any], step: int) -> None:
        """Begin the record, or go on with one.

        Args:
            folder: The run's.
            facts: For the first line: what there is to know of the run.
            step: How many steps the run has taken. Lines of later ones, which
                a run that was killed may have left, are dropped.
        """
        path = folder / RECORD
        folder.mkdir(parents=True, exist_ok=True)
        lines = [facts]
        if step and path.exists():
            steps = read(folder)[1:]
            lines += [line for line in steps if line["step"] <= step]
        stage = path.with_name(f".{RECORD}")
        text = "".join(json.dumps(line) + "\n" for line in lines)
        stage.write_text(text, encoding="utf-8")
        stage.replace(path)
        self.file = path.open("a", encoding="utf-8")

    def add(self, report: Report) -> None:
        """Add a step."""
        self._write({k: v for k, v in asdict(report).items() if v is not None})

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read(folder: Path) -> list[dict[str, Any]]:
    """Read a run's record: first its facts, then its steps.

    A last line that was not written whole is left out.
    """
    lines = []
    for text in (folder / RECORD).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def draw(folder: Path) -> Path:
    """Draw a run's loss, and the floor under it where that is known.

    Returns:
        The picture's path.
    """
    from matplotlib.figure import Figure

    from gpt2 import drawing

    facts, *steps = read(folder)
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    tokens = [step["n_tokens"] / 1e6 for step in steps]
    losses = [step["loss"] for step in steps]
    axes.plot(
        tokens, losses, color=drawing.PALE, linewidth=0.6, label="training"
    )
    looks = [step for step in steps if "held_out_loss" in step]
    if looks:
        axes.plot(
            [step["n_tokens"] / 1e6 for step in looks],
            [step["held_out_loss"] for step in looks],
            color=drawing.COLORS["surprise"],
            label="held out",
        )
    floor = facts.get("entropy")
    if floor is not None:
        axes.axhline(floor, color=drawing.INK, linestyle="--", label="entropy")
    axes.set(
        xlabel="tokens seen (millions)",
        ylabel="loss (nats per token)",
        yscale="log",
        title=facts.get("title", "Loss"),
    )
    axes.legend()
    path = folder / PICTURE
    stage = path.with_name(f".{PICTURE}")
    figure.savefig(stage, format="png")
    stage.replace(path)
    return path

"""The record of a run's losses, and a plot of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpt2.files.reading import field, parse_json
from gpt2.files.writing import replacing, write_file
from gpt2.training.checkpoint import ResumeError
from gpt2.training.loop import Report

RECORD = "metrics.jsonl"
PICTURE = "loss.png"
_TRAINING, _HELD_OUT, _ENTROPY = "#9ca3af", "#dc2626", "#1f2937"
"""The colours of the three curves."""

_MOST_BYTES = 1_000_000
"""The longest line that is read; the line of a step has about 200 bytes."""


class Metrics:
    """A file of JSON lines: the facts of a run, and then its steps."""

    def __init__(self, folder: Path, facts: dict[str, Any], step: int) -> None:
        """Begin a record, or continue one.

        Args:
            folder: The run's folder.
            facts: What to write into the first line.
            step: How many steps the run has taken. Lines of later steps, left
                by a run that was killed, are dropped.

        Raises:
            ResumeError: The record to continue is damaged.
            OSError: It cannot be written.
        """
        path = folder / RECORD
        folder.mkdir(parents=True, exist_ok=True)
        lines = [facts]
        if step and path.exists():
            steps = read(folder)[1:]
            lines += [line for line in steps if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_file(path, text.encode())
        self.file = path.open("a", encoding="utf-8")

    def add(self, report: Report) -> None:
        """Add a step, readable at once."""
        line = {k: v for k, v in asdict(report).items() if v is not None}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read(folder: Path) -> list[dict[str, Any]]:
    """Read a run's record: its facts, followed by its steps.

    An incomplete last line is skipped.

    Raises:
        ResumeError: The record is missing or damaged.
    """
    path = folder / RECORD
    lines: list[dict[str, Any]] = []
    try:
        with path.open("rb") as file:
            while (text := file.readline(_MOST_BYTES + 1)).endswith(b"\n"):
                name = f"{path}, line {len(lines) + 1}"
                lines.append(_checked(text, name, is_first=not lines))
    except OSError as error:
        raise ResumeError(f"{path} cannot be read: {error}") from error
    if len(text) > _MOST_BYTES:
        raise ResumeError(
            f"{path}, line {len(lines) + 1} has more than {_MOST_BYTES:,} "
            f"bytes"
        )
    if not lines:
        raise ResumeError(f"{path} has no line with the facts of the run")
    return lines


def _checked(text: bytes, name: str, is_first: bool) -> dict[str, Any]:
    """Parse a line, and check the types of its fields.

    Args:
        text: The line.
        name: How error messages refer to it.
        is_first: Whether it is the line of facts.
    """
    line = parse_json(text, name, ResumeError)
    if not isinstance(line, dict):
        raise ResumeError(f"{name} must hold a JSON object")
    kinds: dict[str, Any] = {"title": str, "entropy": (float, type(None))}
    if not is_first:
        for needed in ("step", "n_tokens"):
            field(line, needed, int, name, ResumeError)
        field(line, "loss", float, name, ResumeError)
        kinds = {"held_out_loss": float}
    for known in kinds.keys() & line.keys():
        field(line, known, kinds[known], name, ResumeError)
    return line


def draw(folder: Path) -> Path:
    """Plot a run's losses, and the entropy of its text if that is known.

    Returns:
        The plot's path.

    Raises:
        ResumeError: The record is missing or damaged.
        OSError: The plot cannot be written.
    """
    from matplotlib.figure import Figure

    facts, *steps = read(folder)
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    tokens = [step["n_tokens"] / 1e6 for step in steps]
    losses = [step["loss"] for step in steps]
    axes.plot(tokens, losses, color=_TRAINING, linewidth=0.6, label="training")
    looks = [step for step in steps if "held_out_loss" in step]
    if looks:
        axes.plot(
            [step["n_tokens"] / 1e6 for step in looks],
            [step["held_out_loss"] for step in looks],
            color=_HELD_OUT,
            label="held out",
        )
    floor = facts.get("entropy")
    if floor is not None:
        axes.axhline(floor, color=_ENTROPY, linestyle="--", label="entropy")
    axes.set(
        xlabel="tokens seen (millions)",
        ylabel="loss (nats per token)",
        yscale="log",
        title=facts.get("title", "Loss"),
    )
    axes.legend()
    with replacing(folder, PICTURE) as stage:
        figure.savefig(stage / PICTURE, format="png")
    return folder / PICTURE

"""The picture of a run: what its axes show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpt2.training import metrics
from gpt2.training.loop import Report

LOSSES = [7.0, 4.0, 2.5, 2.0]
HELD_OUT = {1: 6.5, 4: 2.25}  # by step; the others were not evaluated
TOKENS_PER_STEP = 500_000


@pytest.fixture
def axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Axes]:
    """Draw a run of four steps, and give the axes as they were saved."""
    facts = {"title": "a small run", "entropy": 1.5}
    record = metrics.Metrics(tmp_path, facts, 0)
    for step, loss in enumerate(LOSSES, start=1):
        record.add(
            Report(
                step=step,
                loss=loss,
                learning_rate=1e-3,
                gradient_norm=1.0,
                n_tokens=TOKENS_PER_STEP * step,
                seconds=0.1,
                held_out_loss=HELD_OUT.get(step),
            )
        )
    record.close()
    saved: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **more: Any) -> None:
        save(figure, *arguments, **more)
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    metrics.draw(tmp_path)
    (figure,) = saved
    (axes,) = figure.axes
    yield axes


def points(axes: Axes, label: str) -> list[tuple[float, float]]:
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def test_losses_stand_over_the_tokens_seen(axes: Axes) -> None:
    assert points(axes, "training") == [
        (0.5, 7.0),
        (1.0, 4.0),
        (1.5, 2.5),
        (2.0, 2.0),
    ]
    assert "tokens" in axes.get_xlabel()
    assert "million" in axes.get_xlabel()
    assert axes.get_xscale() == "linear"


def test_held_out_losses_stand_at_their_own_steps(axes: Axes) -> None:
    """Not side by side at the beginning, as a list of them would."""
    assert points(axes, "held out") == [(0.5, 6.5), (2.0, 2.25)]


def test_the_loss_axis_is_logarithmic_and_in_nats(axes: Axes) -> None:
    assert axes.get_yscale() == "log"
    assert "nats per token" in axes.get_ylabel()


def test_nothing_lies_outside_the_axes(axes: Axes) -> None:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert 0 < bottom < 1.5  # the entropy is the lowest line
    assert top > 7.0
    assert left < 0.5
    assert right > 2.0
    # and the curves fill them
    assert right - left < 2 * (2.0 - 0.5)
    assert math.log(top / bottom) < 2 * math.log(7.0 / 1.5)


def test_the_entropy_spans_the_axis(axes: Axes) -> None:
    (line,) = (x for x in axes.lines if x.get_label() == "entropy")
    assert list(line.get_ydata()) == [1.5, 1.5]
    assert list(line.get_xdata()) == [0, 1]
    assert line.get_transform() == axes.get_yaxis_transform(which="grid")


def test_every_line_is_named(axes: Axes) -> None:
    legend = axes.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["training", "held out", "entropy"]
    # Where it stands is a matter of style.
    titles = {axes.get_title(where) for where in ("left", "center", "right")}
    assert titles == {"a small run", ""}

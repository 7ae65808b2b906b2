"""The book's figures: what stands where on their axes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from gpt2_book import drawing


@pytest.fixture
def axes() -> Iterator[Axes]:
    with drawing.plt.rc_context():
        drawing.use_style()
        yield Figure().subplots()


def texts(axes: Axes) -> dict[tuple[float, float], str]:
    """Return the texts in the axes by their positions."""
    return {text.get_position(): text.get_text() for text in axes.texts}


def test_a_matrix_is_labelled_as_it_is_indexed(axes: Axes) -> None:
    drawing.matrix(
        axes,
        [[0.0, 0.25, 0.5], [0.75, 1.0, 0.125]],
        rows=[" Ella", "\n"],
        columns=["a", "b c", "d"],
        title="weights",
    )
    assert list(axes.get_xticks()) == [0, 1, 2]
    assert list(axes.get_yticks()) == [0, 1]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    assert columns == ["a", "b␣c", "d"]
    assert [x.get_text() for x in axes.get_yticklabels()] == ["␣Ella", "↵"]
    assert axes.xaxis.get_ticks_position() == "top"
    assert axes.get_title(loc="center") == "weights"
    # Column by row, with the first row on top.
    assert texts(axes)[2, 0] == "0.50"
    assert texts(axes)[0, 1] == "0.75"
    bottom, top = axes.get_ylim()
    assert top < 0 < 1 < bottom
    assert axes.get_xlim() == (-0.5, 2.5)


def test_a_matrix_without_labels_has_no_ticks(axes: Axes) -> None:
    drawing.matrix(axes, [1, 2, 3], digits=None)
    assert not axes.get_xticks().size
    assert not axes.get_yticks().size
    assert not axes.texts


def test_a_label_too_few_is_refused(axes: Axes) -> None:
    with pytest.raises(ValueError, match="does not match"):
        drawing.matrix(axes, [[1, 2], [3, 4]], columns=["only"])


@pytest.mark.parametrize(
    "values, limit, low, high",
    [
        ([0.5, 2.0], None, 0, 2),
        ([0.5, -2.0], None, -2, 2),
        ([0.5, 2.0], 4.0, 0, 4),
        ([0.5, -2.0], 4.0, -4, 4),
        ([0.0, 0.0], None, 0, 1),
        ([0.5, math.inf], None, 0, 0.5),
        ([0.5, -math.inf], None, 0, 0.5),
    ],
)
def test_colours_begin_at_zero_or_have_it_in_the_middle(
    axes: Axes,
    values: list[float],
    limit: float | None,
    low: float,
    high: float,
) -> None:
    drawing.matrix(axes, values, limit=limit)
    (image,) = axes.images
    assert image.get_clim() == (low, high)
    assert np.allclose(image.to_rgba(0.0), 1, atol=0.01)  # white
    assert to_hex(image.to_rgba(high)) == drawing.COLORS["stream"]


def test_a_masked_cell_is_hatched_and_has_no_number(axes: Axes) -> None:
    drawing.matrix(axes, [[1, 9], [2, math.nan]], hidden=[[0, 1], [0, 0]])
    (image,) = axes.images
    assert image.get_clim() == (0, 2)  # what is masked does not count
    cells = [p for p in axes.patches if isinstance(p, Rectangle)]
    corners = {cell.get_xy() for cell in cells}
    assert corners == {(0.5, -0.5), (0.5, 0.5)}
    assert all(cell.get_hatch() for cell in cells)
    assert texts(axes) == {(0, 0): "1.00", (0, 1): "2.00"}


@pytest.mark.parametrize("color", drawing.COLORS)
@pytest.mark.parametrize("number", [0, 0.3, 0.6, 0.75, 0.9, 1.0])
def test_numbers_are_legible_on_their_cells(
    axes: Axes, color: str, number: float
) -> None:
    drawing.matrix(axes, [[number]], color=color, limit=1.0)
    (image,), (text,) = axes.images, axes.texts

    def worst(ink: str) -> float:
        inks = to_hex(drawing.dark(ink)), to_hex(drawing.dark(background))
        return min(contrast(ink, background), contrast(*inks))

    background = to_hex(image.to_rgba(number))
    others = [worst(ink) for ink in ("#000000", "#ffffff", drawing.INK)]
    assert worst(text.get_color()) == max(others)
    assert max(others) > 3


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2.1 of two colours #rrggbb."""

    def luminance(color: str) -> float:
        parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(
            parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert drawing.contrast("#000000", "#ffffff") == pytest.approx(21)
    for color in drawing.COLORS.values():
        expected = contrast(color, drawing.INK)
        assert drawing.contrast(color, drawing.INK) == pytest.approx(expected)


def test_bars_are_read_from_top_to_bottom(axes: Axes) -> None:
    drawing.bars(axes, [" kite", "duck", "\n"], [0.5, 0.25, 0.125])
    labels = [label.get_text() for label in axes.get_yticklabels()]
    ticks = list(axes.get_yticks())
    assert dict(zip(labels, ticks, strict=True)) == {
        "␣kite": 2,
        "duck": 1,
        "↵": 0,
    }
    widths = {
        round(bar.get_y() + bar.get_height() / 2): bar.get_width()
        for bar in axes.patches
        if isinstance(bar, Rectangle)
    }
    assert widths == {2: 0.5, 1: 0.25, 0: 0.125}
    assert texts(axes)[0.5, 2] == " 50.0%"
    assert not axes.get_xticks().size
    left, right = axes.get_xlim()
    assert left <= 0
    assert right > 1.15 * 0.5  # room for the number


def test_boxes_lie_where_the_canvas_puts_them(axes: Axes) -> None:
    drawing.canvas(axes, (0, 4), (-1, 2))
    assert axes.get_xlim() == (0, 4)
    assert axes.get_ylim() == (-1, 2)
    assert not axes.axison
    drawing.box(axes, 1, 0.5, "Ella", width=0.8, height=0.4)
    drawing.box(axes, 3, 0.5, "?", asked=True)
    known, asked = (p for p in axes.patches if isinstance(p, FancyBboxPatch))
    assert texts(axes) == {(1, 0.5): "Ella", (3, 0.5): "?"}
    assert np.allclose(known.get_bbox().extents, [0.6, 0.3, 1.4, 0.7])
    assert known.get_linestyle() == "-"
    assert asked.get_linestyle() == "--"
    assert to_hex(asked.get_facecolor()) == drawing.PAPER
    assert to_hex(known.get_edgecolor()) == drawing.COLORS["token"]


def test_an_arrow_points_to_its_end(axes: Axes) -> None:
    drawing.arrow(axes, (0, 1), (2, 3), color="key")
    (arrow,) = axes.texts
    assert arrow.xy == (2, 3)
    assert arrow.get_position() == (0, 1)
    assert to_hex(arrow.arrow_patch.get_edgecolor()) == drawing.COLORS["key"]

"""One visual language for every figure of the book.

A colour or a shape always means the same thing. A token is a rounded blue box,
dashed if the model has yet to predict it. The residual stream and its vectors
are amber. A query is a violet triangle, a key a teal diamond, a value a pink
disc. Probabilities, including attention weights, are green, and surprise is
red. Positions and other scaffolding are grey.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.typing import ColorType

from gpt2_book.pictures import plain

INK, PALE, PAPER = "#1f2937", "#9ca3af", "#ffffff"
# A figure has the width of a phone's screen, in points: a point is a pixel
# there, and no text is smaller than this.
SIZE = 11
PIXELS = 96  # at least so many on the longer side of a matrix
COLORS = {
    "token": "#2563eb",
    "stream": "#d97706",
    "query": "#7c3aed",
    "key": "#0d9488",
    "value": "#db2777",
    "probability": "#059669",
    "surprise": "#dc2626",
    "position": "#6b7280",
}
# The matrix of the filter `hue-rotate(180deg)`.
TURNED_BACK = np.array(
    [[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]]
)
MARKERS = {"query": ">", "key": "D", "value": "o"}

Numbers = npt.ArrayLike
"""A tensor, an array or a list of numbers."""


STYLE: Any = {
    "figure.figsize": (5.2, 3.0),
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": SIZE,
    "axes.facecolor": "none",
    "axes.titlesize": SIZE,
    "axes.titlelocation": "left",
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=list(COLORS.values())),
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SIZE,
    "ytick.labelsize": SIZE,
    "legend.frameon": False,
    "legend.fontsize": SIZE,
    "lines.linewidth": 1.8,
    "grid.color": "#e5e7eb",
    "path.simplify": False,  # what is dropped hangs on last digits
    "svg.fonttype": "none",
    "svg.hashsalt": "GPT-2",
}


def use_style() -> None:
    """Give matplotlib the book's style, and notebooks its pictures in SVG."""
    plt.rcParams.update(STYLE)
    shell = "IPython" in sys.modules and sys.modules["IPython"].get_ipython()
    if shell and hasattr(shell, "kernel"):
        # Loaded later, it would take the place of our formatter.
        importlib.import_module("matplotlib_inline.backend_inline")
        formatters = shell.display_formatter.formatters
        formatters["image/png"].pop(Figure, None)
        formatters["image/svg+xml"].for_type(Figure, svg)


def svg(figure: Figure) -> str:
    """Return a figure as SVG for the book's pages."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return plain(file.getvalue())


def save(figure: Figure, path: Path) -> None:
    """Save a figure as an SVG file for the book's pages."""
    path.write_text(svg(figure), encoding="utf-8")


def shown(token: str) -> str:
    """Return a token's text with visible spaces and line breaks."""
    return token.replace(" ", "␣").replace("\n", "↵")


def shades(color: str) -> LinearSegmentedColormap:
    """Return a colormap from white to a colour.

    Args:
        color: A key of `COLORS`, or any colour of matplotlib.
    """
    return LinearSegmentedColormap.from_list(
        color, [PAPER, COLORS.get(color, color)]
    )


def signed(color: str) -> LinearSegmentedColormap:
    """Return a colormap from slate to a colour, with white for 0 between.

    Args:
        color: A key of `COLORS`, or any colour of matplotlib.
    """
    return LinearSegmentedColormap.from_list(
        f"signed {color}", ["#64748b", PAPER, COLORS.get(color, color)]
    )


def dark(color: ColorType) -> tuple[float, float, float]:
    """Return what a page in dark mode shows instead of a colour.

    It is what the filter in `_static/style.css` makes of it (Filter Effects
    1, section 8): the lightness is turned round, and the hue stays.

    Returns:
        Red, green and blue, from 0 to 1.
    """
    inverted = 0.93 - 0.86 * np.array([*to_rgb(color)])
    red, green, blue = np.clip(TURNED_BACK @ inverted, 0, 1).tolist()
    return red, green, blue


def luminance(color: ColorType) -> float:
    """Return the relative luminance of a colour (WCAG 2.1)."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in to_rgb(color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: ColorType, other: ColorType) -> float:
    """Return the contrast ratio of two colours (WCAG 2.1), from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def legible_on(color: ColorType) -> str:
    """Return black or white, whichever is legible in both modes.

    Args:
        color: The background.
    """
    return max(
        ("#000000", PAPER),
        key=lambda ink: min(
            contrast(ink, color), contrast(dark(ink), dark(color))
        ),
    )


def matrix(
    axes: Axes,
    values: Numbers,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    color: str = "stream",
    limit: float | None = None,
    digits: int | None = 2,
    hidden: Numbers | None = None,
    title: str = "",
) -> None:
    """Draw a matrix as coloured cells with numbers in them.

    Args:
        axes: Where to draw.
        values: (n, m). Negative numbers are slate, infinite ones and NaN are
            hatched.
        rows: A label to the left of each row; spaces are made visible.
        columns: A label above each column; spaces are made visible.
        color: A key of `COLORS`, or any colour of matplotlib.
        limit: The number with the full colour; by default, the largest.
        digits: The decimals of the numbers in the cells; None leaves them out.
        hidden: (n, m), boolean; true for masked cells, which are hatched.
        title: Drawn above the columns.
    """
    numbers = np.atleast_2d(np.asarray(values, dtype=float))
    closed = ~np.isfinite(numbers)
    if hidden is not None:
        closed |= np.asarray(hidden, dtype=bool)
    filled = np.where(closed, 0.0, numbers)
    full = limit or float(np.abs(filled).max(initial=0)) or 1.0
    below = bool((filled < 0).any())
    colors = signed(color) if below else shades(color)
    low = -full if below else 0.0
    shade(axes, filled, colors, low, full)
    for (row, column), number in np.ndenumerate(filled):
        if closed[row, column]:
            _hatch(axes, row, column)
        elif digits is not None:
            text = f"{number:.{digits}f}".replace("-", "\u2212")
            share = float(np.interp(number, (low, full), (0, 1)))
            _write(axes, column, row, text, legible_on(colors(share)))
    _label(axes, numbers.shape, rows, columns)
    if title:
        axes.set_title(title, loc="center", pad=8)


def shade(
    axes: Axes,
    values: Numbers,
    colors: LinearSegmentedColormap,
    low: float = 0.0,
    high: float = 1.0,
) -> None:
    """Draw a matrix as coloured cells, the first row on top.

    Args:
        axes: Where to draw; the centres of cells have whole coordinates.
        values: (n, m).
        colors: From `shades` or `signed`.
        low: The number that gets the first of the colours.
        high: The number that gets the last of the colours.
    """
    numbers = np.asarray(values, dtype=float)
    height, width = numbers.shape
    # In pixels that are small against a cell, lest a browser blurs its edges.
    times = -(-PIXELS // max(height, width))
    axes.imshow(
        numbers.repeat(times, 0).repeat(times, 1),
        cmap=colors,
        vmin=low,
        vmax=high,
        aspect="auto",
        interpolation="none",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )


def _hatch(axes: Axes, row: int, column: int) -> None:
    """Mark a cell of a matrix as masked."""
    axes.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5),
            1,
            1,
            facecolor="#f3f4f6",
            edgecolor="#d1d5db",
            hatch="///",
            linewidth=0,
        )
    )


def _write(
    axes: Axes, x: float, y: float, text: str, color: str, size: float = SIZE
) -> None:
    """Write a text that is centred at a point."""
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color=color)


def _label(
    axes: Axes,
    shape: tuple[int, ...],
    rows: Sequence[str],
    columns: Sequence[str],
) -> None:
    """Label the rows and columns of a matrix, without ticks and spines.

    Raises:
        ValueError: There are labels, but not one for each row or column.
    """
    y = range(shape[0] if len(rows) else 0)
    x = range(shape[1] if len(columns) else 0)
    axes.set_xticks(x, [shown(text) for text in columns])
    axes.set_yticks(y, [shown(text) for text in rows])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def bars(
    axes: Axes,
    labels: Sequence[str],
    values: Numbers,
    *,
    color: str = "probability",
    form: Callable[[float], str] = "{:.1%}".format,
) -> None:
    """Draw a horizontal bar for each label, with its number at the end.

    Args:
        axes: Where to draw.
        labels: Tokens or other names, from top to bottom.
        values: (n,), a number for each label.
        color: A key of `COLORS`, or any colour of matplotlib.
        form: Formats a number.
    """
    numbers = np.asarray(values, dtype=float)
    places = np.arange(len(numbers))[::-1]
    axes.barh(places, numbers, color=COLORS.get(color, color), height=0.7)
    for place, number in zip(places, numbers, strict=True):
        axes.text(number, place, f" {form(float(number))}", va="center")
    axes.set_yticks(places, [shown(label) for label in labels])
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[["bottom"]].set_visible(False)
    axes.margins(x=0.18)


def box(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    color: str = "token",
    width: float = 0.9,
    height: float = 0.6,
    asked: bool = False,
    fontsize: float = SIZE,
) -> None:
    """Draw a rounded box with a text in it.

    Args:
        axes: Where to draw.
        x: The centre of the box, in data coordinates.
        y: The centre of the box, in data coordinates.
        text: The text; spaces are not made visible.
        color: A key of `COLORS`, or any colour of matplotlib.
        width: In data coordinates.
        height: In data coordinates.
        asked: Whether the model has yet to predict the token: then the box is
            dashed and white.
        fontsize: In points.
    """
    line = COLORS.get(color, color)
    tint = tuple(1 - 0.1 * (1 - part) for part in to_rgb(line))
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=PAPER if asked else tint,
            edgecolor=line,
            linestyle="--" if asked else "-",
            linewidth=1.2,
        )
    )
    _write(axes, x, y, text, INK, fontsize)


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    color: str = "position",
    width: float = 1.2,
    bend: float = 0.0,
) -> None:
    """Draw an arrow.

    Args:
        axes: Where to draw.
        start: The tail, in data coordinates.
        end: The head, in data coordinates.
        color: A key of `COLORS`, or any colour of matplotlib.
        width: The width of the line, in points.
        bend: The curvature of the arrow; 0 is straight.
    """
    axes.annotate(
        "",
        xy=end,
        xytext=start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": COLORS.get(color, color),
            "linewidth": width,
            "shrinkA": 0,
            "shrinkB": 0,
            "connectionstyle": f"arc3,rad={bend}",
        },
    )


def canvas(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Clear the axes of ticks and spines, for boxes and arrows.

    Args:
        axes: Where to draw.
        x: The limits of the horizontal axis.
        y: The limits of the vertical axis.
    """
    axes.set(xlim=x, ylim=y)
    axes.axis("off")

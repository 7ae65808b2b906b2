"""One visual language for every figure of the book.

The same colour and the same shape always mean the same thing. A token is a
blue rounded box, dashed where the model is asked for it and does not know it
yet. The residual stream, and every vector on it, is amber. A query is a
violet triangle, a key a teal diamond, a value a pink disc. Probabilities, and
whatever a softmax returns, are green; surprise is red; what is only
scaffolding, such as positions and masks, is grey.

Only this module and `training.metrics` need matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.patches import FancyBboxPatch, Rectangle

INK, PALE, PAPER = "#1f2937", "#9ca3af", "#ffffff"
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
MARKERS = {"query": ">", "key": "D", "value": "o"}

Numbers = npt.ArrayLike
"""A tensor, an array or a list of numbers."""


def use_style() -> None:
    """Make matplotlib draw as the book does."""
    plt.rcParams.update(
        {
            "figure.figsize": (5.2, 3.0),
            "figure.dpi": 144,
            "figure.facecolor": PAPER,
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.edgecolor": PALE,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=list(COLORS.values())),
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "lines.linewidth": 1.8,
            "grid.color": "#e5e7eb",
        }
    )


def shown(token: str) -> str:
    """Return a token's text with its spaces and line breaks made visible."""
    return token.replace(" ", "␣").replace("\n", "↵")


def shades(color: str) -> LinearSegmentedColormap:
    """Return a colormap from paper to a colour of `COLORS`, or any other."""
    return LinearSegmentedColormap.from_list(
        color, [PAPER, COLORS.get(color, color)]
    )


def signed(color: str) -> LinearSegmentedColormap:
    """Return the colormap of numbers around 0: slate, paper, a colour."""
    return LinearSegmentedColormap.from_list(
        f"signed {color}", ["#64748b", PAPER, COLORS.get(color, color)]
    )


def _ink_on(color: Sequence[float]) -> str:
    """Choose the text colour that can be read on a background."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in color[:3]
    )
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return INK if luminance > 0.2 else PAPER


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
    """Draw a matrix as coloured cells with its numbers in them.

    Args:
        axes: Where to draw.
        values: (n, m). Negative ones are slate.
        rows: What stands left of each row; spaces are made visible.
        columns: What stands above each column.
        color: A name of `COLORS`.
        limit: The number at which the colour is full; the largest by default.
        digits: Of the numbers in the cells; None writes none.
        hidden: (n, m) of bool, true for cells that a mask has closed.
        title: What stands above all.
    """
    numbers = np.atleast_2d(np.asarray(values, dtype=float))
    closed = np.zeros(numbers.shape, dtype=bool)
    if hidden is not None:
        closed = np.asarray(hidden, dtype=bool)
    closed = closed | ~np.isfinite(numbers)
    visible = numbers[~closed]
    below = visible.size > 0 and bool(visible.min() < 0)
    full = limit or float(np.abs(visible).max(initial=0)) or 1.0
    colormap = signed(color) if below else shades(color)
    low = -full if below else 0.0
    filled = np.where(closed, 0.0, numbers)
    axes.imshow(filled, cmap=colormap, vmin=low, vmax=full, aspect="auto")
    for (row, column), number in np.ndenumerate(filled):
        if closed[row, column]:
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(
                Rectangle(
                    corner,
                    1,
                    1,
                    facecolor="#f3f4f6",
                    edgecolor="#d1d5db",
                    hatch="///",
                    linewidth=0,
                )
            )
        elif digits is not None:
            share = (number - low) / (full - low)
            text = f"{number:.{digits}f}".replace("-", "\u2212")
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=9,
                color=_ink_on(colormap(min(max(share, 0.0), 1.0))),
            )
    axes.set_xticks(range(numbers.shape[1]) if len(columns) else [])
    axes.set_yticks(range(numbers.shape[0]) if len(rows) else [])
    if len(columns):
        axes.set_xticklabels([shown(text) for text in columns])
    if len(rows):
        axes.set_yticklabels([shown(text) for text in rows])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, loc="center", pad=8)


def bars(
    axes: Axes,
    labels: Sequence[str],
    values: Numbers,
    *,
    color: str = "probability",
    form: Callable[[float], str] = "{:.1%}".format,
) -> None:
    """Draw one horizontal bar for each label, with its number behind it.

    Args:
        axes: Where to draw.
        labels: Tokens or other names; the first one comes on top.
        values: One for each.
        color: A name of `COLORS`.
        form: How a number is written.
    """
    numbers = np.asarray(values, dtype=float)
    places = np.arange(len(numbers))[::-1]
    axes.barh(places, numbers, color=COLORS.get(color, color), height=0.7)
    for place, number in zip(places, numbers, strict=True):
        axes.text(
            number, place, f" {form(float(number))}", va="center", fontsize=9
        )
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
    fontsize: float = 9,
) -> None:
    """Draw a rounded box with a text in it, around (x, y).

    Args:
        axes: Where to draw, in data coordinates.
        x: Of the middle.
        y: Of the middle.
        text: What it says; spaces are not made visible here.
        color: A name of `COLORS`.
        width: In data coordinates.
        height: In data coordinates.
        asked: Dashed: what the model is asked for and does not know yet.
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
    axes.text(x, y, text, ha="center", va="center", fontsize=fontsize)


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    color: str = "position",
    width: float = 1.2,
    bend: float = 0.0,
) -> None:
    """Draw an arrow from one point to another.

    Args:
        axes: Where to draw, in data coordinates.
        start: Where it begins.
        end: Where it points.
        color: A name of `COLORS`.
        width: Of the line, in points.
        bend: How far it bows; 0 is straight.
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
    """Make the axes an empty sheet with these limits, for boxes and arrows."""
    axes.set(xlim=x, ylim=y)
    axes.axis("off")

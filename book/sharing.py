"""Draw the picture that previews of a link to the book show.

    python book/sharing.py

It is `book/_static/sharing.png`: the title, and what one head of the shipped
model attends to.
"""

from __future__ import annotations

from pathlib import Path

import torch
from address import PICTURE
from matplotlib.figure import Figure

import gpt2
from gpt2.evaluation.circuits import record_attention
from gpt2_book import drawing

TEXT = "Ella lost her red kite"
LAYER, HEAD = 1, 0
PLACE = Path(__file__).parent / PICTURE[0]
LINES = (
    (0.72, 54, "bold", "GPT-2"),
    (0.57, 54, "bold", "from scratch"),
    (0.36, 24, "normal", "Built piece by piece, in PyTorch,"),
    (0.28, 24, "normal", "with a model that runs in the page"),
)


def draw() -> Figure:
    """Return the figure."""
    model, tokenizer = gpt2.load("story")
    ids = tokenizer.encode(TEXT)
    weights = record_attention(model, torch.tensor([ids]))[LAYER, 0, HEAD]
    names = [drawing.shown(tokenizer.decode([number])) for number in ids]
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor=drawing.PAPER)
    for height, size, weight, text in LINES:
        figure.text(0.06, height, text, size=size, weight=weight)
    axes = figure.add_axes((0.62, 0.1, 0.34, 0.72))
    colors = drawing.shades(drawing.COLORS["probability"])
    axes.imshow(weights, cmap=colors, vmin=0, vmax=1)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=40, ha="left", size=18)
    axes.set_yticks(places, names, size=18)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    figure.set_layout_engine("none")
    return figure


if __name__ == "__main__":
    drawing.use_style()
    draw().savefig(PLACE)
    print(f"drawn: {PLACE}")

"""The real GPT-2 on the book's pages, where its weights are on this disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import gpt2
from gpt2.tokenizer.files import vocabulary_files
from gpt2.weights import hub
from gpt2.weights.formats import find_weights
from gpt2.weights.pins import HUB_PRESETS, check_pinned


class Real(NamedTuple):
    """GPT-2 124M, and where its files are."""

    folder: Path
    model: gpt2.GPT2
    """Without gradients, in eval mode."""
    tokenizer: gpt2.Tokenizer


def from_cache() -> Real | None:
    """Load GPT-2 124M from the Hugging Face cache, and download nothing.

    Returns:
        None if the cache lacks the weights or the tokenizer;
        `gpt2.load("gpt2")` fetches them.

    Raises:
        CheckpointError: A file in the cache differs from the published one.
        TokenizerError: The tokenizer in the cache is incomplete.
    """
    pin = HUB_PRESETS["gpt2"]
    folder = hub.cached(pin)
    weights = folder and find_weights(folder)
    if folder is None or weights is None:
        return None
    # Without these, loading would look for a vocabulary elsewhere.
    vocabulary = vocabulary_files(folder)
    if not vocabulary:
        return None
    check_pinned(pin, [folder / "config.json", weights, *vocabulary])
    # By its folder: by its name, loading may complete it from the network.
    model, tokenizer = gpt2.load(folder)
    return Real(folder, model.requires_grad_(False), tokenizer)


def later(what: str) -> str:
    """Say what a cell measures once the weights are in the cache."""
    return f'No weights yet. After gpt2.load("gpt2"): {what}.'


def table(rows: Iterable[tuple[str, str, str]]) -> str:
    """Lay out what was published beside what was measured.

    Args:
        rows: What it is, what was published, and what was measured.

    Returns:
        Lines of equal columns, after one with their titles.
    """
    lines = [("", "published", "measured"), *rows]
    first, second, third = (
        max(map(len, column)) for column in zip(*lines, strict=True)
    )
    return "\n".join(
        f"{name:<{first}}  {told:>{second}}  {found:>{third}}"
        for name, told, found in lines
    )

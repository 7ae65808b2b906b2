"""What only the book needs: its figures, and the checkers of its exercises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gpt2

if "GPT2Config" not in dir(gpt2):
    raise ImportError(
        f"{gpt2.__file__} belongs to another project named gpt2, not to this "
        "book: run `pip uninstall gpt2 gpt2-from-scratch`, then install "
        "gpt2-from-scratch again"
    )


DATA = Path(__file__).parent / "data"
"""What the notebooks read: results of long runs, and a tiny checkpoint."""


def live(figure: str, model: Any, tokenizer: Any, text: str = "") -> Any:
    """Show a live figure of the book for a model in memory.

    `gpt2_book.widget.live` says more; anywidget is loaded at the first call.

    Args:
        figure: Such as `next-token`, `heads` or `stream`.
        model: A `gpt2.GPT2`; for `training`, several, by their step.
        tokenizer: The model's.
        text: What the figure begins with.
    """
    from gpt2_book.widget import live

    return live(figure, model, tokenizer, text)

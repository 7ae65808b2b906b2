"""What only the book needs: its figures, and the checkers of its exercises."""

from __future__ import annotations

from typing import Any


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

"""What an error says in one line."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class's name."""
    return (str(error).splitlines() or [type(error).__name__])[0]

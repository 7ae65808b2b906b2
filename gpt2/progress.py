"""How far a long task has come, for those who want to show it.

The library itself shows nothing. A function that may take long opens a task,
and the command line, or a program of the user's, says how tasks are shown:

    with shown_by(show), task("Counting", 3, "sheep") as advance:
        advance(1)

Without `shown_by`, a task is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

Advance = Callable[[int], None]
"""Called with the number of units done since the last call."""
Show = Callable[[str, int | None, str], AbstractContextManager[Advance]]
"""Called with what `task` is called with, when a task begins."""

Item = TypeVar("Item")


def silent(what: str, total: int | None, unit: str) -> nullcontext[Advance]:
    """Show nothing."""
    return nullcontext(lambda count: None)


_show: ContextVar[Show] = ContextVar("show", default=silent)


@contextmanager
def shown_by(show: Show) -> Iterator[None]:
    """Let `show` show the tasks that begin within the `with` statement."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


def task(
    what: str, total: int | None = None, unit: str = ""
) -> AbstractContextManager[Advance]:
    """Begin a task, which lasts as long as the `with` statement.

    Args:
        what: What is being done, such as `Encoding the texts`.
        total: How many units there are to do; None if nobody knows.
        unit: What is counted, in the plural, or `B` for bytes.

    Returns:
        A context manager that gives a function to report progress with.
    """
    return _show.get()(what, total, unit)


def track(
    items: Iterable[Item], what: str, total: int, unit: str
) -> Iterator[Item]:
    """Yield items as a task: when the next is requested, one more is done."""
    with task(what, total, unit) as advance:
        for item in items:
            yield item
            advance(1)

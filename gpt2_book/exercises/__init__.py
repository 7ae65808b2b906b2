"""Exercises that check themselves: `check("the-name", your_answer)`.

Each chapter has a module with the checkers of its exercises. A checker knows
the mistakes that people make and says which one it sees. `checking` holds the
tools that checkers are built from.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
from typing import Any

import torch

from gpt2_book.exercises.checking import CHECKERS, NotYet

__all__ = ["Verdict", "check", "judge"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")  # fills CHECKERS


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of a check; a notebook shows it as a sentence."""

    name: str
    right: bool
    message: str

    def __bool__(self) -> bool:
        """Return whether the answer is right."""
        return self.right

    def __repr__(self) -> str:
        """Return the sentence that the reader sees."""
        return f"{self.name}: {self.message}"


class _Printed(Verdict):
    """A verdict that a notebook need not show, because it was printed."""

    def _ipython_display_(self) -> None:
        pass


def check(name: str, answer: Any) -> Verdict:
    """Check an answer to an exercise of the book, and print what is wrong.

    Args:
        name: The name of the exercise, as the book gives it.
        answer: Your function, class, model or number.

    Returns:
        A verdict, which is true if the answer is right.

    Raises:
        ValueError: No exercise has this name.
    """
    verdict = judge(name, answer)
    if verdict:
        return verdict
    # A notebook shows by itself only what the last line of a cell returns.
    print(verdict)  # noqa: T201
    return _Printed(*dataclasses.astuple(verdict))


def judge(name: str, answer: Any) -> Verdict:
    """Check an answer as `check` does, and print nothing.

    Args:
        name: The name of the exercise, as the book gives it.
        answer: The answer that somebody handed in.

    Returns:
        A verdict, which is true if the answer is right.

    Raises:
        ValueError: No exercise has this name.
    """
    if name not in CHECKERS:
        near = difflib.get_close_matches(name, CHECKERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no exercise named {name!r}{hint}")
    try:
        with torch.random.fork_rng(devices=[]):  # keep the reader's RNG state
            found = CHECKERS[name](answer)
    except NotYet as problem:
        stop = "" if str(problem).endswith("?") else "."
        return Verdict(name, False, f"not yet: {problem}{stop}")
    return Verdict(name, True, f"right{f': {found}' if found else ''}.")

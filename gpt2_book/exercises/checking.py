"""How an answer is checked: what a checker is made of.

A checker takes the reader's answer, tries it, and raises `NotYet` with a
sentence that says what is wrong. A wrong number alone helps nobody, so a
checker knows the mistakes that people make here: `same` compares an answer
with what each of them would give, and names the one that fits.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class NotYet(Exception):
    """An answer is not right yet; the message says why."""


Checker = Callable[[Any], str | None]
"""Takes an answer; raises `NotYet`, or may return what it found to be true."""

CHECKERS: dict[str, Checker] = {}
"""Every checker, by the name that `check` is called with."""


def exercise(name: str) -> Callable[[Checker], Checker]:
    """Register a checker under the name that the book calls it by."""

    def register(checker: Checker) -> Checker:
        assert name not in CHECKERS, f"two checkers for {name}"
        CHECKERS[name] = checker
        return checker

    return register


def act(answer: Any, *arguments: Any, **named: Any) -> Any:
    """Call the reader's function for what it does; it need not return.

    Args:
        answer: What the reader handed in; it should be callable.
        arguments: Handed on.
        named: Handed on.

    Returns:
        What it returned, or None.

    Raises:
        NotYet: It is no function, raises an error, or changes a tensor that
            it was given.
    """
    if not callable(answer):
        raise NotYet(f"a function is wanted here; got {describe(answer)}")
    before = copy.deepcopy((arguments, named))
    try:
        result = answer(*arguments, **named)
    except NotYet:
        raise
    except Exception as error:
        given = [describe(value) for value in arguments]
        given += [f"{key}={describe(value)}" for key, value in named.items()]
        raise NotYet(
            f"called with ({', '.join(given)}) it raises "
            f"{type(error).__name__}: {error}"
        ) from error
    old = [*before[0], *before[1].values()]
    for was, now in zip(old, [*arguments, *named.values()], strict=True):
        if isinstance(was, Tensor) and not torch.equal(was, now):
            raise NotYet(
                "it changes a tensor that it was given; work on a copy, "
                "or without `_` at the end of a method's name"
            )
    return result


def call(answer: Any, *arguments: Any, **named: Any) -> Any:
    """Call the reader's function for what it returns, as `act` does.

    Raises:
        NotYet: What `act` raises, or it returns nothing.
    """
    result = act(answer, *arguments, **named)
    if result is None:
        raise NotYet("it returns nothing; is the `return` missing?")
    return result


def same(
    came: Any,
    expected: Any,
    what: str = "the result",
    mistakes: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
) -> None:
    """Compare with what is expected, and with what known mistakes give.

    Args:
        came: A number, a tensor, or anything that `==` compares.
        expected: Of the same kind.
        what: The subject of the sentence that says what is wrong.
        mistakes: For each explanation, what a mistake would have given.
        tolerance: Absolute and relative, for numbers.

    Raises:
        NotYet: They differ.
    """
    if _close(came, expected, tolerance):
        return
    for explanation, wrong in (mistakes or {}).items():
        if not _close(wrong, expected, tolerance) and _close(
            came, wrong, tolerance
        ):
            raise NotYet(explanation)
    raise NotYet(f"{what} {_difference(came, expected, tolerance)}")


def describe(value: Any) -> str:
    """Say in few words what a value is."""
    if isinstance(value, Tensor):
        if value.numel() <= 4:
            return f"the tensor {value.tolist()}"
        kind = str(value.dtype).removeprefix("torch.")
        return f"a tensor {tuple(value.shape)} of {kind}"
    if inspect.isfunction(value) or inspect.isclass(value):
        return value.__name__
    if isinstance(value, nn.Module) or repr(value).startswith("<"):
        return f"a {type(value).__name__}"  # its repr says too much
    if isinstance(value, float) and len(repr(value)) > 8:
        return f"{value:.4g}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _close(came: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, Tensor):
        if not isinstance(came, Tensor) or came.shape != expected.shape:
            return False
        if (came.dtype == torch.bool) != (expected.dtype == torch.bool):
            return False
        return bool(
            torch.allclose(
                came.double(),
                expected.double(),
                tolerance,
                tolerance,
                equal_nan=True,
            )
        )
    if isinstance(expected, float):
        try:
            number = float(came)
        except (TypeError, ValueError):
            return False
        return math.isclose(
            number, expected, rel_tol=tolerance, abs_tol=tolerance
        )
    return bool(came == expected)


def _difference(came: Any, expected: Any, tolerance: float) -> str:
    if not isinstance(expected, Tensor):
        return f"is {describe(came)}; expected {describe(expected)}"
    if not isinstance(came, Tensor):
        return f"is {describe(came)}; a tensor is wanted"
    if came.shape != expected.shape:
        shape, wanted = tuple(came.shape), tuple(expected.shape)
        return f"has shape {shape}; expected {wanted}"
    boolean = torch.bool in (came.dtype, expected.dtype)
    if boolean and came.dtype != expected.dtype:
        return f"is {describe(came)}; its dtype should be {expected.dtype}"
    wrong = ~torch.isclose(
        came.double(), expected.double(), tolerance, tolerance, equal_nan=True
    )
    place = tuple(wrong.nonzero()[0].tolist())
    here, there = came[place].item(), expected[place].item()
    where = f"at [{', '.join(map(str, place))}] " if place else ""
    if boolean:
        numbers = f"{here} where {there} is expected"
    else:
        numbers = f"{here:.4g} where {there:.4g} is expected"
    count = f" ({int(wrong.sum())} of {wrong.numel()} entries are off)"
    return f"is {where}{numbers}{count if wrong.numel() > 1 else ''}"

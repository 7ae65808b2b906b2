"""The tools that checkers are built from.

A checker takes the reader's answer, tries it, and raises `NotYet` with a
sentence that says what is wrong. "Wrong" alone helps nobody, so a checker
lists the mistakes that people make: `same` compares the answer with the right
result, then with the result of each `Mistake`, and names the one that fits.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class NotYet(Exception):
    """The answer is not right yet; the message says why."""


class Mistake(NamedTuple):
    """A known mistake and the result that it leads to."""

    why: str
    """What the reader is told."""
    wrong: Any
    """The result of an answer with this mistake."""


Checker = Callable[[Any], str | None]
"""Takes an answer and raises `NotYet`, or returns a remark on a right one."""

CHECKERS: dict[str, Checker] = {}
"""All checkers, by the name of their exercise."""


def exercise(name: str) -> Callable[[Checker], Checker]:
    """Register a checker under the name of its exercise."""

    def register(checker: Checker) -> Checker:
        assert name not in CHECKERS, f"two checkers for {name}"
        CHECKERS[name] = checker
        return checker

    return register


def act(answer: Any, *arguments: Any, **named: Any) -> Any:
    """Call the reader's function for its effect; it may return None.

    Args:
        answer: What the reader handed in; should be callable.
        arguments: Passed to the function.
        named: Passed to the function by name.

    Returns:
        What the function returned.

    Raises:
        NotYet: The answer is not callable, raises an error, or modifies a
            tensor that it was given.
    """
    if not callable(answer):
        raise NotYet(f"expected a function; got {describe(answer)}")
    before = copy.deepcopy((arguments, named))
    try:
        result = answer(*arguments, **named)
    except NotYet:
        raise
    except Exception as error:
        given = [describe(value) for value in arguments]
        given += [f"{key}={describe(value)}" for key, value in named.items()]
        raise NotYet(
            f"called with ({', '.join(given)}), your function raises "
            f"{type(error).__name__}: {error}"
        ) from error
    old = [*before[0], *before[1].values()]
    for was, now in zip(old, [*arguments, *named.values()], strict=True):
        if isinstance(was, Tensor) and not torch.equal(was, now):
            raise NotYet(
                "your function modifies a tensor that it was given; work on a "
                "copy, or call the method without the trailing `_`"
            )
    return result


def call(answer: Any, *arguments: Any, **named: Any) -> Any:
    """Call the reader's function for its result.

    Args:
        answer: What the reader handed in; should be callable.
        arguments: Passed to the function.
        named: Passed to the function by name.

    Returns:
        What the function returned; not None.

    Raises:
        NotYet: As `act`, or the function returns None.
    """
    result = act(answer, *arguments, **named)
    if result is None:
        raise NotYet("your function returns None; is the `return` missing?")
    return result


def unpack(got: Any, n: int, what: str) -> Sequence[Any]:
    """Return a result that should have several parts.

    Args:
        got: What the reader's function returned.
        n: The number of parts.
        what: The parts, in words.

    Raises:
        NotYet: `got` is not a sequence of `n` parts.
    """
    if not isinstance(got, Sequence) or len(got) != n:
        raise NotYet(f"expected {what}; got {describe(got)}")
    return got


def whole_numbers(got: Any, what: str) -> list[int]:
    """Return a result that should be several whole numbers, in their order.

    Args:
        got: What the reader handed in.
        what: The numbers, in words.

    Raises:
        NotYet: `got` is not a series of whole numbers.
    """
    try:
        numbers = [int(one) for one in got]
        if all(
            one == number for one, number in zip(got, numbers, strict=True)
        ):
            return numbers
    except (TypeError, ValueError):
        pass
    raise NotYet(f"expected {what}; got {describe(got)}")


def same(
    got: Any,
    right: Any,
    what: str = "the result",
    mistakes: Iterable[Mistake] = (),
    tolerance: float = 1e-4,
) -> None:
    """Compare a result with the right one and with those of known mistakes.

    Args:
        got: A number, a tensor, or anything that `==` compares.
        right: The right result, of the same kind.
        what: The subject of the sentence that describes a difference.
        mistakes: Tried in turn; the first that leads to `got` is named.
        tolerance: Absolute and relative, for numbers and tensors.

    Raises:
        NotYet: `got` differs from `right`.
    """
    if _close(got, right, tolerance):
        return
    for why, wrong in mistakes:
        by_chance_right = _close(wrong, right, tolerance)
        if _close(got, wrong, tolerance) and not by_chance_right:
            raise NotYet(why)
    raise NotYet(f"{what} {_difference(got, right, tolerance)}")


def number(answer: Any) -> float:
    """Return a number that the reader hands in.

    Raises:
        NotYet: The answer is not a finite number.
    """
    try:
        value = math.nan if isinstance(answer, str | bool) else float(answer)
    except (TypeError, ValueError, RuntimeError):
        value = math.nan
    if not math.isfinite(value):
        raise NotYet(f"expected a number; got {describe(answer)}")
    return value


def describe(value: Any) -> str:
    """Describe a value in a few words."""
    if isinstance(value, Tensor):
        if value.numel() <= 4:
            return f"the tensor {value.tolist()}"
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a tensor {tuple(value.shape)} of {dtype}"
    if inspect.isfunction(value) or inspect.isclass(value):
        return value.__name__
    if isinstance(value, nn.Module) or repr(value).startswith("<"):
        return f"a {type(value).__name__}"  # its repr would be too long
    if isinstance(value, float) and len(repr(value)) > 8:
        return f"{value:.4g}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _close(got: Any, right: Any, tolerance: float) -> bool:
    if isinstance(right, Tensor):
        return (
            isinstance(got, Tensor)
            and got.shape == right.shape
            and (got.dtype == torch.bool) == (right.dtype == torch.bool)
            and not _off(got, right, tolerance).any()
        )
    if isinstance(right, float):
        try:
            return math.isclose(
                float(got), right, rel_tol=tolerance, abs_tol=tolerance
            )
        except (TypeError, ValueError):
            return False
    return bool(got == right)


def _off(got: Tensor, right: Tensor, tolerance: float) -> Tensor:
    """Return a boolean tensor that is true where two tensors differ."""
    return ~torch.isclose(
        got.double(), right.double(), tolerance, tolerance, equal_nan=True
    )


def _difference(got: Any, right: Any, tolerance: float) -> str:
    """Describe how a result differs from the right one."""
    if not isinstance(right, Tensor):
        return f"is {describe(got)}; expected {describe(right)}"
    if not isinstance(got, Tensor):
        return f"is {describe(got)}; expected a tensor"
    if got.shape != right.shape:
        shape, expected = tuple(got.shape), tuple(right.shape)
        return f"has shape {shape}; expected {expected}"
    boolean = torch.bool in (got.dtype, right.dtype)
    if boolean and got.dtype != right.dtype:
        return f"has dtype {got.dtype}; expected {right.dtype}"
    off = _off(got, right, tolerance)
    index = tuple(off.nonzero()[0].tolist())
    here, there = str(got[index].item()), str(right[index].item())
    if not boolean:
        here, there = f"{float(here):.4g}", f"{float(there):.4g}"
    if off.numel() == 1:
        return f"is {here}; expected {there}"
    where = ", ".join(map(str, index))
    count = f"{int(off.sum())} of {off.numel()} entries are off"
    return f"is {here} at [{where}]; expected {there} ({count})"

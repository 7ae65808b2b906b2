"""The numbers of `readability.py` keep their bounds."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from readability import (
    Number,
    Share,
    code_lines,
    has_tensor,
    numbers,
    public,
    raises,
)

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture(scope="module")
def table() -> list[Number]:
    return numbers()


def test_the_bounds_hold(table: list[Number]) -> None:
    assert [number for number in table if not number.holds()] == []


def test_contributing_names_the_same_numbers_and_bounds(
    table: list[Number],
) -> None:
    """Not the values, which every commit may change."""
    page = CONTRIBUTING.read_text(encoding="utf-8")
    for number in table:
        name, _, bound = number.cells()
        row = next(r for r in page.splitlines() if r.startswith(f"| {name} |"))
        assert row.endswith(f"| {bound} |")


def test_a_bound_can_be_broken() -> None:
    assert Number("lines", 65, 65).holds()
    assert not Number("lines", 66, 65).holds()
    assert Share("sources", 4, 4).holds()
    assert not Share("sources", 3, 4).holds()


def test_code_lines_by_hand() -> None:
    source = '''"""A module."""

# A comment.
def f(
    x,  # with a comment
):
    """A docstring

    of three lines.
    """
    text = """a string

    of three lines"""
    return text
'''
    assert code_lines(source) == {4, 5, 6, 11, 12, 13, 14}


def test_functions_are_told_apart() -> None:
    tree = ast.parse('''
def tensors(x: Tensor | None) -> int:
    """One."""
def fails() -> None:
    """Two."""
    raise ValueError
def again() -> None:
    """Three."""
    raise
def _private(x: Tensor) -> None:
    """Four."""
class A:
    """Five."""
    def made(self) -> Tensor:
        """Six."""
    def undocumented(self) -> Tensor:
        pass
''')
    found = {node.name: node for node in public(tree)}
    assert list(found) == ["tensors", "fails", "again", "A", "made"]
    assert [n for n in found if has_tensor(found[n])] == ["tensors", "made"]
    assert [n for n in found if raises(found[n])] == ["fails"]

"""Right answers in other forms than that of the solution.

A file of `exercise_answers` may list them under `ALSO_RIGHT`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gpt2_book.exercises import check

FOLDER = Path(__file__).parent / "exercise_answers"


def modules() -> Iterator[ModuleType]:
    """Load the files of answers."""
    for path in sorted(FOLDER.glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


FORMS = [
    (name, number, form)
    for module in modules()
    for name, forms in getattr(module, "ALSO_RIGHT", {}).items()
    for number, form in enumerate(forms)
]


@pytest.mark.parametrize(
    "name, number, form", FORMS, ids=[f"{f[0]}-{f[1]}" for f in FORMS]
)
def test_another_form(name: str, number: int, form: object) -> None:
    verdict = check(name, form)
    assert verdict, (number, verdict)


def test_there_are_forms() -> None:
    assert len({name for name, _, _ in FORMS}) > 5

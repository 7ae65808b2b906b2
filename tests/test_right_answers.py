"""Right answers of several forms: a checker asks for no particular one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt2_book.exercises import check


def forms() -> Iterator[tuple[str, object]]:
    """Yield the answers under `FORMS` in the files of `exercise_answers`."""
    folder = Path(__file__).parent / "exercise_answers"
    for path in sorted(folder.glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, answers in getattr(module, "FORMS", {}).items():
            for answer in answers:
                yield name, answer


FORMS = list(forms())


def test_there_are_some() -> None:
    assert len(FORMS) > 5


@pytest.mark.parametrize("name, answer", FORMS)
def test_another_right_answer(name: str, answer: object) -> None:
    verdict = check(name, answer)
    assert verdict, verdict

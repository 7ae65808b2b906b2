"""The page on other readers shows what `make interop` measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from book_rules import BOOK

FOLDER = Path(__file__).parents[1] / "interop"
SPEC = importlib.util.spec_from_file_location("tables", FOLDER / "tables.py")
assert SPEC is not None and SPEC.loader is not None
tables = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tables)
RESULTS = json.loads((FOLDER / "interop.json").read_text("utf-8"))
PAGE = (BOOK / "other-readers.md").read_text("utf-8")


def test_the_page_shows_the_measurements() -> None:
    assert tables.filled(PAGE, RESULTS) == PAGE, "run interop/tables.py"


def test_every_reader_was_given_everything() -> None:
    for part in ("models", "tokenizers"):
        entries = list(RESULTS[part].values())
        names = list(entries[0]["readers"])
        assert len(names) >= 6
        assert all(list(e["readers"]) == names for e in entries)


def test_pins_are_those_measured() -> None:
    text = (FOLDER / "requirements.txt").read_text("utf-8")
    pins = dict(
        line.split("#")[0].strip().split("==")
        for line in text.splitlines()
        if "==" in line
    )
    measured = RESULTS["versions"]
    shared = pins.keys() & measured.keys()
    assert len(shared) >= 5
    assert {n: pins[n] for n in shared} == {n: measured[n] for n in shared}


def answer(difference: float, from_ignored: float) -> dict[str, float]:
    return {"difference": difference, "from_ignored": from_ignored}


@pytest.mark.parametrize(
    ("came", "half", "cell"),
    [
        (answer(0.001, 3.0), False, "equal"),
        (answer(0.001, 0.0002), False, "**0.001 off**"),
        (answer(3.26, 0.0), False, "**3.3 off**"),
        (answer(0.05, 0.05), False, "**0.050 off**"),
        (answer(0.05, 0.05), True, "equal"),
        ({"refused": "ValueError: no"}, False, "refused"),
        ({"crashed": "SIGSEGV"}, False, "**crashed**"),
        ({"wrong": "logits that are not finite"}, False, "**logits that"),
    ],
)
def test_the_words_for_a_checkpoint(
    came: dict[str, Any], half: bool, cell: str
) -> None:
    assert tables.model_cell(came, {"half": half}).startswith(cell)


@pytest.mark.parametrize(
    ("came", "cell"),
    [
        ({"ids": [[1], [2, 3]]}, "equal"),
        ({"ids": [[1], [2]]}, "**1 differ**"),
        ({"ids": [[4], "ValueError: no"]}, "**1 differ**, 1 refused"),
        ({"refused": "ValueError: no"}, "refused"),
        ({"crashed": "no answer in 300 seconds"}, "**crashed**"),
    ],
)
def test_the_words_for_a_tokenizer(came: dict[str, Any], cell: str) -> None:
    assert tables.tokenizer_cell(came, [[1], [2, 3]]) == cell

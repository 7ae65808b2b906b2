"""Every checker, tried with the right answer and with wrong ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from IPython.core.formatters import DisplayFormatter

from gpt2.weights.loading import load_model
from gpt2_book.exercises import check, judge
from gpt2_book.exercises.ch16_a_museum_of_bugs import specimen
from gpt2_book.exercises.checking import (
    CHECKERS,
    Mistake,
    NotYet,
    act,
    call,
    describe,
    same,
    unpack,
)
from gpt2_book.exercises.specimens import FAULTS, broken_model, symptoms_of


def answers() -> Iterator[tuple[str, object, dict[str, object]]]:
    """Yield what the files of `exercise_answers` have for each exercise.

    Its name, the right answer, and wrong ones, each under some words that the
    checker's hint must contain.
    """
    folder = Path(__file__).parent / "exercise_answers"
    for path in sorted(folder.glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, (right, wrong) in module.ANSWERS.items():
            yield name, right, wrong


ANSWERS = list(answers())
WRONG = [
    (name, words, answer)
    for name, _, wrong in ANSWERS
    for words, answer in wrong.items()
]


def test_every_checker_has_answers() -> None:
    names = [name for name, _, _ in ANSWERS]
    assert sorted(names) == sorted(CHECKERS)
    assert len(names) > 0
    for name, _, wrong in ANSWERS:
        assert len(wrong) >= 3, f"{name} needs three wrong answers"


@pytest.mark.parametrize(
    "name, right", [a[:2] for a in ANSWERS], ids=[a[0] for a in ANSWERS]
)
def test_the_right_answer(name: str, right: object) -> None:
    verdict = check(name, right)
    assert verdict, verdict


@pytest.mark.parametrize(
    "name, words, answer", WRONG, ids=[f"{w[0]}: {w[1]}" for w in WRONG]
)
def test_a_wrong_answer_is_explained(
    name: str, words: str, answer: object
) -> None:
    verdict = check(name, answer)
    assert not verdict
    assert words in verdict.message, verdict


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="did you mean 'window-mask'"):
        check("windowmask", None)
    with pytest.raises(ValueError, match=r"no exercise named 'xyz'$"):
        check("xyz", None)


def test_a_wrong_answer_is_never_silent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    verdict = check("window-mask", 3)
    assert capsys.readouterr().out == f"{verdict}\n"
    assert judge("window-mask", 3).message == verdict.message
    assert not capsys.readouterr().out


def test_a_notebook_shows_a_verdict_once() -> None:
    """It was printed if it is wrong; if it is right, it is the result."""
    formatter = DisplayFormatter()
    (right,) = (a[1] for a in ANSWERS if a[0] == "window-mask")
    assert formatter.format(check("window-mask", 3)) == ({}, {})
    shown, _ = formatter.format(check("window-mask", right))
    assert shown["text/plain"].startswith("window-mask: right")


def test_a_right_answer_prints_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (right,) = (a[1] for a in ANSWERS if a[0] == "window-mask")
    assert check("window-mask", right)
    assert not capsys.readouterr().out


def test_a_verdict_reads_as_a_sentence() -> None:
    verdict = check("window-mask", 3)
    expected = "window-mask: not yet: expected a function; got 3."
    assert repr(verdict) == expected


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda x: None, "is the `return` missing"),
        (lambda x: x.add_(1), "modifies a tensor"),
        (lambda x: 1 / 0, "raises ZeroDivisionError: division by zero"),
        (lambda: 1, "raises TypeError"),
        ("text", "expected a function; got 'text'"),
    ],
)
def test_a_function_that_misbehaves(answer: Any, words: str) -> None:
    with pytest.raises(NotYet, match=words):
        call(answer, torch.zeros(2))


def test_a_function_may_return_nothing_where_it_acts() -> None:
    things: list[int] = []
    assert act(things.append, 3) is None
    assert things == [3]
    with pytest.raises(NotYet, match="modifies a tensor"):
        act(lambda x: x.add_(1), torch.zeros(2))


def test_a_check_leaves_the_dice_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    check("key-bias", lambda query, bias: torch.rand(2))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "value, words",
    [
        (torch.tensor([1, 2]), "the tensor [1, 2]"),
        (torch.zeros(2, 3), "a tensor (2, 3) of float32"),
        (torch.nn.Linear(2, 3), "a Linear"),
        (iter(()), "a tuple_iterator"),
        (describe, "describe"),
        (1 / 3, "0.3333"),
        (0.25, "0.25"),
        (list(range(50)), f"{str(list(range(50)))[:57]}..."),
    ],
)
def test_a_value_is_described(value: object, words: str) -> None:
    assert describe(value) == words


@pytest.mark.parametrize(
    "got, right, words",
    [
        (1.5, 2.0, "is 1.5; expected 2.0"),
        ("no", 2.0, "is 'no'; expected 2.0"),
        (3, 4, "is 3; expected 4"),
        (3.0, torch.zeros(2), "expected a tensor"),
        (torch.zeros(3), torch.zeros(2), r"has shape \(3,\); expected \(2,\)"),
        (
            torch.zeros(2),
            torch.tensor([0.0, 1.0]),
            r"is 0 at \[1\]; expected 1 \(1 of 2",
        ),
        (torch.tensor(2.0), torch.tensor(1.0), "is 2; expected 1"),
        (torch.zeros(2), torch.ones(2), "2 of 2 entries are off"),
        (
            torch.zeros(1),
            torch.zeros(1).bool(),
            "dtype torch.float32; expected torch.bool",
        ),
        (torch.zeros(1) / 0, torch.ones(1), "is nan; expected 1"),
    ],
)
def test_a_difference_is_described(got: Any, right: Any, words: str) -> None:
    with pytest.raises(NotYet, match=words):
        same(got, right)


@pytest.mark.parametrize("got", [1, [1], (1, 2, 3), torch.zeros(2)])
def test_a_result_without_its_parts(got: object) -> None:
    assert unpack([1, 2], 2, "two numbers") == [1, 2]
    with pytest.raises(NotYet, match=r"^expected two numbers; got "):
        unpack(got, 2, "two numbers")


def test_the_first_mistake_that_fits_is_named() -> None:
    mistakes = [Mistake(why, 2.0) for why in ("the first", "the second")]
    with pytest.raises(NotYet, match=r"^the first$"):
        same(2.0, 1.0, mistakes=[Mistake("another", 3.0), *mistakes])


def test_a_known_mistake_is_named() -> None:
    with pytest.raises(NotYet, match=r"^twice too large$"):
        same(2.0, 1.0, mistakes=[Mistake("twice too large", 2.0)])
    same(1.0, 1.0, mistakes=[Mistake("the same by chance", 1.0)])
    same(1.00001, 1.0)
    same(torch.tensor([1, 2]), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("fault", FAULTS)
def test_printing_a_broken_model_does_not_give_it_away(fault: str) -> None:
    assert repr(broken_model(fault)) == repr(load_model("story"))


def test_every_fault_has_symptoms_of_its_own() -> None:
    """Otherwise no measurement could contradict a wrong diagnosis."""
    seen = {symptoms_of(fault): fault for fault in FAULTS}
    assert len(seen) == len(FAULTS)
    assert not any(symptoms_of("healthy"))
    assert all(map(any, zip(*seen, strict=True)))  # each symptom is shown


@pytest.mark.parametrize("letter", ["F", "a", "", "AB"])
def test_a_box_that_does_not_exist(letter: str) -> None:
    with pytest.raises(ValueError, match=f"A, B, C, D, E; got '{letter}'"):
        specimen(letter)

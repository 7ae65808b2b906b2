"""The series of checkpoints in which an induction head forms."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import gpt2

FOLDER = Path(gpt2.__file__).parent / "pretrained" / "echo"
sys.path.insert(0, str(Path(__file__).parent.parent / "book"))

from series import MOMENTS, WORDS, measure, write_lists  # noqa: E402 (the path is set above)

SCORES = json.loads((FOLDER / "scores.json").read_text())


@pytest.mark.parametrize("step", [0, 1250, 3000])
def test_its_heads_do_what_is_written_down(step: int) -> None:
    measured = measure(FOLDER / f"step-{step:04d}")
    assert measured == pytest.approx(SCORES[str(step)], abs=0.01)


def test_an_induction_head_forms() -> None:
    assert [int(step) for step in SCORES] == list(MOMENTS)
    begin, end = SCORES["0"], SCORES["3000"]
    assert begin["induction"] < 0.05
    assert end["induction"] > 0.5
    assert end["previous_token"] > 2 * begin["previous_token"]
    # The first copy cannot be predicted; the second can.
    assert end["first_telling"] > 4.7
    assert end["second_telling"] < 0.2


def test_every_moment_is_there() -> None:
    for step in MOMENTS:
        model, tokenizer = gpt2.load(FOLDER / f"step-{step:04d}")
        assert model.config.n_layer == 2
        assert tokenizer.n_vocab == model.config.n_vocab


def test_lists_are_told_twice(tmp_path: Path) -> None:
    path = tmp_path / "lists.txt"
    write_lists(path, 20)
    told = path.read_text().split(".")
    assert told.pop() == ""
    assert told[::2] == told[1::2]
    assert {word for text in told for word in text.split()} <= {*WORDS}

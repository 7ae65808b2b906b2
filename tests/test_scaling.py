"""The runs of chapter 18: those that are stored, and how one is made."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import scaling
import torch

import gpt2
from gpt2 import GPT2Config, Tokenizer
from gpt2.model import next_token_loss

RUNS = json.loads(scaling.PLACE.read_text())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return gpt2.load("story")[1]


def test_every_run_is_stored_once() -> None:
    assert len(RUNS) == len(scaling.settings())
    assert all(scaling.is_done(one, RUNS) for one in scaling.settings())
    other = replace(scaling.settings()[0], seed=17)
    assert not scaling.is_done(other, RUNS)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"C={run['n_embd']}")
def test_stored_runs_are_of_their_size(run: dict[str, float]) -> None:
    expected = GPT2Config(
        n_vocab=1440,
        n_ctx=256,
        n_embd=int(run["n_embd"]),
        n_head=int(run["n_head"]),
        n_layer=int(run["n_layer"]),
    )
    with torch.device("meta"):
        model = gpt2.GPT2(expected)
    assert run["n_parameters"] == model.num_parameters()
    assert run["n_read"] == pytest.approx(run["n_tokens"], rel=0.01)
    assert 0 < run["gap"] < 1


def test_a_run_reads_its_budget_and_learns(tokenizer: Tokenizer) -> None:
    setting = scaling.Setting(16, 2, 2, 30_000, 0)
    model, n_read = scaling.train(setting, tokenizer)
    assert n_read == pytest.approx(30_000, rel=0.05)
    story = gpt2.stories.sample(random.Random(2**32))
    tokens = torch.tensor([tokenizer.encode(story)])
    loss = next_token_loss(model, tokens)
    assert float(loss) < 6.5  # an untrained one has ln 1440 = 7.3


def test_the_rate_falls_over_the_budget(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    monkeypatch.setattr(
        scaling, "set_learning_rate", lambda _, rate: rates.append(rate)
    )
    setting = scaling.Setting(16, 2, 2, 150 * scaling.TOKENS_PER_STEP, 0)
    scaling.train(setting, tokenizer)
    assert len(rates) == 150
    assert max(rates) == pytest.approx(1 / 16, rel=0.02)
    assert rates[-1] < 0.02 * max(rates)


def test_runs_are_saved_whole(tmp_path: Path) -> None:
    place = tmp_path / "scaling.json"
    scaling.save(RUNS[:2], place)
    assert json.loads(place.read_text()) == RUNS[:2]
    assert [*tmp_path.iterdir()] == [place]

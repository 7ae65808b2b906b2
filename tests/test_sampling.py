"""Sampling: each filter by hand, all together, and against transformers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from generating import GREEDY, assert_drawn
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gpt2.sampling import (
    Sampling,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    scale_by_temperature,
)

INF = math.inf


def kept(logits: Tensor) -> list[list[int]]:
    """Which tokens each row still allows."""
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


def test_repetition_penalty() -> None:
    logits = torch.tensor([[2.0, -2.0, 0.0, 1.0, -1.0]])
    tokens = torch.tensor([[0, 1, 1, 2]])
    expected = torch.tensor([[1.0, -4.0, 0.0, 1.0, -1.0]])
    assert torch.equal(penalize_repetition(logits, tokens, 2.0), expected)
    rewarded = torch.tensor([[4.0, -1.0, 0.0, 1.0, -1.0]])
    assert torch.equal(penalize_repetition(logits, tokens, 0.5), rewarded)
    assert torch.equal(penalize_repetition(logits, tokens, 1.0), logits)


def test_repetition_penalty_looks_at_each_row_and_not_at_padding() -> None:
    logits = torch.full((3, 3), 6.0)
    tokens = torch.tensor([[0, 0, 2], [0, 1, 2], [0, 0, 0]])
    real = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 1, 1]])
    expected = torch.tensor([[6.0, 6, 2], [6, 2, 2], [2, 6, 6]])
    for mask in (real, real.bool()):
        found = penalize_repetition(logits, tokens, 3.0, mask)
        assert torch.equal(found, expected)
    found = penalize_repetition(logits, tokens.int(), 3.0, real)
    assert torch.equal(found, expected)


def test_temperature() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    cold = scale_by_temperature(logits, 0.5).softmax(-1)  # squares
    torch.testing.assert_close(cold, torch.tensor([[4.0, 1, 1]]) / 6)
    hot = scale_by_temperature(logits, 2.0).softmax(-1)  # roots
    roots = torch.tensor([[2.0, 1, 1]]).sqrt()
    torch.testing.assert_close(hot, roots / roots.sum())


def test_top_k() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0], [5.0, 6.0, 7.0, 8.0]])
    expected = torch.tensor([[-INF, 3.0, -INF, 2.0], [-INF, -INF, 7.0, 8.0]])
    assert torch.equal(keep_top_k(logits, 2), expected)
    assert kept(keep_top_k(logits, 1)) == [[1], [3]]
    for k in (4, 5, 1000):  # all there are
        assert torch.equal(keep_top_k(logits, k), logits)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_keeps_exactly_k_where_logits_are_equal(k: int) -> None:
    assert len(kept(keep_top_k(torch.zeros(1, 4), k))[0]) == k


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (1e-9, [1]),  # there is always one
        (0.49, [1]),
        (0.51, [1, 3]),  # the one that crosses the line is in
        (0.79, [1, 3]),
        (0.81, [0, 1, 3]),
        (0.94, [0, 1, 3]),
        (0.96, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_top_p(p: float, expected: list[int]) -> None:
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()
    found = keep_top_p(logits, p)
    assert kept(found) == [expected]
    assert torch.equal(found[0, expected], logits[0, expected])


def test_top_p_stops_at_the_line() -> None:
    """Four quarters: two of them are exactly a half."""
    logits = torch.zeros(1, 4)
    assert kept(keep_top_p(logits, 0.5)) == [[0, 1]]
    assert kept(keep_top_p(logits, 0.501)) == [[0, 1, 2]]


def test_top_p_1_keeps_everything_though_the_sum_is_rounded() -> None:
    """The sum of the first tokens is 1 already, as far as float32 can see."""
    logits = torch.linspace(0, -40, 50_000)[None]
    assert len(kept(keep_top_p(logits, 1 - 1e-9))[0]) < 50_000
    assert torch.equal(keep_top_p(logits, 1.0), logits)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.05, [0, 1, 2, 3]),
        (0.11, [0, 1, 3]),  # at least 0.055
        (0.31, [1, 3]),  # 0.155
        (0.59, [1, 3]),
        (0.61, [1]),
        (1.0, [1]),
    ],
)
def test_min_p(p: float, expected: list[int]) -> None:
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()
    found = keep_min_p(logits, p)
    assert kept(found) == [expected]
    assert torch.equal(found[0, expected], logits[0, expected])


def test_min_p_1_keeps_all_of_the_likeliest() -> None:
    assert kept(keep_min_p(torch.tensor([[2.0, 1, 2]]), 1.0)) == [[0, 2]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        # Squared and normed 0.53, 0.30, 0.13, 0.03.
        ({"temperature": 0.5, "top_p": 0.5}, [0]),
        ({"temperature": 0.5, "min_p": 0.3}, [0, 1]),
        ({"top_p": 0.5}, [0, 1]),
        ({"min_p": 0.3}, [0, 1, 2]),
        # Of two, the first has 4/7.
        ({"top_k": 2, "top_p": 0.5}, [0]),
        ({"top_k": 3, "min_p": 0.6}, [0, 1]),
        ({"top_k": 3, "top_p": 0.99}, [0, 1, 2]),
        # Token 0 has come: its probability is now about 0.16, of the rest.
        ({"repetition_penalty": 2.0, "top_k": 2}, [1, 2]),
        ({"repetition_penalty": 2.0, "temperature": 0}, [1]),
        ({"temperature": 0, "top_k": 3}, [0]),
        ({"top_k": 5, "top_p": 1.0, "min_p": 1e-9}, [0, 1, 2, 3]),
    ],
)
def test_filters_in_their_order(
    settings: dict[str, Any], expected: list[int]
) -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    found = Sampling(**settings).filter(logits, torch.tensor([[0, 0]]))
    assert kept(found) == [expected]


def test_filters_compute_in_float32() -> None:
    logits = torch.randn(2, 9).bfloat16()
    found = Sampling(temperature=0.7).filter(logits, torch.zeros(2, 1).long())
    assert found.dtype == torch.float32
    expected = (logits.float() / 0.7).softmax(-1)
    torch.testing.assert_close(found.softmax(-1), expected)


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


range_of_settings = st.floats(1e-30, 1e30) | st.sampled_from([1e-30, 1e30])


shares = st.none() | st.floats(1e-30, 1) | st.sampled_from([1e-30, 1.0])


LARGE = torch.finfo(torch.float32).max


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    logits=st.lists(numbers | st.just(-INF), min_size=1, max_size=6).filter(
        lambda row: max(row) > -INF
    ),
    n_before=st.integers(1, 6),
    temperature=st.just(0.0) | range_of_settings,
    repetition_penalty=range_of_settings,
    top_k=st.none() | st.integers(1, 10**20),
    top_p=shares,
    min_p=shares,
)
@example([-LARGE, LARGE], 1, 1e30, 1.0, None, None, None)
@example([-5.0, -6.0], 2, 1.0, 1e30, None, 0.9, None)
@example([-LARGE, -LARGE, -INF], 3, 1e-30, 1e30, None, None, 1e-30)
@example([LARGE, 1.0], 2, 1.0, 1e-30, None, 1e-30, 1.0)
@example([0.0, -INF], 2, 1e30, 1e30, 1, None, None)
def test_every_setting_gives_a_distribution(
    logits: list[float],
    n_before: int,
    temperature: float,
    repetition_penalty: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
) -> None:
    row = torch.tensor([logits])
    before = torch.arange(min(n_before, len(logits)))[None]
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    probabilities = sampling.filter(row, before).softmax(-1)
    assert float(probabilities.sum()) == pytest.approx(1)
    assert (probabilities[row == -INF] == 0).all()
    drawn = sampling.choose(row, before)
    assert probabilities[0, drawn] > 0
    if temperature == 0:
        assert probabilities[0, drawn] == 1


def test_greedy_takes_the_first_of_equals() -> None:
    logits = torch.tensor([[0.0, 2, 1, 2], [3, 3, 3, 3]])
    before = torch.zeros(2, 1).long()
    assert GREEDY.choose(logits, before).tolist() == [1, 0]
    found = GREEDY.filter(logits, before).softmax(-1)
    assert found.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


def test_the_penalty_stays_within_the_numbers() -> None:
    """What would be infinite is the largest number; what is, stays so."""
    logits = torch.tensor([[LARGE, -LARGE, -INF, LARGE]])
    tokens = torch.tensor([[0, 1, 2]])
    found = penalize_repetition(logits, tokens, 1e-30)
    expected = torch.tensor([[LARGE, -LARGE * 1e-30, -INF, LARGE]])
    torch.testing.assert_close(found, expected)
    found = penalize_repetition(logits, tokens, 1e30)
    expected = torch.tensor([[LARGE / 1e30, -LARGE, -INF, LARGE]])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
def test_logits_that_are_no_numbers(bad: float) -> None:
    """One bad row is enough, and greedy decoding refuses it too."""
    row = [bad] * 2 if bad == -INF else [0.0, bad]
    logits = torch.tensor([[0.0, 0.0], row])
    for settings in (Sampling(), GREEDY, Sampling(top_k=1)):
        for way in (settings.filter, settings.choose):
            with pytest.raises(RuntimeError, match="not all finite"):
                way(logits, torch.zeros(2, 1).long())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"temperature": 1e-6}, [1, 0, 0, 0]),
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_k": 9}, [0.4, 0.3, 0.2, 0.1]),
        ({"top_p": 0.75}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"min_p": 0.6}, [4 / 7, 3 / 7, 0, 0]),
        ({"temperature": 0.5, "top_p": 0.8}, [16 / 25, 9 / 25, 0, 0]),
        # ln 0.3 is doubled, so that 0.09 is left of it.
        (
            {"repetition_penalty": 2.0},
            [0.4 / 0.79, 0.09 / 0.79, 0.2 / 0.79, 0.1 / 0.79],
        ),
        # And here halved, which leaves its root.
        (
            {"repetition_penalty": 0.5},
            [x / (0.7 + 0.3**0.5) for x in (0.4, 0.3**0.5, 0.2, 0.1)],
        ),
    ],
)
def test_draws_follow_the_distribution(
    settings: dict[str, Any], expected: list[float]
) -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log().expand(20_000, 4)
    before = torch.ones(20_000, 1).long()
    drawn = Sampling(**settings).choose(logits, before)
    assert drawn.shape == (20_000,)
    assert drawn.dtype == torch.int64
    counts = drawn.bincount(minlength=4)
    assert_drawn(counts, torch.tensor(expected))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -0.1},
        {"temperature": INF},
        {"temperature": math.nan},
        {"temperature": 1e-31},
        {"temperature": 5e-324},
        {"temperature": 1e31},
        {"top_k": 0},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1e-300},
        {"top_p": math.nan},
        {"top_p": 1.5},
        {"top_p": -0.5},
        {"min_p": 0},
        {"min_p": 1.01},
        {"min_p": 5e-324},
        {"repetition_penalty": 0},
        {"repetition_penalty": -2.0},
        {"repetition_penalty": INF},
        {"repetition_penalty": 1e-31},
        {"repetition_penalty": 1e39},
    ],
    ids=str,
)
def test_bad_settings(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    message = rf"{name} must be .*; got {re.escape(str(value))}$"
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)


def test_an_unknown_setting() -> None:
    with pytest.raises(TypeError, match="topk"):
        # A slip of the pen, which the type checker would find as well.
        Sampling(topk=5)  # type: ignore[call-arg]


def test_settings_do_not_change() -> None:
    """So one object serves as the default of every call."""
    with pytest.raises(FrozenInstanceError):
        # The type checker forbids it already; here it is done all the same.
        Sampling().top_k = 5  # type: ignore[misc]
    assert Sampling(0.5, top_k=3) == Sampling(temperature=0.5, top_k=3)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        *(
            (
                lambda x, tokens, p=p: penalize_repetition(x, tokens, p),
                RepetitionPenaltyLogitsProcessor(p),
            )
            for p in (0.7, 1.3)
        ),
        *(
            (lambda x, _, k=k: keep_top_k(x, k), TopKLogitsWarper(k))
            for k in (1, 7, 50, 99)
        ),
        *(
            (lambda x, _, p=p: keep_top_p(x, p), TopPLogitsWarper(p))
            for p in (0.01, 0.5, 0.9, 0.999, 1.0)
        ),
        *(
            (lambda x, _, p=p: keep_min_p(x, p), MinPLogitsWarper(p))
            for p in (0.01, 0.1, 0.5, 1.0)
        ),
    ],
)
def test_filters_equal_those_of_transformers(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], rows: int
) -> None:
    logits = 3 * torch.randn(rows, 50)
    tokens = torch.randint(50, (rows, 20))
    expected = theirs(tokens, logits.clone())
    assert torch.equal(ours(logits, tokens), expected)


@pytest.mark.parametrize("temperature", [0.3, 1.9])
def test_the_temperature_is_that_of_transformers(temperature: float) -> None:
    logits = 3 * torch.randn(4, 50)
    expected = TemperatureLogitsWarper(temperature)(None, logits.clone())
    found = scale_by_temperature(logits, temperature)
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1))

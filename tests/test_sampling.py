"""Sampling: each filter by hand, and what comes out of many draws.

Where a distribution must be known, the model is a `Chain`, whose logits stand
in a table; where positions, padding or the cache matter, it is a tiny GPT-2.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    GPT2Config as TheirConfig,
)
from transformers import (
    GPT2LMHeadModel,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gpt2.config import GPT2Config
from gpt2.model import GPT2, last_tokens
from gpt2.sampling import (
    Sampling,
    beam_search,
    generate,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    scale_by_temperature,
    stream,
    without_dropout,
)

INF = math.inf
GREEDY: dict[str, Any] = {"temperature": 0}


class Chain(nn.Module):
    """A model whose next token depends on the last one alone.

    Row t of `probabilities` says what follows token t.
    """

    def __init__(self, probabilities: Any, n_ctx: int = 64) -> None:
        super().__init__()
        self.logits = torch.tensor(probabilities).log()
        self.config = GPT2Config(n_vocab=len(self.logits), n_ctx=n_ctx)

    def new_cache(self, batch_size: int, n_positions: int) -> Any:
        return SimpleNamespace(select=lambda rows: None)

    def forward(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        rows = torch.arange(len(tokens))
        return self.logits[tokens[rows, last_tokens(tokens, attention_mask)]]


def padded(prompts: list[Tensor], side: str, fill: int = 0) -> Any:
    """Prompts of different lengths as one batch: (tokens, attention_mask)."""
    tokens = nn.utils.rnn.pad_sequence(
        prompts, batch_first=True, padding_value=fill, padding_side=side
    )
    real = nn.utils.rnn.pad_sequence(
        [torch.ones_like(prompt) for prompt in prompts],
        batch_first=True,
        padding_side=side,
    )
    return tokens, real


both_sides = pytest.mark.parametrize("side", ["left", "right"])


@pytest.fixture
def model(model: GPT2) -> GPT2:
    """The tiny model, in which positions matter more.

    Otherwise it would say the same token again and again.
    """
    with torch.no_grad():
        model.wpe.weight.add_(torch.randn_like(model.wpe.weight))
    return model


@pytest.fixture
def prompts(tiny: GPT2Config) -> list[Tensor]:
    return [torch.randint(tiny.n_vocab, (n,)) for n in (1, 4, 7)]


def kept(logits: Tensor) -> list[list[int]]:
    """Which tokens each row still allows."""
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


def spoil(model: GPT2) -> GPT2:
    """Give a model so much dropout that no result survives it."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    return model.train()


# The filters, by hand.


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


# The filters together.


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


# Any settings that are allowed, and any finite logits.

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


@pytest.mark.parametrize("temperature", [1e-30, 1e-20, 1e-6])
def test_a_tiny_temperature_is_greedy(
    model: GPT2, tokens: Tensor, temperature: float
) -> None:
    expected = generate(model, tokens, 9, **GREEDY)
    for more in ({}, {"top_p": 1e-30}, {"min_p": 1e-30}, {"top_k": 5}):
        found = generate(
            model, tokens, 9, temperature=temperature, seed=0, **more
        )
        assert torch.equal(found, expected)


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
    """Of half the numbers nothing is drawn either; not even greedily."""
    chain = Chain([[0.5, 0.5]] * 2)
    chain.logits[1, :] = torch.tensor([0.0, bad] if bad != -INF else [bad] * 2)
    for settings in ({}, GREEDY, {"top_k": 1}):
        with pytest.raises(RuntimeError, match="not all finite numbers"):
            generate(chain, torch.tensor([[1]]), 1, **settings)
    with pytest.raises(RuntimeError, match="not all finite numbers"):
        beam_search(chain, torch.tensor([[1]]), 1)


def assert_drawn(counts: Tensor, probabilities: Tensor) -> None:
    """Each count lies within five standard deviations of what it should be.

    What has no probability must never come.
    """
    expected = counts.sum() * probabilities
    deviation = (expected * (1 - probabilities)).sqrt()
    assert ((counts - expected).abs() <= 5 * deviation).all(), (
        counts,
        expected,
    )


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
    chain = Chain([[0.4, 0.3, 0.2, 0.1]] * 4)
    prompt = torch.tensor([[1]])
    drawn = generate(chain, prompt, 1, n_samples=20_000, seed=0, **settings)
    counts = drawn[:, 1].bincount(minlength=4)
    assert_drawn(counts, torch.tensor(expected))


def test_several_draws_follow_the_joint_distribution() -> None:
    steps = [[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.7, 0.2, 0.1]]
    prompt = torch.tensor([[2]])
    drawn = generate(Chain(steps), prompt, 3, n_samples=20_000, seed=0)
    codes = drawn[:, 1] * 9 + drawn[:, 2] * 3 + drawn[:, 3]
    expected = [
        steps[2][a] * steps[a][b] * steps[b][c]
        for a, b, c in product(range(3), repeat=3)
    ]
    assert_drawn(codes.bincount(minlength=27), torch.tensor(expected))


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
        {"max_new_tokens": -1},
        {"n_samples": 0},
        {"seed": -1},
        {"seed": 2**32},
        {"seed": 2**32 + 1},  # which to PyTorch's generator is 1
    ],
    ids=str,
)
def test_bad_settings(
    model: GPT2, tokens: Tensor, settings: dict[str, Any]
) -> None:
    ((name, value),) = settings.items()
    message = rf"{name} must be .* got {re.escape(str(value))}"
    with pytest.raises(ValueError, match=message):
        generate(model, tokens, **settings)
    with pytest.raises(ValueError, match=name):  # at once
        stream(model, tokens, **settings)


def test_a_seed_is_a_whole_number(model: GPT2, tokens: Tensor) -> None:
    with pytest.raises(TypeError):
        stream(model, tokens, seed=1.5)  # type: ignore[arg-type]


def test_an_unknown_setting(model: GPT2, tokens: Tensor) -> None:
    with pytest.raises(TypeError, match="topk"):
        generate(model, tokens, topk=5)


# One token after another.


def slowly(model: GPT2, prompt: Tensor, n_new: int, penalty: float) -> Tensor:
    """Greedy, without cache, batch or padding: (T + n_new,)."""
    for _ in range(n_new):
        logits = model(prompt[None])[0, -1]
        for token in set(prompt.tolist()):
            value = logits[token]
            logits[token] = value * penalty if value < 0 else value / penalty
        prompt = torch.cat([prompt, logits.argmax()[None]])
    return prompt


@both_sides
@pytest.mark.parametrize("penalty", [1.0, 1.7])
@torch.no_grad()
def test_each_prompt_of_a_batch_gets_what_it_gets_alone(
    model: GPT2, prompts: list[Tensor], side: str, penalty: float
) -> None:
    alone = [slowly(model, prompt, 9, penalty)[-9:] for prompt in prompts]
    assert all(len(row.unique()) > 2 for row in alone)  # something to compare
    settings = GREEDY | {"repetition_penalty": penalty}
    for prompt, expected in zip(prompts, alone, strict=True):
        found = generate(model, prompt[None], 9, **settings)[0]
        assert torch.equal(found, torch.cat([prompt, expected]))
    # A padding that would be penalised, were it looked at.
    tokens, real = padded(prompts, side, fill=int(alone[0][0]))
    for mask in (real, real.bool(), real.float()):
        found = generate(model, tokens, 9, attention_mask=mask, **settings)
        assert torch.equal(found[:, :7], tokens)
        assert torch.equal(found[:, 7:], torch.stack(alone))


@both_sides
def test_several_samples_of_each_prompt(
    model: GPT2, prompts: list[Tensor], side: str
) -> None:
    tokens, real = padded(prompts, side)
    options: dict[str, Any] = {"attention_mask": real, "n_samples": 4}
    found = generate(model, tokens, 6, **options, **GREEDY)
    once = generate(model, tokens, 6, attention_mask=real, **GREEDY)
    assert torch.equal(found, once.repeat_interleave(4, dim=0))
    drawn = generate(model, tokens, 6, **options, seed=0)
    assert torch.equal(drawn[:, :7], tokens.repeat_interleave(4, dim=0))
    assert len(drawn[:4].unique(dim=0)) == 4  # four different ones
    # Each is judged after its own prompt and its own past.
    again = generate(
        model,
        tokens.repeat_interleave(4, dim=0),
        6,
        attention_mask=real.repeat_interleave(4, dim=0),
        seed=0,
    )
    assert torch.equal(drawn, again)


def test_stop_tokens() -> None:
    """0, 1, 2, 3, 4, 0 and so on, from wherever it begins."""
    chain = Chain(torch.eye(5).roll(1, 1).tolist())
    prompts = torch.tensor([[0, 1], [3, 3], [2, 3]])
    found = generate(chain, prompts, 6, stop_tokens=[4, 2])
    assert found.tolist() == [[0, 1, 2], [3, 3, 4], [2, 3, 4]]
    found = generate(chain, prompts, 6, stop_tokens=[2, 0])
    assert found.tolist() == [
        [0, 1, 2, 2],  # filled up
        [3, 3, 4, 0],
        [2, 3, 4, 0],
    ]
    # One in the prompt stops nothing.
    found = generate(chain, torch.tensor([[2]]), 6, stop_tokens=(2,))
    assert found.tolist() == [[2, 3, 4, 0, 1, 2]]
    assert generate(chain, prompts, 6).shape == (3, 8)


@both_sides
def test_stopped_rows_do_not_disturb_the_others(
    model: GPT2, prompts: list[Tensor], side: str
) -> None:
    tokens, real = padded(prompts, side)
    free = generate(model, tokens, 9, attention_mask=real, **GREEDY)[:, 7:]
    stop = int(free[1, 0])
    # One row ends later than at once, and one never.
    assert stop != free[0, 0] and stop in free[0] and stop not in free[2]
    found = generate(
        model, tokens, 9, attention_mask=real, stop_tokens=[stop], **GREEDY
    )[:, 7:]
    for row, whole in zip(found.tolist(), free.tolist(), strict=True):
        end = whole.index(stop) if stop in whole else len(whole)
        assert row == whole[:end] + [stop] * (len(whole) - end)


class Log:
    """What happens while a model generates, in its order."""

    def __init__(self, model: nn.Module) -> None:
        self.events: list[Any] = []
        model.register_forward_pre_hook(
            lambda module, inputs: self.events.append(tuple(inputs[0].shape))
        )


def test_tokens_come_before_the_next_is_computed(
    model: GPT2, tokens: Tensor
) -> None:
    """Every position is computed once: the prompt, and then one by one."""
    expected = generate(model, tokens, 3, seed=0)
    log = Log(model)
    for drawn in stream(model, tokens, 3, seed=0):
        tokens = torch.cat([tokens, drawn[:, None]], dim=1)
        log.events.append("drawn")
    assert torch.equal(tokens, expected)
    assert log.events == [(2, 5), "drawn", (2, 1), "drawn", (2, 1), "drawn"]


def test_the_prompt_is_read_once_for_all_samples(
    model: GPT2, tokens: Tensor
) -> None:
    log = Log(model)
    generate(model, tokens, 3, n_samples=7)
    assert log.events == [(2, 5), (14, 1), (14, 1)]


# The same again.


def test_seeds(model: GPT2, tokens: Tensor) -> None:
    def drawn(seed: int | torch.Generator | None) -> list[list[int]]:
        return generate(model, tokens, 9, seed=seed).tolist()

    before = torch.get_rng_state()
    assert drawn(7) == drawn(7) != drawn(8)
    generator = torch.Generator().manual_seed(7)
    first, second = drawn(generator), drawn(generator)
    assert first == drawn(7) != second  # a generator goes on
    generator.manual_seed(7)
    assert [drawn(generator), drawn(generator)] == [first, second]
    assert drawn(0) == drawn(0)
    assert drawn(2**32 - 1) == drawn(2**32 - 1) != drawn(0)
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's touched

    torch.manual_seed(3)
    one, other = drawn(None), drawn(None)
    torch.manual_seed(3)
    assert [drawn(None), drawn(None)] == [one, other]
    assert one != other


class Shared:
    """A model with much dropout in training mode, which others use too."""

    def __init__(self, model: GPT2) -> None:
        self.model = spoil(model)
        model.h[1].eval()  # half of it, as one who fine-tunes may have it
        self.modes = [module.training for module in model.modules()]

    def is_as_it_was(self) -> bool:
        return self.modes == [m.training for m in self.model.modules()]


def test_dropout_is_off_and_the_model_as_it_was(
    model: GPT2, tokens: Tensor
) -> None:
    expected = generate(model, tokens, 9, **GREEDY)
    shared = Shared(model)
    assert torch.equal(generate(model, tokens, 9, **GREEDY), expected)
    assert torch.equal(beam_search(model, tokens, 9, n_beams=1)[0], expected)
    steps = stream(model, tokens, 9, **GREEDY)
    for drawn, right in zip(steps, expected[:, 5:].T, strict=True):
        assert torch.equal(drawn, right)
        assert shared.is_as_it_was()  # while it is half read, too
        assert not torch.equal(model(tokens), model(tokens))
    with pytest.raises(ValueError, match="attention_mask"):
        generate(model, tokens, attention_mask=torch.ones(2, 4))

    def interrupt(module: nn.Module, inputs: Any) -> None:
        raise KeyboardInterrupt

    handle = model.h[1].register_forward_pre_hook(interrupt)
    for run in (generate, beam_search):
        with pytest.raises(KeyboardInterrupt):
            run(model, tokens)
        assert shared.is_as_it_was()
    handle.remove()


def test_streams_side_by_side_have_no_dropout(
    model: GPT2, tokens: Tensor
) -> None:
    """The first is dropped while the second is half read."""
    expected = generate(model, tokens, 9, **GREEDY)
    shared = Shared(model)
    first, second = (stream(model, tokens, 9, **GREEDY) for _ in range(2))
    found = [tokens, next(first)[:, None], next(second)[:, None]]
    assert torch.equal(found[1], found.pop())
    first.close()
    found += [drawn[:, None] for drawn in second]
    assert torch.equal(torch.cat(found, dim=1), expected)
    assert shared.is_as_it_was()


@pytest.mark.parametrize("outer", ["begins first", "ends last"])
def test_threads_have_no_dropout(
    model: GPT2, tokens: Tensor, outer: str
) -> None:
    """One thread generates while another is in the middle of a layer.

    The other has begun before it, or else begins during its first step.
    """
    expected = generate(model, tokens, 9, **GREEDY)
    shared = Shared(model)
    inside, go_on = threading.Event(), threading.Event()
    found: list[Tensor] = []

    def write() -> None:
        found.append(generate(model, tokens, 9, **GREEDY))

    other = threading.Thread(target=write)

    def pause(module: nn.Module, inputs: Any) -> None:
        if threading.current_thread() is other and not inside.is_set():
            inside.set()
            assert go_on.wait(60)

    model.h[1].register_forward_pre_hook(pause)
    steps = stream(model, tokens, 9, **GREEDY)
    if outer == "ends last":
        next(steps)
    other.start()
    assert inside.wait(60)
    if outer == "begins first":
        next(steps)
    rest = list(steps)
    go_on.set()
    other.join()
    assert torch.equal(found[0], expected)
    assert torch.equal(torch.stack(rest, dim=1), expected[:, 6:])
    assert shared.is_as_it_was()


def test_another_thread_may_train_meanwhile(
    model: GPT2, tokens: Tensor
) -> None:
    """It switches between its modes, as a loop with held-out losses does."""
    expected = generate(model, tokens, 4, **GREEDY)[:, 5:]
    spoil(model)
    for training in (False, True):
        model.train(training)
        for right, drawn in zip(
            expected.T, stream(model, tokens, 4, **GREEDY), strict=True
        ):
            assert torch.equal(drawn, right)
            training = not training
            model.train(training)


def test_a_model_without_dropout_shares_what_it_has(model: GPT2) -> None:
    twin = without_dropout(model.train())
    assert type(twin) is GPT2
    assert twin.config is model.config
    assert not any(module.training for module in twin.modules())
    theirs = dict(model.named_parameters())
    for name, parameter in twin.named_parameters():
        assert parameter is theirs.pop(name)
    assert not theirs
    seen: list[nn.Module] = []
    model.h[0].register_forward_hook(lambda *_: seen.append(model))
    without_dropout(model)(torch.zeros(1, 1).long())
    assert seen == [model]  # the model's hooks are called
    twin.h[0].register_forward_hook(lambda *_: seen.append(twin))
    model(torch.zeros(1, 1).long())
    assert seen == [model, model]  # the twin's are its own


@pytest.mark.parametrize("way", ["a compiled module", "compiled in place"])
def test_a_compiled_model_has_no_dropout_either(
    model: GPT2, tokens: Tensor, way: str
) -> None:
    expected = generate(model, tokens, 1, **GREEDY)
    calls: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        def run(*arguments: Any) -> Any:
            calls.append(1)
            return graph(*arguments)

        return run

    compiled = model
    if way == "a compiled module":
        compiled = torch.compile(model, backend=backend)
    else:
        model.compile(backend=backend)
    spoil(model)
    assert torch.equal(generate(compiled, tokens, 1, **GREEDY), expected)
    assert not calls
    model.eval()  # then what was compiled is what runs
    assert torch.equal(generate(compiled, tokens, 1, **GREEDY), expected)
    assert calls


def test_nothing_is_kept_for_gradients(model: GPT2, tokens: Tensor) -> None:
    steps = stream(model, tokens, 3)
    next(steps)
    assert torch.is_grad_enabled()  # between the tokens, it is as it was
    steps.close()
    assert not beam_search(model, tokens, 3)[1].requires_grad


# Where it ends.


def test_generation_ends_where_the_positions_end(model: GPT2) -> None:
    n_ctx = model.config.n_ctx
    for length in (1, n_ctx - 1):
        prompt = torch.randint(17, (2, length))
        assert generate(model, prompt, 99).shape == (2, n_ctx)
        assert generate(model, prompt, n_ctx - length).shape == (2, n_ctx)
    full = torch.randint(17, (2, n_ctx))
    assert torch.equal(generate(model, full, 99), full)
    found, score = beam_search(model, full, 99)
    assert torch.equal(found, full)
    assert score.tolist() == [0, 0]


@both_sides
def test_padding_takes_no_positions(
    model: GPT2, prompts: list[Tensor], side: str
) -> None:
    """Seven tokens in twenty columns: nine more fit into n_ctx = 16."""
    tokens, real = padded([*prompts, torch.zeros(20).long()], side)
    tokens, real = tokens[:3], real[:3]
    found = generate(model, tokens, 99, attention_mask=real, **GREEDY)
    assert found.shape == (3, 20 + 9)
    expected = generate(model, prompts[2][None], 99, **GREEDY)
    assert torch.equal(found[2, 20:], expected[0, 7:])


def test_no_new_tokens(model: GPT2, tokens: Tensor) -> None:
    assert torch.equal(generate(model, tokens, 0), tokens)
    found = generate(model, tokens, 0, n_samples=2)
    assert torch.equal(found, tokens.repeat_interleave(2, dim=0))
    found, score = beam_search(model, tokens, 0)
    assert torch.equal(found, tokens)
    assert score.tolist() == [0, 0]


@pytest.mark.parametrize("search", [generate, beam_search])
def test_prompts_that_cannot_be_continued(
    model: GPT2, search: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        search(model, torch.empty(1, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="empty prompt"):  # the second row
        mask = torch.tensor([[1, 1], [0, 0]])
        search(model, torch.zeros(2, 2).long(), attention_mask=mask)
    with pytest.raises(ValueError, match=r"has 17 tokens, .* at most 16"):
        search(model, torch.zeros(2, 17).long())
    with pytest.raises(ValueError, match=r"has 17 tokens, .* at most 16"):
        mask = torch.ones(1, 18).long()
        mask[0, 0] = 0
        search(model, torch.zeros(1, 18).long(), attention_mask=mask)
    for tokens in (torch.tensor([1, 2]), torch.tensor(1)):
        with pytest.raises(ValueError, match=r"shape \(B, T\)"):
            search(model, tokens)
    for tokens in (
        torch.zeros(0, 3).long(),
        torch.zeros(1, 3),
        torch.zeros(1, 3, dtype=torch.int16),
    ):
        with pytest.raises(ValueError, match=r"int64 or int32 of shape"):
            search(model, tokens)


@pytest.mark.parametrize("strange", [17, -1, -100, 2**40])
@pytest.mark.parametrize("run", [generate, stream, beam_search])
def test_ids_that_are_not_in_the_vocabulary(
    model: GPT2, run: Callable[..., Any], strange: int
) -> None:
    """They are refused at once, the model is not even called."""
    log = Log(model)
    tokens = torch.tensor([[1, 2], [3, strange]])
    message = rf"between 0 and 16, .* 17 rows; got {strange}$"
    with pytest.raises(ValueError, match=f"tokens must lie {message}"):
        run(model, tokens)
    with pytest.raises(ValueError, match=f"stop_tokens must lie {message}"):
        run(model, tokens[:1], stop_tokens=[0, strange])
    assert log.events == []


def test_a_mask_may_be_of_any_numbers(model: GPT2, tokens: Tensor) -> None:
    """What is not 0 is a token, however many it says."""
    mask = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
    expected = generate(model, tokens, 99, attention_mask=mask, **GREEDY)
    for other in (2 * mask, 0.5 * mask):
        found = generate(model, tokens, 99, attention_mask=other, **GREEDY)
        assert torch.equal(found, expected)


def test_int32_and_half_precision(model: GPT2, tokens: Tensor) -> None:
    expected = generate(model, tokens, 9, repetition_penalty=1.2, **GREEDY)
    found = generate(model, tokens.int(), 9, repetition_penalty=1.2, **GREEDY)
    assert torch.equal(found, expected)
    model.bfloat16()
    assert generate(model, tokens, 9, top_p=0.9).shape == (2, 14)
    assert beam_search(model, tokens, 9)[1].dtype == torch.float32


# Beam search.


def log_probability(model: nn.Module, prompt: Tensor, added: Tensor) -> float:
    """Sum up what each added token costs, without cache or batch."""
    whole = torch.cat([prompt, added])[None]
    total = 0.0
    for end in range(len(prompt), whole.size(1)):
        logits = model(whole[:, :end])
        logits = logits[0, -1] if logits.dim() == 3 else logits[0]
        total += float(logits.log_softmax(-1)[whole[0, end]])
    return total


def all_continuations(
    n_vocab: int, n_new: int, stops: list[int]
) -> Iterator[list[int]]:
    """Every sequence that ends at its first stop, or at `n_new` tokens."""
    for whole in product(range(n_vocab), repeat=n_new):
        ends = [i + 1 for i in range(n_new) if whole[i] in stops]
        end = min(ends, default=n_new)
        if all(token == 0 for token in whole[end:]):  # each but once
            yield list(whole[:end])


@pytest.mark.parametrize(
    ("stops", "length_penalty", "n_beams"),
    [([], 1.0, 25), ([3], 0.0, 125), ([3], 1.0, 125), ([1, 2], 2.0, 125)],
)
@torch.no_grad()
def test_with_enough_beams_it_finds_the_best_of_all(
    shake: Callable[..., GPT2],
    stops: list[int],
    length_penalty: float,
    n_beams: int,
) -> None:
    config = GPT2Config(n_vocab=5, n_ctx=8, n_embd=12, n_head=3, n_layer=2)
    model = shake(GPT2(config)).eval()
    prompts = torch.randint(5, (3, 4))
    found, scores = beam_search(
        model,
        prompts,
        3,
        n_beams=n_beams,
        stop_tokens=stops,
        length_penalty=length_penalty,
    )
    for prompt, row, score in zip(prompts, found, scores, strict=True):
        candidates = [
            (log_probability(model, prompt, torch.tensor(added)), added)
            for added in all_continuations(5, 3, stops)
        ]
        mass = sum(math.exp(total) for total, _ in candidates)
        assert mass == pytest.approx(1, abs=1e-5)
        total, best = max(
            candidates,
            key=lambda pair: pair[0] / len(pair[1]) ** length_penalty,
        )
        filled = best + best[-1:] * (found.size(1) - 4 - len(best))
        assert row.tolist() == prompt.tolist() + filled
        assert float(score) == pytest.approx(total, abs=1e-5)


def test_more_beams_see_further() -> None:
    """The likelier first step leads to where nothing is likely."""
    chain = Chain(
        [
            [0.0, 0.6, 0.4, 0.0],
            [0.25, 0.25, 0.3, 0.2],
            [0.0, 0.1, 0.0, 0.9],
            [0.25, 0.25, 0.25, 0.25],
        ]
    )
    prompt = torch.tensor([[0]])
    found, score = beam_search(chain, prompt, 2, n_beams=1)
    assert found.tolist() == [[0, 1, 2]]
    assert float(score.exp()) == pytest.approx(0.6 * 0.3)
    found, score = beam_search(chain, prompt, 2, n_beams=2)
    assert found.tolist() == [[0, 2, 3]]
    assert float(score.exp()) == pytest.approx(0.4 * 0.9)


def test_length_penalty() -> None:
    """A short one of 0.4 against a long one of 0.6 * 0.55 = 0.33.

    ln 0.33 / 2^a exceeds ln 0.4 from a = 0.275 on.
    """
    chain = Chain([[1.0, 0, 0], [0.4, 0, 0.6], [0.55, 0.45, 0]])

    def best(length_penalty: float) -> tuple[list[int], float]:
        found, score = beam_search(
            chain,
            torch.tensor([[1]]),
            2,
            n_beams=3,
            stop_tokens=[0],
            length_penalty=length_penalty,
        )
        return found[0, 1:].tolist(), float(score.exp())

    for short in (-1.0, 0.0, 0.25):
        assert best(short) == ([0, 0], pytest.approx(0.4))
    for long in (0.3, 1.0, 2.0):
        assert best(long) == ([2, 0], pytest.approx(0.33))


def test_beams_stop_when_all_have_ended() -> None:
    chain = Chain([[0.5, 0.5], [1.0, 0.0]])
    log = Log(chain)
    found, score = beam_search(
        chain, torch.tensor([[1], [1]]), 50, n_beams=1, stop_tokens=[0]
    )
    assert found.tolist() == [[1, 0], [1, 0]]
    assert score.tolist() == [0, 0]
    assert log.events == [(2, 1)]


@both_sides
def test_one_beam_is_greedy(
    model: GPT2, prompts: list[Tensor], side: str
) -> None:
    tokens, real = padded(prompts, side)
    expected = generate(model, tokens, 9, attention_mask=real, **GREEDY)
    found, _ = beam_search(model, tokens, 9, n_beams=1, attention_mask=real)
    assert torch.equal(found, expected)


@both_sides
@pytest.mark.parametrize("stops", [[], [2, 5, 11]])
@torch.no_grad()
def test_beams_of_a_batch_are_those_of_each_alone(
    model: GPT2, prompts: list[Tensor], side: str, stops: list[int]
) -> None:
    tokens, real = padded(prompts, side)
    log = Log(model)
    found, scores = beam_search(
        model, tokens, 9, attention_mask=real, stop_tokens=stops
    )
    assert log.events[:2] == [(3, 7), (12, 1)]  # the prompt is read once
    for prompt, row, score in zip(prompts, found, scores, strict=True):
        alone, its_score = beam_search(
            model, prompt[None], 9, stop_tokens=stops
        )
        added = alone[0, len(prompt) :].tolist()
        filled = added + added[-1:] * (found.size(1) - 7 - len(added))
        assert row[7:].tolist() == filled
        assert float(score) == pytest.approx(float(its_score), abs=1e-5)
        ends = [i + 1 for i, token in enumerate(added) if token in stops]
        only = torch.tensor(added[: min(ends, default=9)])
        expected = log_probability(model, prompt, only)
        assert float(score) == pytest.approx(expected, abs=1e-4)


def test_beams_must_be_positive(model: GPT2, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="n_beams must be 1 or more; got 0"):
        beam_search(model, tokens, n_beams=0)
    for penalty in (INF, -INF, math.nan):
        with pytest.raises(ValueError, match="length_penalty must be finite"):
            beam_search(model, tokens, length_penalty=penalty)


# Against another implementation.


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


@pytest.fixture
def theirs(model: GPT2) -> GPT2LMHeadModel:
    """The same model, in their words."""
    fields = model.config.to_dict() | {
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    twin = GPT2LMHeadModel(TheirConfig(**fields)).eval()
    twin.transformer.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_that_of_transformers(
    model: GPT2,
    theirs: GPT2LMHeadModel,
    prompts: list[Tensor],
    penalty: float,
) -> None:
    # Their penalty counts padding, so one that has come anyway.
    tokens, real = padded(prompts, "left", fill=0)
    if penalty != 1:
        tokens, real = tokens[2:], real[2:]
    expected = theirs.generate(
        tokens,
        attention_mask=real,
        do_sample=False,
        max_new_tokens=9,
        repetition_penalty=penalty,
    )
    found = generate(
        model,
        tokens,
        9,
        attention_mask=real,
        repetition_penalty=penalty,
        **GREEDY,
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("n_beams", [2, 3, 5])
def test_beams_equal_those_of_transformers(
    model: GPT2,
    theirs: GPT2LMHeadModel,
    prompts: list[Tensor],
    n_beams: int,
) -> None:
    tokens, real = padded(prompts, "left")
    expected = theirs.generate(
        tokens,
        attention_mask=real,
        do_sample=False,
        num_beams=n_beams,
        max_new_tokens=9,
        length_penalty=1.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found, scores = beam_search(
        model, tokens, 9, n_beams=n_beams, attention_mask=real
    )
    assert torch.equal(found, expected.sequences)
    greedy = generate(model, tokens, 9, attention_mask=real, **GREEDY)
    assert not torch.equal(found, greedy)
    torch.testing.assert_close(scores / 9, expected.sequences_scores)


def test_a_forward_that_was_replaced_is_not_run_with_dropout(
    model: GPT2, tokens: Tensor
) -> None:
    """It would run the module that it was taken from."""
    expected = generate(model, tokens, 3, temperature=0)
    for module in (model, model.drop):
        own = module.forward
        module.forward = lambda *a, own=own, **k: own(*a, **k)
        with pytest.raises(ValueError, match=r"call `model\.eval\(\)` first"):
            generate(model.train(), tokens, 3, temperature=0)
        assert torch.equal(
            generate(model.eval(), tokens, 3, temperature=0), expected
        )
        del module.forward

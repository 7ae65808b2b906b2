"""Beam search, against every continuation and another implementation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from generating import (
    GREEDY,
    Chain,
    Log,
    both_sides,
    in_transformers,
    padded,
    some_prompts,
    varied,
    with_spare_rows,
)
from torch import Tensor, nn

from gpt2.beams import beam_search
from gpt2.config import GPT2Config
from gpt2.generation import generate
from gpt2.model import GPT2


@pytest.fixture
def model(model: GPT2) -> GPT2:
    return varied(model)


@pytest.fixture
def prompts(tiny: GPT2Config) -> list[Tensor]:
    return some_prompts(tiny)


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


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    chain = Chain([[0.5, 0.5]] * 2)
    chain.logits[1, 1] = bad
    with pytest.raises(RuntimeError, match="not all finite"):
        beam_search(chain, torch.tensor([[1]]), 1)


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
    expected = generate(model, tokens, 9, GREEDY, attention_mask=real)
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


@pytest.mark.parametrize("n_beams", [1, 4, 20])  # some more than tokens
@pytest.mark.parametrize("stops", [[], [2, 5, 11]])
def test_beams_never_have_a_row_without_a_token(
    model: GPT2, prompts: list[Tensor], n_beams: int, stops: list[int]
) -> None:
    tokens, real = padded(prompts, "left")
    wide = with_spare_rows(model)

    def best(model: GPT2, n_vocab: int | None = None) -> tuple[Tensor, Tensor]:
        return beam_search(
            model,
            tokens,
            6,
            n_beams=n_beams,
            attention_mask=real,
            stop_tokens=stops,
            n_vocab=n_vocab,
        )

    assert (best(wide)[0][:, 7:] >= 17).any()
    expected, scores = best(model)
    found, found_scores = best(wide, 17)
    assert torch.equal(found, expected)
    torch.testing.assert_close(found_scores, scores)


def test_beams_must_be_positive(model: GPT2, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="n_beams must be 1 or more; got 0"):
        beam_search(model, tokens, n_beams=0)
    for penalty in (math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match="length_penalty must be finite"):
            beam_search(model, tokens, length_penalty=penalty)


@pytest.mark.parametrize("n_beams", [2, 3, 5])
def test_beams_equal_those_of_transformers(
    model: GPT2,
    prompts: list[Tensor],
    n_beams: int,
) -> None:
    tokens, real = padded(prompts, "left")
    expected = in_transformers(model).generate(
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
    greedy = generate(model, tokens, 9, GREEDY, attention_mask=real)
    assert not torch.equal(found, greedy)
    torch.testing.assert_close(scores / 9, expected.sequences_scores)

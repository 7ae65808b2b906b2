"""Generation: what comes out of many draws, and what stands beside what."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from generating import (
    GREEDY,
    Chain,
    Log,
    assert_drawn,
    both_sides,
    in_transformers,
    padded,
    some_prompts,
    varied,
    with_spare_rows,
)
from torch import Tensor

import gpt2.data
from gpt2.beams import beam_search
from gpt2.config import GPT2Config
from gpt2.generation import generate, stream
from gpt2.model import GPT2
from gpt2.sampling import Sampling


@pytest.fixture
def model(model: GPT2) -> GPT2:
    return varied(model)


@pytest.fixture
def prompts(tiny: GPT2Config) -> list[Tensor]:
    return some_prompts(tiny)


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


@pytest.mark.parametrize("temperature", [1e-30, 1e-20, 1e-6])
def test_a_tiny_temperature_is_greedy(
    model: GPT2, tokens: Tensor, temperature: float
) -> None:
    expected = generate(model, tokens, 9, GREEDY)
    for more in ({}, {"top_p": 1e-30}, {"min_p": 1e-30}, {"top_k": 5}):
        settings = Sampling(temperature, **more)
        found = generate(model, tokens, 9, settings, seed=0)
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": -1},
        {"n_samples": 0},
        {"seed": -1},
        {"seed": 2**32},
        {"seed": 2**32 + 1},  # which to PyTorch's generator is 1
    ],
    ids=str,
)
def test_bad_options(
    model: GPT2, tokens: Tensor, options: dict[str, Any]
) -> None:
    ((name, value),) = options.items()
    message = rf"{name} must be .*; got {re.escape(str(value))}$"
    with pytest.raises(ValueError, match=message):
        generate(model, tokens, **options)
    with pytest.raises(ValueError, match=name):  # at once
        stream(model, tokens, **options)


def test_stream_takes_what_generate_takes() -> None:
    one = inspect.signature(stream).replace(return_annotation=None)
    assert one == inspect.signature(generate).replace(return_annotation=None)


def test_a_seed_is_a_whole_number(model: GPT2, tokens: Tensor) -> None:
    with pytest.raises(TypeError, match="integer"):
        # The type checker would say so, too; not everybody has one.
        stream(model, tokens, seed=1.5)  # type: ignore[arg-type]


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
    settings = replace(GREEDY, repetition_penalty=penalty)
    for prompt, expected in zip(prompts, alone, strict=True):
        found = generate(model, prompt[None], 9, settings)[0]
        assert torch.equal(found, torch.cat([prompt, expected]))
    # A padding that would be penalised, were it looked at.
    tokens, real = padded(prompts, side, fill=int(alone[0][0]))
    for mask in (real, real.bool(), real.float()):
        found = generate(model, tokens, 9, settings, attention_mask=mask)
        assert torch.equal(found[:, :7], tokens)
        assert torch.equal(found[:, 7:], torch.stack(alone))


@both_sides
def test_several_samples_of_each_prompt(
    model: GPT2, prompts: list[Tensor], side: str
) -> None:
    tokens, real = padded(prompts, side)
    options: dict[str, Any] = {"attention_mask": real, "n_samples": 4}
    found = generate(model, tokens, 6, GREEDY, **options)
    once = generate(model, tokens, 6, GREEDY, attention_mask=real)
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
    free = generate(model, tokens, 9, GREEDY, attention_mask=real)[:, 7:]
    stop = int(free[1, 0])
    # One row ends later than at once, and one never.
    assert stop != free[0, 0] and stop in free[0] and stop not in free[2]
    found = generate(
        model, tokens, 9, GREEDY, attention_mask=real, stop_tokens=[stop]
    )[:, 7:]
    for row, whole in zip(found.tolist(), free.tolist(), strict=True):
        end = whole.index(stop) if stop in whole else len(whole)
        assert row == whole[:end] + [stop] * (len(whole) - end)


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


def test_nothing_is_kept_for_gradients(model: GPT2, tokens: Tensor) -> None:
    steps = stream(model, tokens, 3)
    next(steps)
    assert torch.is_grad_enabled()  # between the tokens, it is as it was
    steps.close()
    assert not beam_search(model, tokens, 3)[1].requires_grad


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
    found = generate(model, tokens, 99, GREEDY, attention_mask=real)
    assert found.shape == (3, 20 + 9)
    expected = generate(model, prompts[2][None], 99, GREEDY)
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
    with pytest.raises(ValueError, match="is empty"):
        search(model, torch.empty(1, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="is empty"):  # the second row
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


@pytest.mark.parametrize(
    ("tokens", "call"),
    [
        ([1, 2, 3], "torch.tensor([ids])"),
        ((1, 2, 3), "torch.tensor([ids])"),
        ([[1, 2], [3, 4]], "gpt2.data.pad"),
        ([[1], [2, 3]], "gpt2.data.pad"),
        (torch.tensor([1, 2, 3]), "tokens[None]"),
        ("Ella lost", "gpt2.complete"),
        (["Ella lost"], "gpt2.complete"),
    ],
    ids=str,
)
@pytest.mark.parametrize("run", [generate, stream, beam_search])
def test_what_is_no_batch_names_the_call_that_makes_one(
    model: GPT2, run: Callable[..., Any], tokens: Any, call: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(call)) as error:
        run(model, tokens)
    assert "shape (B, T)" in str(error.value)


def test_what_the_messages_say_to_call_works(model: GPT2) -> None:
    prompts = [[1], [2, 3]]
    tokens, attention_mask = gpt2.data.pad(prompts)
    both = generate(model, tokens, 5, GREEDY, attention_mask=attention_mask)
    for prompt, row in zip(prompts, both, strict=True):
        of_list = generate(model, torch.tensor([prompt]), 5, GREEDY)
        of_tensor = generate(model, torch.tensor(prompt)[None], 5, GREEDY)
        assert torch.equal(of_list, of_tensor)
        assert torch.equal(of_list[0, -5:], row[-5:])


@pytest.mark.parametrize("bad", [[], [[]], None, 5])
def test_what_is_nothing_like_a_batch(model: GPT2, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"tokens must be .* got a "):
        generate(model, bad)


@pytest.mark.parametrize("strange", [17, -1, -100, 2**40])
@pytest.mark.parametrize("run", [generate, stream, beam_search])
def test_ids_that_are_not_in_the_vocabulary(
    model: GPT2, run: Callable[..., Any], strange: int
) -> None:
    """They are refused at once, the model is not even called."""
    log = Log(model)
    tokens = torch.tensor([[1, 2], [3, strange]])
    message = rf"between 0 and 16; got {strange}$"
    with pytest.raises(ValueError, match=f"tokens must lie {message}"):
        run(model, tokens)
    with pytest.raises(ValueError, match=f"stop_tokens must lie {message}"):
        run(model, tokens[:1], stop_tokens=[0, strange])
    assert log.events == []


@both_sides
@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        Sampling(),
        Sampling(top_k=3),
        Sampling(2.0, top_p=0.9, min_p=0.01),
        Sampling(repetition_penalty=1.7),
        replace(GREEDY, repetition_penalty=0.5),
    ],
    ids=str,
)
def test_rows_without_a_token_might_as_well_not_be_there(
    model: GPT2, prompts: list[Tensor], side: str, sampling: Sampling
) -> None:
    tokens, real = padded(prompts, side)
    options: dict[str, Any] = {"attention_mask": real, "n_samples": 3}
    expected = generate(model, tokens, 6, sampling, **options, seed=0)
    wide = with_spare_rows(model)
    spare = generate(wide, tokens, 6, sampling, **options, seed=0)[:, 7:]
    assert (spare >= 17).any(dim=1).all()  # if they may be drawn, they are
    options["n_vocab"] = 17
    found = generate(wide, tokens, 6, sampling, **options, seed=0)
    assert torch.equal(found, expected)
    options["n_vocab"] = 17 + 47
    found = generate(wide, tokens, 6, sampling, **options, seed=0)[:, 7:]
    assert torch.equal(found, spare)


def test_every_token_and_no_other_row_is_drawn() -> None:
    """Three tokens of 0.1, 0.3 and 0.1, and two rows that have the rest."""
    chain = Chain([[0.1, 0.3, 0.1, 0.25, 0.25]] * 5)
    prompt = torch.tensor([[0]])
    drawn = generate(chain, prompt, 1, n_samples=9999, n_vocab=3, seed=0)
    counts = drawn[:, 1].bincount(minlength=5)
    assert_drawn(counts, torch.tensor([0.2, 0.6, 0.2, 0.0, 0.0]))
    found, score = beam_search(chain, prompt, 1, n_vocab=3)
    assert found.tolist() == [[0, 1]]
    assert float(score.exp()) == pytest.approx(0.6)


@pytest.mark.parametrize("run", [generate, stream, beam_search])
def test_ids_without_a_token_are_refused(
    model: GPT2, run: Callable[..., Any]
) -> None:
    wide = with_spare_rows(model)
    prompt = torch.tensor([[1, 17]])
    run(wide, prompt, 3, stop_tokens=[63])  # with all rows, they are tokens
    message = "tokens must lie between 0 and 16; got 17$"
    with pytest.raises(ValueError, match=f"^{message}"):
        run(wide, prompt, n_vocab=17)
    with pytest.raises(ValueError, match=f"^stop_{message}"):
        run(wide, prompt[:, :1], n_vocab=17, stop_tokens=[17])
    for n_vocab in (0, -1):
        with pytest.raises(ValueError, match=f"n_vocab must .* got {n_vocab}"):
            run(wide, prompt[:, :1], n_vocab=n_vocab)


def test_more_tokens_than_rows_are_all_rows(
    model: GPT2, tokens: Tensor
) -> None:
    expected = generate(model, tokens, 9, seed=0)
    found = generate(model, tokens, 9, n_vocab=99, seed=0)
    assert torch.equal(found, expected)


def test_a_row_without_a_token_may_be_damaged(
    model: GPT2, tokens: Tensor
) -> None:
    wide = with_spare_rows(model)
    with torch.no_grad():
        wide.wte.weight[17:] = torch.nan
    expected = generate(model, tokens, 9, seed=0)
    found = generate(wide, tokens, 9, n_vocab=17, seed=0)
    assert torch.equal(found, expected)


def test_a_mask_may_be_of_any_numbers(model: GPT2, tokens: Tensor) -> None:
    """What is not 0 is a token, however many it says."""
    mask = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
    expected = generate(model, tokens, 99, GREEDY, attention_mask=mask)
    for other in (2 * mask, 0.5 * mask):
        found = generate(model, tokens, 99, GREEDY, attention_mask=other)
        assert torch.equal(found, expected)


def test_int32_and_half_precision(model: GPT2, tokens: Tensor) -> None:
    settings = replace(GREEDY, repetition_penalty=1.2)
    expected = generate(model, tokens, 9, settings)
    found = generate(model, tokens.int(), 9, settings)
    assert torch.equal(found, expected)
    model.bfloat16()
    assert generate(model, tokens, 9, Sampling(top_p=0.9)).shape == (2, 14)
    assert beam_search(model, tokens, 9)[1].dtype == torch.float32


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_that_of_transformers(
    model: GPT2,
    prompts: list[Tensor],
    penalty: float,
) -> None:
    # Their penalty counts padding, so one that has come anyway.
    tokens, real = padded(prompts, "left", fill=0)
    if penalty != 1:
        tokens, real = tokens[2:], real[2:]
    expected = in_transformers(model).generate(
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
        replace(GREEDY, repetition_penalty=penalty),
        attention_mask=real,
    )
    assert torch.equal(found, expected)

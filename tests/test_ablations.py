"""The removals of chapter 14: each removes what it names, and no more."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable

import ablations
import pytest
import torch
from torch import Tensor

import gpt2
from gpt2 import GPT2, GPT2Config

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
WIDTH, SIZE = 15, 5
BEFORE, AFTER = "stream around attention", "stream around the feed-forward"


@pytest.fixture(scope="module")
def whole() -> GPT2:
    torch.manual_seed(0)
    config = GPT2Config(n_vocab=11, n_ctx=9, n_embd=WIDTH, n_head=3, n_layer=2)
    model = GPT2(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.3)
    return model


def without(model: GPT2, *parts: str) -> GPT2:
    patient = copy.deepcopy(model)
    for part in parts:
        (ablations.REMOVALS | ablations.CONTROLS)[part](patient)
    return patient.requires_grad_(False)


def test_nothing_removed_changes_nothing(whole: GPT2) -> None:
    assert torch.equal(without(whole, "nothing")(TOKENS), whole(TOKENS))


@pytest.mark.parametrize("part", [*ablations.REMOVALS][1:])
def test_every_removal_tells(whole: GPT2, part: str) -> None:
    assert not torch.allclose(without(whole, part)(TOKENS), whole(TOKENS))


def undo_scale(model: GPT2) -> None:
    for layer in model.h:
        layer.attn.c_attn.weight[:, :WIDTH] /= math.sqrt(SIZE)
        layer.attn.c_attn.bias[:WIDTH] /= math.sqrt(SIZE)


def undo_tie(model: GPT2) -> None:
    model.output.copy_(model.wte.weight)


@pytest.mark.parametrize(
    "part, undo", [("the scale", undo_scale), ("the tied output", undo_tie)]
)
def test_nothing_else_is_removed(
    whole: GPT2, part: str, undo: Callable[[GPT2], None]
) -> None:
    patient = without(whole, part)
    undo(patient)
    torch.testing.assert_close(patient(TOKENS), whole(TOKENS))


def test_long_queries_undo_the_scale(whole: GPT2) -> None:
    longer = copy.deepcopy(whole)
    ablations.long_queries(longer)
    expected = without(whole, "the scale")(TOKENS)
    torch.testing.assert_close(longer(TOKENS), expected)


def by_hand(model: GPT2, part: str) -> Tensor:
    """Compute the logits with the part left out of the formula."""
    same = torch.nn.Identity()
    final = same if part in ("the final norm", "all norms") else model.ln_f
    x = model.wte(TOKENS)
    if part != "the positions":
        x = x + model.wpe(torch.arange(TOKENS.size(1)))
    for layer in model.h:
        ln_1, ln_2 = layer.ln_1, layer.ln_2
        if part == "all norms":
            ln_1 = ln_2 = same
        found = layer.attn(ln_1(x), causal=part != "the mask")
        x = found if part in ("the residual paths", AFTER) else x + found
        inner = layer.mlp.c_fc(ln_2(x))
        if part == "the GELU (ReLU)":
            inner = inner.clamp(min=0)
        elif part != "the GELU":
            inner = torch.nn.functional.gelu(inner, approximate="tanh")
        thought = layer.mlp.c_proj(inner)
        x = thought if part in ("the residual paths", BEFORE) else x + thought
    return final(x) @ model.wte.weight.T


@pytest.mark.parametrize(
    "part",
    [
        p
        for p in (*ablations.REMOVALS, BEFORE, AFTER)
        if p not in ("the scale", "the tied output")
    ],
)
def test_the_formula_lacks_this_part_alone(whole: GPT2, part: str) -> None:
    expected = by_hand(whole, part)
    torch.testing.assert_close(without(whole, part)(TOKENS), expected)


def test_only_without_a_mask_it_matters_what_comes_later(whole: GPT2) -> None:
    later = TOKENS.clone()
    later[:, -1] = 0
    for part in ablations.REMOVALS:
        patient = without(whole, part)
        sees = (patient(TOKENS) != patient(later))[:, :-1].any()
        assert bool(sees) == (part == "the mask"), part


def test_the_honest_loss_is_the_loss_of_who_cannot_cheat() -> None:
    torch.manual_seed(0)
    model = GPT2(ablations.CONFIG)
    rows = torch.randint(ablations.CONFIG.n_vocab, (3, 129))
    at = torch.arange(16, 128, 16)
    logits = model(rows[:, :-1])[:, at - 1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, rows[:, at].flatten())
    assert ablations.honest_loss(model, rows) == pytest.approx(
        expected.item(), abs=1e-4
    )


def test_the_weight_ahead_is_what_a_mask_forbids() -> None:
    torch.manual_seed(0)
    model = GPT2(ablations.CONFIG)
    rows = torch.randint(ablations.CONFIG.n_vocab, (2, 129))
    assert ablations.weight_ahead(model, rows) == 0
    ablations.no_mask(model)  # a new model looks about equally everywhere
    assert ablations.weight_ahead(model, rows) == pytest.approx(
        1 / 128, rel=0.1
    )


def test_what_is_kept_was_made_by_these_settings() -> None:
    kept = json.loads(ablations.PLACE.read_text())
    every, last = ablations.SETTINGS.evaluate_every, ablations.SETTINGS.n_steps
    assert kept["steps"] == [*range(0, last + 1, every)]
    assert kept["seeds"] == [*ablations.SEEDS]
    assert [*kept["without"]] == [*ablations.REMOVALS]
    assert [*kept["controls"]] == [*ablations.CONTROLS]
    for part, runs in (kept["without"] | kept["controls"]).items():
        assert len(runs) == len(kept["seeds"])
        for run in runs:
            assert len(run["loss"]) == len(kept["steps"])
            assert bool(run["honest"]) == (part == "the mask")
            assert ("ahead" in run) == (part == "the mask")
            assert run["text"].startswith("Ella lost her")
    assert [*kept["slower"]] == [*ablations.SLOWER]
    for by_rate in kept["slower"].values():
        assert [*map(float, by_rate)] == [*ablations.LOWER_RATES]
        for losses in by_rate.values():
            assert len(losses) == len(kept["seeds"])
            assert all(len(one) == len(kept["steps"]) for one in losses)


def test_slower_runs_begin_where_the_others_do() -> None:
    """The rate does not change what the first weights are."""
    kept = json.loads(ablations.PLACE.read_text())
    for part, by_rate in kept["slower"].items():
        for losses in by_rate.values():
            begin = [one[0] for one in losses]
            assert begin == [run["loss"][0] for run in kept["without"][part]]


@pytest.mark.parametrize("part", ablations.REMOVALS | ablations.CONTROLS)
def test_the_curves_begin_where_a_new_model_does(part: str) -> None:
    kept = json.loads(ablations.PLACE.read_text())
    _, tokenizer = gpt2.load("story")
    rows = ablations.story_rows(
        tokenizer, ablations.SETTINGS.evaluate_rows, 0, "held_out"
    )
    torch.manual_seed(1)
    model = GPT2(ablations.CONFIG)
    (ablations.REMOVALS | ablations.CONTROLS)[part](model)
    begin = (kept["without"] | kept["controls"])[part][1]["loss"][0]
    loss = ablations.held_out_loss(model, rows)
    assert loss == pytest.approx(begin, abs=0.01)

"""Attention is recorded, and heads are found by what they do."""

from __future__ import annotations

import pytest
import torch

from gpt2.config import GPT2Config
from gpt2.evaluation import circuits
from gpt2.model import GPT2


def test_recorded_attention_is_what_the_model_used(model, tokens):
    before = [layer.attn.fused for layer in model.h]
    weights = circuits.record_attention(model, tokens)
    n_layer, n_head = model.config.n_layer, model.config.n_head
    batch_size, length = tokens.shape
    assert weights.shape == (n_layer, batch_size, n_head, length, length)
    torch.testing.assert_close(
        weights.sum(-1), torch.ones(n_layer, batch_size, n_head, length)
    )
    assert not weights.triu(1).any()
    # The first layer's, by hand.
    x = model.h[0].ln_1(model.wte(tokens) + model.wpe(torch.arange(length)))
    q, k, _ = model.h[0].attn.project(x)
    scores = q @ k.transpose(-1, -2) / q.size(-1) ** 0.5
    closed = torch.ones(length, length).triu(1).bool()
    expected = scores.masked_fill(closed, -torch.inf).softmax(-1)
    torch.testing.assert_close(weights[0], expected)
    assert [layer.attn.fused for layer in model.h] == before
    assert not any(layer.attn.attn_dropout._forward_hooks for layer in model.h)


def test_the_model_is_left_as_it_was_where_it_fails():
    model = GPT2(GPT2Config(17, 8, 12, 3, 2))
    try:
        circuits.record_attention(model, torch.zeros(1, 9, dtype=torch.long))
    except ValueError:
        pass
    else:
        raise AssertionError("nine tokens do not fit into eight positions")
    assert all(layer.attn.fused for layer in model.h)
    assert not any(layer.attn.attn_dropout._forward_hooks for layer in model.h)


class Packed:
    """A language model with no layers to look into."""

    def __init__(self, model):
        self.config, self.device = model.config, model.device


def test_a_packed_model_is_refused_with_what_to_pass_instead(model, tokens):
    with pytest.raises(ValueError, match=r"GPT2.*Packed\b.*GPT2.*from"):
        circuits.record_attention(Packed(model), tokens)


def test_others_may_use_the_model_meanwhile(model, tokens):
    """Their calls are not recorded, and keep their dropout and `fused`."""
    expected = circuits.record_attention(model, tokens)
    model.train()
    seen = []

    def use(module, inputs):
        seen.append((model.training, model.h[0].attn.fused))
        handle.remove()
        model(tokens[:1])

    handle = model.h[1].register_forward_pre_hook(use)
    found = circuits.record_attention(model, tokens)
    assert seen == [(True, True)]
    assert torch.equal(found, expected)
    assert not any(layer.attn.attn_dropout._forward_hooks for layer in model.h)


def test_rows_are_drawn_and_repeated():
    choices = torch.arange(100, 130)
    rows = circuits.repeated_tokens(choices, 4, 7, seed=1)
    assert rows.shape == (4, 14)
    assert torch.equal(rows[:, :7], rows[:, 7:])
    assert all(len(set(row.tolist())) == 7 for row in rows)
    assert set(rows.flatten().tolist()) <= set(choices.tolist())
    assert torch.equal(rows, circuits.repeated_tokens(choices, 4, 7, seed=1))
    assert not torch.equal(rows, circuits.repeated_tokens(choices, 4, 7))
    with pytest.raises(ValueError, match=f"seed .*{2**32 + 1}$"):
        circuits.repeated_tokens(choices, 4, 7, seed=2**32 + 1)
    with pytest.raises(ValueError, match=r"length .*\b30\b.*31$"):
        circuits.repeated_tokens(choices, 4, 31)


def test_made_up_heads_are_recognised():
    # One layer, two heads: the first attends to the previous token, the second
    # does induction, and before anything repeats attends to itself.
    length, n_positions = 5, 10
    weights = torch.zeros(1, 3, 2, n_positions, n_positions)
    for t in range(n_positions):
        weights[:, :, 0, t, max(t - 1, 0)] = 1
        followed = t - length + 1 if t >= length else t
        weights[:, :, 1, t, followed] = 1
    previous = circuits.previous_token_scores(weights)
    induction = circuits.induction_scores(weights, length)
    assert previous.shape == induction.shape == (1, 2)
    assert previous[0, 0] == 1 and previous[0, 1] < 0.2
    assert induction[0, 1] == 1 and induction[0, 0] == 0

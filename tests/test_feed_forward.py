"""The feed-forward network and its activations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from gpt2.config import GPT2Config
from gpt2.feed_forward import (
    ACTIVATION_FUNCTIONS,
    FeedForward,
    gelu,
    gelu_new,
    relu,
)


# The three formulas, for a single number.
def gelu_new_formula(x: float) -> float:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + math.tanh(inner))


def gelu_formula(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))  # x times the CDF


def relu_formula(x: float) -> float:
    return max(0.0, x)


FORMULAS: dict[str, Callable[[float], float]] = {
    "gelu_new": gelu_new_formula,
    "gelu": gelu_formula,
    "relu": relu_formula,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_equal_their_formulas(name: str) -> None:
    x = torch.linspace(-8, 8, 321, dtype=torch.float64)
    expected = torch.tensor(
        [FORMULAS[name](number) for number in x.tolist()], dtype=torch.float64
    )
    found = ACTIVATION_FUNCTIONS[name](x)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_values_by_hand() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, 3.0])
    torch.testing.assert_close(
        gelu(x), torch.tensor([-0.158655, 0.0, 0.841345, 2.995950])
    )
    torch.testing.assert_close(
        gelu_new(x), torch.tensor([-0.158808, 0.0, 0.841192, 2.996363])
    )
    assert relu(x).tolist() == [0.0, 0.0, 1.0, 3.0]


def test_the_two_gelus_differ_by_up_to_half_a_thousandth() -> None:
    x = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    apart = (gelu_new(x) - gelu(x)).abs()
    assert 0.00047 < apart.max() < 0.0005
    assert 2 < abs(x[apart.argmax()]) < 3


@pytest.mark.parametrize("n_inner", [None, 7])
@pytest.mark.parametrize("name", FORMULAS)
def test_equals_the_formula(
    tiny: GPT2Config,
    shake: Callable[..., nn.Module],
    name: str,
    n_inner: int | None,
) -> None:
    config = dataclasses.replace(tiny, activation=name, n_inner=n_inner)
    network = shake(FeedForward(config)).double().eval()
    assert network.c_fc.weight.shape == (12, n_inner or 48)
    assert network.c_proj.weight.shape == (n_inner or 48, 12)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    hidden = x @ network.c_fc.weight + network.c_fc.bias
    hidden = hidden.detach().clone().apply_(FORMULAS[name])
    expected = hidden @ network.c_proj.weight + network.c_proj.bias
    torch.testing.assert_close(network(x), expected)


def test_no_position_sees_another(
    tiny: GPT2Config, shake: Callable[..., nn.Module]
) -> None:
    network = shake(FeedForward(tiny)).eval()
    x = torch.randn(2, 5, 12)
    changed = x.clone()
    changed[:, 3] += 1
    same = network(changed) == network(x)  # (B, T, C)
    assert same[:, [0, 1, 2, 4]].all()
    assert not same[:, 3].any()


def test_the_output_map_starts_smaller(tiny: GPT2Config) -> None:
    config = dataclasses.replace(tiny, n_embd=120, n_layer=8)
    network = FeedForward(config)
    assert network.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.02)
    std = network.c_proj.weight.std().item()
    assert std == pytest.approx(0.02 / 4, rel=0.02)  # sqrt(2 * 8) = 4


def test_dropout_is_on_the_output_while_training(tiny: GPT2Config) -> None:
    config = dataclasses.replace(tiny, resid_dropout=0.25)
    network, x = FeedForward(config), torch.randn(50, 40, 12)
    plain, dropped = network.eval()(x), network.train()(x)
    kept = dropped != 0
    assert kept.double().mean().item() == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.75)
    assert torch.equal(network.eval()(x), plain)


def test_shows_its_sizes(tiny: GPT2Config) -> None:
    shown = repr(FeedForward(dataclasses.replace(tiny, n_inner=7)))
    assert shown.startswith("FeedForward(")
    assert "(c_fc): Linear(12, 7)" in shown
    assert "(c_proj): Linear(7, 12)" in shown

"""Layer normalisation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gpt2.layer_norm import LayerNorm


def written_out(x: Tensor, norm: LayerNorm) -> Tensor:
    """The formula of Ba, Kiros and Hinton, step by step."""
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().sum(dim=-1, keepdim=True) / x.size(-1)
    return norm.weight * centred / (variance + norm.epsilon) ** 0.5 + norm.bias


def test_by_hand() -> None:
    """Mean 5, deviations -4 -2 2 4, biased variance 40 / 4 = 10."""
    norm = LayerNorm(4, epsilon=0.0)
    y = norm(torch.tensor([1.0, 3.0, 7.0, 9.0]))
    expected = torch.tensor([-4.0, -2.0, 2.0, 4.0]) / 10**0.5
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
def test_equals_the_formula_and_its_gradients(
    epsilon: float, shake: Callable[..., nn.Module]
) -> None:
    norm = shake(LayerNorm(12, epsilon)).double()
    x = (3 * torch.randn(2, 5, 12) + 7).double().requires_grad_()
    wanted = [x, norm.weight, norm.bias]
    y, expected = norm(x), written_out(x, norm)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(
        torch.autograd.grad(y.sin().sum(), wanted),
        torch.autograd.grad(expected.sin().sum(), wanted),
    )


def test_a_new_norm_gives_mean_0_and_variance_1() -> None:
    y = LayerNorm(12)(3 * torch.randn(2, 5, 12) + 7)
    torch.testing.assert_close(y.mean(-1), torch.zeros(2, 5))
    torch.testing.assert_close(
        y.var(-1, correction=0), torch.ones(2, 5), atol=1e-4, rtol=0
    )


def test_the_default_epsilon_is_gpt2s() -> None:
    """Deviations of 1e-3 have a variance of 1e-6, a tenth of epsilon."""
    y = LayerNorm(2)(torch.tensor([-1e-3, 1e-3]))
    torch.testing.assert_close(y, torch.tensor([-1.0, 1.0]) / 11**0.5)


def test_a_constant_vector_becomes_the_bias() -> None:
    norm = LayerNorm(12)
    nn.init.normal_(norm.bias)
    assert torch.equal(norm(torch.full((12,), 7.0)), norm.bias)


def test_each_vector_is_normalised_alone() -> None:
    norm, x = LayerNorm(12), torch.randn(2, 5, 12)
    together = norm(x)
    x[1, 3] *= 100
    others = torch.ones(2, 5, dtype=torch.bool)
    others[1, 3] = False
    assert torch.equal(norm(x)[others], together[others])


def test_shows_its_size_and_epsilon() -> None:
    assert repr(LayerNorm(12, 0.1)) == "LayerNorm(12, epsilon=0.1)"

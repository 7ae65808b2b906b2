"""The linear map `x @ W + b`, with W stored [in, out]."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from gpt2.linear import Linear, normal_parameter


def test_by_hand() -> None:
    linear = Linear(2, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        linear.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    y = linear(torch.tensor([[1.0, 10.0]]))
    torch.testing.assert_close(y, torch.tensor([[41.1, 52.2, 63.3]]))


@pytest.mark.parametrize("leading", [(), (2,), (2, 5), (2, 3, 5), (0, 5)])
def test_equals_torch_linear_with_the_transpose(
    leading: tuple[int, ...], shake: Callable[..., nn.Module]
) -> None:
    """The values and all three gradients, for any leading axes."""
    ours, theirs = shake(Linear(4, 3)), nn.Linear(4, 3)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight.T)
        theirs.bias.copy_(ours.bias)
    x = torch.randn(*leading, 4)
    x_ours, x_theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y_ours, y_theirs = ours(x_ours), theirs(x_theirs)
    assert y_ours.shape == (*leading, 3)
    torch.testing.assert_close(y_ours, y_theirs)
    y_ours.sin().sum().backward()
    y_theirs.sin().sum().backward()
    torch.testing.assert_close(x_ours.grad, x_theirs.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad.T)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


def test_the_memory_layout_does_not_matter() -> None:
    linear = Linear(4, 3)
    x = torch.randn(4, 5, 2).transpose(0, 2)  # (2, 5, 4), not contiguous
    assert torch.equal(linear(x), linear(x.contiguous()))


def test_starts_normal_with_a_bias_of_zero() -> None:
    linear = Linear(300, 200, std=0.05)
    assert linear.weight.mean().item() == pytest.approx(0, abs=0.001)
    assert linear.weight.std().item() == pytest.approx(0.05, rel=0.02)
    within = (linear.weight.abs() < 0.05).double().mean().item()
    assert within == pytest.approx(0.683, abs=0.01)  # of a normal distribution
    assert not linear.bias.any()
    default = Linear(300, 200).weight.std().item()
    assert default == pytest.approx(0.02, rel=0.02)


def test_parameters_are_trained() -> None:
    parameter = normal_parameter(2, 3, std=1.0)
    assert isinstance(parameter, nn.Parameter)
    assert parameter.requires_grad
    assert parameter.shape == (2, 3)


def test_nothing_is_drawn_on_the_meta_device() -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        assert Linear(4, 3).weight.is_meta
    assert torch.equal(torch.get_rng_state(), before)


def test_shows_its_sizes() -> None:
    assert repr(Linear(4, 3)) == "Linear(4, 3)"

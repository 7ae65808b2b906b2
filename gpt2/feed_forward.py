"""The feed-forward network, and its activation functions."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.config import GPT2Config
from gpt2.linear import Linear


def gelu_new(x: Tensor) -> Tensor:
    r"""Return GPT-2's GELU, the tanh form, of each number in `x` (any shape).

    $\tfrac{1}{2} x (1 + \tanh(\sqrt{2/\pi} (x + 0.044715 x^3)))$: Hendrycks
    and Gimpel (2016), section 2; openai/gpt-2 `src/model.py`. It differs from
    the exact form by up to 0.0005, which is visible in the logits.
    """
    return F.gelu(x, approximate="tanh")


def gelu(x: Tensor) -> Tensor:
    r"""Return the exact GELU of each number in `x` (any shape).

    $x \Phi(x)$, with $\Phi$ the cumulative distribution function of the
    standard normal distribution: Hendrycks and Gimpel (2016), section 2.
    """
    return F.gelu(x)


def relu(x: Tensor) -> Tensor:
    """Return max(0, x) of each number in `x` (any shape).

    Vaswani et al. (2017), section 3.3.
    """
    return F.relu(x)


ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": gelu_new,
    "gelu": gelu,
    "relu": relu,
}


class FeedForward(nn.Module):
    """Widen each position's vector, apply the activation, and narrow it again.

    $f(x W_1 + b_1) W_2 + b_2$ at every position by itself: Vaswani et al.
    (2017), section 3.3. `c_fc` and `c_proj` are the checkpoint's names for the
    two maps.
    """

    def __init__(self, config: GPT2Config) -> None:
        """Build the two maps of one layer's feed-forward network."""
        super().__init__()
        self.activation = ACTIVATION_FUNCTIONS[config.activation]
        self.c_fc = Linear(config.n_embd, config.inner_size)
        self.c_proj = Linear(
            config.inner_size, config.n_embd, std=config.residual_std
        )
        self.dropout = nn.Dropout(config.resid_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position: (B, T, C) to (B, T, C)."""
        hidden = self.activation(self.c_fc(x))  # (B, T, 4C)
        return self.dropout(self.c_proj(hidden))  # (B, T, C)

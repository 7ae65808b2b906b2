"""Layer normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.Module):
    r"""Bring each vector to mean 0 and variance 1, then scale and shift it.

    $y = \gamma \, (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta$, where the
    variance is the biased one (divided by C, not by C - 1). Ba, Kiros and
    Hinton (2016), section 3.
    """

    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        """Start as the plain normalisation: scale 1 and shift 0."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis: (..., C) to (..., C), of the same dtype."""
        return F.layer_norm(
            x, self.weight.shape, self.weight, self.bias, self.epsilon
        )

    def extra_repr(self) -> str:
        """Show the size in `repr`."""
        return f"{len(self.weight)}, epsilon={self.epsilon}"

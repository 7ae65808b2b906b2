"""A linear map in GPT-2's own layout, and how its weights are initialised."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def normal_parameter(*shape: int, std: float) -> nn.Parameter:
    """Return a parameter drawn from a normal distribution with mean 0.

    On the meta device, where a model is built before its weights are read from
    a file, nothing is drawn: there are no numbers, and `normal_` would import
    a compiler.

    Args:
        *shape: The sizes.
        std: The standard deviation.

    Returns:
        A parameter of this shape, of PyTorch's default dtype and device.
    """
    values = torch.empty(shape)
    return nn.Parameter(values if values.is_meta else values.normal_(std=std))


class Linear(nn.Module):
    """Map `x` to `x @ W + b`.

    W has the shape [in, out], as GPT-2 was published (its code calls the map
    `conv1d`), while `torch.nn.Linear` stores the transpose. So the code reads
    like the formula, and a checkpoint's tensors are used as they are in the
    file. See openai/gpt-2 `src/model.py`.
    """

    def __init__(
        self, in_features: int, out_features: int, std: float = 0.02
    ) -> None:
        """Draw W with standard deviation `std`, and set b to 0."""
        super().__init__()
        self.weight = normal_parameter(in_features, out_features, std=std)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map to the last axis: (..., in) to (..., out)."""
        # addmm, the fused x @ W + b, takes matrices.
        rows = x.reshape(-1, x.size(-1))  # (N, in)
        product = torch.addmm(self.bias, rows, self.weight)  # (N, out)
        return product.view(*x.shape[:-1], self.bias.size(0))

    def extra_repr(self) -> str:
        """Show the sizes in `repr`."""
        return ", ".join(map(str, self.weight.shape))

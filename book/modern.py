"""Train GPT-2 and a model of today on the same stories.

    python book/modern.py [PROCESSES]      # as many runs at a time

The model of today has the layers of Llama 3 (Grattafiori et al., 2024): rotary
positions, RMSNorm, a gated feed-forward network, keys and values that several
queries share, and no biases. Each of these changes is made alone as well. All
models read the same stories in the same order, and are trained and measured as
in `scaling.py`.

A change leaves the number of FLOPs as it is, those of norms, activations and
rotations aside: the matrices of a layer hold 12 C^2 numbers in every model.
One model of today has a wider feed-forward network instead, and as many
parameters as GPT-2. GPT-2 and the model of today also get half and twice the
learning rate, since it was chosen for GPT-2.

The gaps go to `gpt2_book/data/modern.json`, run by run. A run that is in the
file is not repeated. Chapter 17 of the book compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from scaling import Setting, run_all
from torch import Tensor, nn

from gpt2 import GPT2, GPT2Config, MultiHeadAttention
from gpt2.linear import Linear, normal_parameter
from gpt2_book import DATA

PLACE = DATA / "modern.json"
SEEDS = (0, 1, 2)
WIDTH, N_LAYER, N_HEAD, N_GROUP = 48, 3, 4, 2
BASE = 500_000.0
"""Of the rotary positions in Llama 3 (section 3.2 of the paper)."""
WIDER = 176
"""The inner width with which the model of today has as many parameters."""


def rotate(x: Tensor, base: float = BASE) -> Tensor:
    """Turn pairs of numbers by angles that grow with the position.

    Su et al. (2021), section 3.2.2; the pairs are neighbours, as there.

    Args:
        x: (..., T, D), at positions 0 to T - 1; D is even.
        base: Pair i turns by `base ** (-2 * i / D)` radians per position.

    Returns:
        The shape and dtype of `x`.
    """
    size = x.size(-1)
    speeds = base ** (-torch.arange(0, size, 2, device=x.device) / size)
    angles = torch.arange(x.size(-2), device=x.device)[:, None] * speeds
    cos, sin = angles.cos(), angles.sin()  # (T, D / 2)
    one, other = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = one * cos - other * sin, one * sin + other * cos
    return torch.stack(turned, dim=-1).flatten(-2)


class ModernAttention(MultiHeadAttention):
    """Attention with fewer heads of keys and values, or rotary positions.

    `c_attn` holds the maps to queries, keys and values side by side. There is
    no cache.
    """

    def __init__(self, config: GPT2Config, n_group: int, rotary: bool) -> None:
        """Build the maps for `n_group` heads of keys and values."""
        super().__init__(config)
        self.rotary = rotary
        self.widths = [config.n_embd, *2 * [n_group * config.head_size]]
        self.c_attn = Linear(config.n_embd, sum(self.widths))

    def project(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, T, C) to queries, keys and values, (B, H, T, D) each."""
        size = self.n_embd // self.n_head
        q, k, v = (
            part.unflatten(-1, (-1, size)).transpose(1, 2)
            for part in self.c_attn(query).split(self.widths, dim=-1)
        )  # (B, H, T, D), (B, G, T, D), (B, G, T, D)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        serves = q.size(1) // k.size(1)
        k, v = (x.repeat_interleave(serves, dim=1) for x in (k, v))
        return q, k, v


class GatedFeedForward(nn.Module):
    """SwiGLU: (silu(x G) * x U) D, without biases.

    Shazeer (2020), equation 6.
    """

    def __init__(self, config: GPT2Config, inner: int) -> None:
        """Draw the three matrices; `inner` is the width of the middle."""
        super().__init__()
        width = config.n_embd
        self.gate = normal_parameter(width, inner, std=0.02)
        self.up = normal_parameter(width, inner, std=0.02)
        self.down = normal_parameter(inner, width, std=config.residual_std)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position: (B, T, C) to (B, T, C)."""
        return (F.silu(x @ self.gate) * (x @ self.up)) @ self.down


class NoPositions(nn.Module):
    """Stands where the table of positions was, and adds nothing."""

    def forward(self, positions: Tensor) -> Tensor:
        """Return a zero for all positions."""
        return torch.zeros((), device=positions.device)


def norms(model: GPT2) -> None:
    """Replace every norm by RMSNorm."""
    width, epsilon = model.config.n_embd, model.config.layer_norm_epsilon
    for layer in model.h:
        layer.ln_1 = nn.RMSNorm(width, epsilon)
        layer.ln_2 = nn.RMSNorm(width, epsilon)
    model.ln_f = nn.RMSNorm(width, epsilon)


def attention(model: GPT2, n_group: int, rotary: bool) -> None:
    """Replace every attention, and the table of positions if it is rotary."""
    for layer in model.h:
        layer.attn = ModernAttention(model.config, n_group, rotary)
    if rotary:
        model.wpe = NoPositions()


def gated(model: GPT2, inner: int) -> None:
    """Replace every feed-forward network by a gated one."""
    for layer in model.h:
        layer.mlp = GatedFeedForward(model.config, inner)


def no_biases(model: GPT2) -> None:
    """Set the biases of all maps to 0 for good."""
    for module in model.modules():
        if isinstance(module, Linear):
            zeros = torch.zeros_like(module.bias.data)
            del module.bias
            module.register_buffer("bias", zeros)


def modern(model: GPT2, inner: int = 3 * WIDTH) -> None:
    """Make all changes.

    What the groups save goes into the middle of the feed-forward network,
    which has 3 C numbers instead of 8/3 C.
    """
    norms(model)
    attention(model, N_GROUP, rotary=True)
    gated(model, inner)
    no_biases(model)


CHANGES: dict[str, Callable[[GPT2], None]] = {
    "GPT-2": lambda model: None,
    "rotary": lambda model: attention(model, N_HEAD, rotary=True),
    "RMSNorm": norms,
    "gated": lambda model: gated(model, 8 * WIDTH // 3),
    "grouped": lambda model: attention(model, N_GROUP, rotary=False),
    "no biases": no_biases,
    "modern": modern,
    "modern, wider": lambda model: modern(model, WIDER),
}
"""What is done to a new GPT-2, by the name of the model."""


@dataclass(frozen=True)
class Trial(Setting):
    """A run of a changed model."""

    model: str
    times: float
    """The learning rate is so many times that of `Setting`."""

    @property
    def learning_rate(self) -> float:
        """The highest learning rate."""
        return self.times * super().learning_rate

    @property
    def config(self) -> GPT2Config:
        """GPT-2; with groups, its feed-forward network gets what they save."""
        inner = 9 * WIDTH // 2 if self.model == "grouped" else None
        return replace(super().config, n_inner=inner)

    def build(self) -> GPT2:
        """Return a new model with its changes."""
        model = super().build()
        CHANGES[self.model](model)
        return model


def trials() -> list[Trial]:
    """List all runs, in the order in which they are wanted."""
    pair, whole = ["GPT-2", "modern"], ["GPT-2", "modern", "modern, wider"]
    single = [name for name in CHANGES if name not in whole]
    plan = [
        *((name, 1.0, 1_000_000, SEEDS) for name in whole),
        *((name, 1.0, 2_000_000, SEEDS) for name in pair),
        *(
            (name, times, 1_000_000, SEEDS[:1])
            for times in (0.5, 2.0)
            for name in pair
        ),
        *((name, 1.0, 1_000_000, SEEDS) for name in single),
    ]
    return [
        Trial(WIDTH, N_LAYER, N_HEAD, n_tokens, seed, name, times)
        for name, times, n_tokens, seeds in plan
        for seed in seeds
    ]


if __name__ == "__main__":
    run_all(trials(), PLACE)

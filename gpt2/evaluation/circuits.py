"""What the heads of a model do: their attention recorded, and two kinds found.

A *previous-token head* looks from every token to the one before it. An
*induction head* looks for an earlier place at which the same token stood, and
attends to what followed it there: it continues what has been seen before.
Together they copy. Elhage et al. (2021), Olsson et al. (2022).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from gpt2.dropout import without_dropout
from gpt2.layer import GPT2Layer
from gpt2.model import GPT2
from gpt2.sampling import seeded


@torch.no_grad()
def record_attention(model: GPT2, tokens: Tensor) -> Tensor:
    """Run a model and return the attention weights of all its heads.

    Args:
        model: Left as it is; other threads may use it meanwhile.
        tokens: (B, T).

    Returns:
        (n_layer, B, H, T, T); rows ask, columns are asked.
    """
    recorded: list[Tensor] = []

    def record(module: nn.Module, inputs: object, output: Tensor) -> None:
        recorded.append(output)

    model = without_dropout(model)
    for layer in model.h:
        attention = cast(GPT2Layer, layer).attn
        attention.fused = False  # only then are there weights to be seen
        attention.attn_dropout.register_forward_hook(record)
    model(tokens)
    return torch.stack(recorded)


def repeated_tokens(
    choices: Tensor, n_rows: int, length: int, seed: int = 0
) -> Tensor:
    """Draw rows of random tokens, each told twice.

    Nothing but the first telling says what comes in the second, and nothing
    says anything about the first.

    Args:
        choices: Ids to draw from, each row without drawing one twice.
        n_rows: B.
        length: Of one telling.
        seed: Of the draws.

    Returns:
        (B, 2 * length) of int64.
    """
    if length > len(choices):
        raise ValueError(
            f"length must be at most the number of choices, {len(choices)}; "
            f"got {length}"
        )
    generator = seeded(seed, torch.device("cpu"))
    rows = torch.stack(
        [
            choices[torch.randperm(len(choices), generator=generator)[:length]]
            for _ in range(n_rows)
        ]
    )
    return rows.repeat(1, 2)


def previous_token_scores(weights: Tensor) -> Tensor:
    """Return how much each head takes from the token before, on average.

    Args:
        weights: (n_layer, B, H, T, T), from `record_attention`.

    Returns:
        (n_layer, H), from 0 to 1.
    """
    before = weights.diagonal(offset=-1, dim1=-2, dim2=-1)
    return before.mean(dim=(1, -1))


def induction_scores(weights: Tensor, length: int) -> Tensor:
    """Return how much each head takes from what followed the last time.

    Args:
        weights: (n_layer, B, H, T, T), of tokens from `repeated_tokens`.
        length: Of one telling.

    Returns:
        (n_layer, H), from 0 to 1: the mean over the second telling.
    """
    # Position t repeats position t - length, and t - length + 1 followed it.
    followed = weights.diagonal(offset=1 - length, dim1=-2, dim2=-1)
    return followed[..., 1:].mean(dim=(1, -1))

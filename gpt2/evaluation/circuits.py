"""Record the attention of all heads, and find two kinds of heads.

A *previous-token head* attends from every token to the one before it. An
*induction head* finds an earlier occurrence of the current token and attends
to the token after it. Together they copy a sequence seen before. Elhage et al.
(2021), "A Mathematical Framework for Transformer Circuits"; Olsson et al.
(2022), "In-context Learning and Induction Heads".
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
        model: Not changed; other threads can use it at the same time.
        tokens: (B, T) int64.

    Returns:
        (n_layer, B, H, T, T) in the dtype of the model; a row of a matrix is
        a query, a column a key.

    Raises:
        ValueError: The model is not a `GPT2`, or the tokens do not fit it.
    """
    if not isinstance(model, GPT2):
        raise ValueError(
            f"expected a GPT2, got a {type(model).__name__}; of a packed "
            "model, pass the GPT2 that it was packed from"
        )
    recorded: list[Tensor] = []

    def record(module: nn.Module, inputs: object, output: Tensor) -> None:
        recorded.append(output)

    model = without_dropout(model)
    for layer in model.h:
        attention = cast(GPT2Layer, layer).attn
        attention.fused = False  # fused attention never has the weights
        attention.attn_dropout.register_forward_hook(record)
    model(tokens)
    return torch.stack(recorded)


def repeated_tokens(
    choices: Tensor, n_rows: int, length: int, seed: int = 0
) -> Tensor:
    """Draw rows of random tokens, each followed by a copy of itself.

    Nothing predicts the first half of a row, and only the first half predicts
    the second.

    Args:
        choices: (N,) int64, the ids to draw from, without replacement within
            a row.
        n_rows: The number of rows, B.
        length: The tokens in half a row.
        seed: The seed of the draws, from 0 to 2**32 - 1.

    Returns:
        (B, 2 * length) int64.

    Raises:
        ValueError: `length` is more than N, or the seed is out of range.
    """
    if length > len(choices):
        raise ValueError(
            f"length must be at most {len(choices)}, the number of choices; "
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
    """Return each head's mean attention to the previous token.

    Args:
        weights: (n_layer, B, H, T, T), from `record_attention`.

    Returns:
        (n_layer, H) in the dtype of the weights, from 0 to 1.
    """
    before = weights.diagonal(offset=-1, dim1=-2, dim2=-1)
    return before.mean(dim=(1, -1))


def induction_scores(weights: Tensor, length: int) -> Tensor:
    """Return each head's mean attention to the token that it could copy.

    That is the token after the previous occurrence of the current one. Olsson
    et al. (2022) call this the prefix-matching score.

    Args:
        weights: (n_layer, B, H, T, T), of tokens from `repeated_tokens`.
        length: The tokens in half a row.

    Returns:
        (n_layer, H) in the dtype of the weights, from 0 to 1: the mean over
        the second half of the rows.
    """
    # Position t repeats position t - length, and t - length + 1 followed it.
    followed = weights.diagonal(offset=1 - length, dim1=-2, dim2=-1)
    return followed[..., 1:].mean(dim=(1, -1))

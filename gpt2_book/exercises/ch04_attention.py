"""The exercises of chapter 4."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2.attention import attention_weights, causal_mask
from gpt2_book.exercises.checking import Mistake, NotYet, call, exercise, same

QUERY = torch.tensor([[0.0, 1.0], [2.0, 0.0], [-2.0, 0.5]])  # (T, D)
KEY = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, -2.0]])  # (S, D)


@exercise("key-bias")
def key_bias(answer: Any) -> str:
    """Exercise 4.2: how far a bias of the keys shifts each row of scores."""
    torch.manual_seed(4)
    for n, width in ((3, 2), (5, 16)):
        query, bias = torch.randn(n, width), torch.randn(width)
        right = query @ bias / math.sqrt(width)
        mistakes = [
            Mistake(
                "the scores are divided by √D, and the bias is part of them",
                query @ bias,
            ),
            Mistake("divide by √D, not by D", query @ bias / width),
            Mistake("that is minus the change; the sign is wrong", -right),
            Mistake(
                "that is one number for the whole table; each query has its "
                "own dot product with the bias",
                right.sum(),
            ),
            Mistake(
                "multiply, then add up: a dot product is one number for each "
                "query",
                query * bias / math.sqrt(width),
            ),
        ]
        got = call(answer, query, bias)
        same(got, right, f"the change for D={width}", mistakes)
    return "it is the same for every key, so it cancels in the softmax"


@exercise("window-mask")
def window_mask(answer: Any) -> str:
    """Exercise 4.3: every position sees the last `width` positions only."""
    for n, width in ((5, 2), (6, 3), (4, 1), (3, 5)):
        # How far each key lies behind its query.
        back = torch.arange(n)[:, None] - torch.arange(n)  # (T, S)
        right = (back >= 0) & (back < width)
        mistakes = [
            Mistake(
                "the window is one position too wide: the position itself is "
                "one of the `width` positions",
                (back >= 0) & (back <= width),
            ),
            Mistake(
                "the window is one position too narrow: a position sees "
                "itself and the `width - 1` before it",
                (back >= 0) & (back < width - 1),
            ),
            Mistake(
                "positions see the future: the mask still has to be causal",
                back < width,
            ),
            Mistake(
                "it looks both ways; the window ends at the position itself",
                back.abs() < width,
            ),
            Mistake(
                "True and False are swapped: True marks what may be seen",
                ~right,
            ),
            Mistake(
                "the window is missing; all of the past can be seen",
                back >= 0,
            ),
        ]
        got = call(answer, n, width)
        if isinstance(got, Tensor) and got.dtype != torch.bool:
            raise NotYet(
                f"the mask has dtype {got.dtype}; a mask is torch.bool, like "
                "that of causal_mask"
            )
        same(got, right, f"the mask for n={n}, width={width}", mistakes)
    return "four sizes agree, one with a window wider than the text"


@exercise("turned-query")
def turned_query(answer: Any) -> str:
    """Exercise 4.5: *her* gives *Ella* at least 0.9 of its attention."""
    same(getattr(answer, "shape", None), QUERY.shape, "the shape of `query`")
    same(answer[:2], QUERY[:2], "one of the rows that should stay")
    weights = attention_weights(answer, KEY, causal_mask(3, 3))[2]  # (S,)
    if _parallel(answer[2], QUERY[2]):
        raise NotYet(
            "the last row is only longer or shorter, so its scores keep their "
            f"order: Ella gets {weights[0]:.2f}"
        )
    for place, name in ((1, "lost"), (2, "her")):
        if weights[place] > weights[0]:
            raise NotYet(
                f"{name} gets {weights[place]:.2f}, more than Ella with "
                f"{weights[0]:.2f}: turn the query towards Ella's key and "
                f"away from the key of {name}"
            )
    if weights[0] < 0.9:
        raise NotYet(
            f"the direction is good, but Ella gets {weights[0]:.2f}: a longer "
            "query makes the softmax more decided"
        )
    return f"Ella gets {weights[0]:.2f} of the attention"


def _parallel(one: Tensor, other: Tensor) -> bool:
    """Return whether two vectors (2,) lie on the same line."""
    cross = torch.linalg.cross(F.pad(one, (0, 1)), F.pad(other, (0, 1)))
    return bool(cross.norm() < 1e-4 * one.norm())

"""The exercises of chapter 4."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2.attention import attention_weights, causal_mask
from gpt2_book.exercises.checking import NotYet, call, exercise, same

QUERY = torch.tensor([[0.0, 1.0], [2.0, 0.0], [-2.0, 0.5]])  # (T, D)
KEY = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, -2.0]])  # (S, D)


@exercise("key-bias")
def key_bias(answer: Any) -> str:
    """Exercise 4.2: how far a bias of the keys moves each row of scores."""
    torch.manual_seed(4)
    for n, width in ((3, 2), (5, 16)):
        query, bias = torch.randn(n, width), torch.randn(width)
        expected = query @ bias / math.sqrt(width)
        mistakes = {
            "the scores are divided by the root of D, and the bias is part "
            "of them": query @ bias,
            "divide by the root of D, not by D": query @ bias / width,
            "it is minus the change": -expected,
            "that is one number for the whole table; each query has its own "
            "dot product with the bias": expected.sum(),
            "multiply and then add up: a dot product is one number for each "
            "query": query * bias / math.sqrt(width),
        }
        came = call(answer, query, bias)
        same(came, expected, f"the change for D={width}", mistakes)
    return "and since it is the same for every key, no weight notices it"


@exercise("window-mask")
def window_mask(answer: Any) -> str:
    """Exercise 4.3: every position sees the last `width` positions only."""
    for n, width in ((5, 2), (6, 3), (4, 1), (3, 5)):
        rows, columns = torch.arange(n)[:, None], torch.arange(n)
        back = rows - columns  # how far each key lies behind its query
        mistakes = {
            "the window is one position too wide: itself counts as one of "
            "the `width` positions": (back >= 0) & (back <= width),
            "the window is one position too narrow: a position sees itself "
            "and `width - 1` before it": (back >= 0) & (back < width - 1),
            "positions see the future: the mask still has to be causal": (
                back < width
            ),
            "it looks on both sides; the window ends at the position itself": (
                back.abs() < width
            ),
            "True and False are exchanged: True is what may be seen": ~(
                (back >= 0) & (back < width)
            ),
            "it has all the past, and no window": back >= 0,
        }
        came = call(answer, n, width)
        if isinstance(came, Tensor) and came.dtype != torch.bool:
            raise NotYet(
                f"the mask has dtype {came.dtype}; a mask is torch.bool, "
                "as causal_mask gives it"
            )
        expected = (back >= 0) & (back < width)
        same(came, expected, f"the mask for n={n}, width={width}", mistakes)
    return "four sizes agree, a window wider than the text among them"


@exercise("turned-query")
def turned_query(answer: Any) -> str:
    """Exercise 4.5: *her* gives *Ella* at least 0.9 of its attention."""
    same(getattr(answer, "shape", None), QUERY.shape, "the shape of `query`")
    same(answer[:2], QUERY[:2], "a row before the last, which is to stay,")
    weights = attention_weights(answer, KEY, causal_mask(3, 3))[2]
    if (
        torch.linalg.cross(
            torch.nn.functional.pad(answer[2], (0, 1)),
            torch.nn.functional.pad(QUERY[2], (0, 1)),
        ).norm()
        < 1e-4 * answer[2].norm()
    ):
        raise NotYet(
            f"the row is only longer or shorter, and the order of its scores "
            f"stays: Ella gets {weights[0]:.2f}"
        )
    for place, name in ((1, "lost"), (2, "her")):
        if weights[place] > weights[0]:
            raise NotYet(
                f"{name} gets {weights[place]:.2f}, more than Ella with "
                f"{weights[0]:.2f}: turn the query towards Ella's key, and "
                f"away from that one"
            )
    if weights[0] < 0.9:
        raise NotYet(
            f"the direction is good, but Ella gets {weights[0]:.2f}: a longer "
            "query decides more clearly"
        )
    return f"Ella gets {weights[0]:.2f} of the attention"

"""The exercises of chapter 14."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import NotYet, call, exercise, same


@exercise("absorbed-scale")
def absorbed_scale(answer: Any) -> str:
    """Exercise 14.2: a `c_attn` that needs no scale afterwards."""
    torch.manual_seed(14)
    for n_head, size in ((3, 4), (2, 9)):
        width = n_head * size
        weight, bias = torch.randn(width, 3 * width), torch.randn(3 * width)
        came = call(answer, weight, bias, n_head)
        if not isinstance(came, tuple | list) or len(came) != 2:
            raise NotYet("return two things, the weight and the bias")
        for new, old, name in (
            (came[0], weight, "weight"),
            (came[1], bias, "bias"),
        ):
            if not isinstance(new, Tensor) or new.shape != old.shape:
                raise NotYet(
                    f"the {name} should keep its shape, {tuple(old.shape)}"
                )
        _compare_scores(weight, bias, came[0], came[1], n_head)
    return (
        "so without the scale nothing is out of reach; it is only further away"
    )


def _compare_scores(
    weight: Tensor,
    bias: Tensor,
    new_weight: Tensor,
    new_bias: Tensor,
    n_head: int,
) -> None:
    """Compare unscaled scores of the new maps with scaled ones of the old."""
    width = weight.size(0)
    size = width // n_head
    x = torch.randn(5, width)
    old, new = x @ weight + bias, x @ new_weight + new_bias
    if not torch.allclose(new[:, 2 * width :], old[:, 2 * width :], atol=1e-4):
        raise NotYet(
            "the values have changed, the last third of the columns; only "
            "scores are scaled"
        )

    def scores(made: Tensor) -> Tensor:
        query, key, _ = made.split(width, dim=-1)
        query = query.unflatten(-1, (n_head, size)).transpose(0, 1)
        key = key.unflatten(-1, (n_head, size)).transpose(0, 1)
        return query @ key.mT  # (H, T, S)

    plain = scores(old)
    root = math.sqrt(size)
    without_bias = x @ (weight / root) + bias
    without_bias[:, width:] = old[:, width:]
    mistakes = {
        "nothing has changed yet: the scores are as large as before": plain,
        "the scores are divided by D, and should be by its root: queries and "
        "keys were both divided by the root of D, or one of them by D": (
            plain / size
        ),
        "the scores are divided by the root of C; each head is only D wide": (
            plain / math.sqrt(width)
        ),
        "they are multiplied, and the scale divides": plain * root,
        "the bias of the queries is part of the queries: divide it too": (
            scores(without_bias)
        ),
    }
    same(scores(new), plain / root, f"the scores with H={n_head}", mistakes)


@exercise("folded-feed-forward")
def folded_feed_forward(answer: Any) -> str:
    """Exercise 14.3: two linear maps in one."""
    torch.manual_seed(14)
    for width, inner in ((3, 12), (5, 7)):
        w_1, b_1 = torch.randn(width, inner), torch.randn(inner)
        w_2, b_2 = torch.randn(inner, width), torch.randn(width)
        came = call(answer, w_1, b_1, w_2, b_2)
        if not isinstance(came, tuple | list) or len(came) != 2:
            raise NotYet("return two things, W and b")
        same(
            came[0],
            w_1 @ w_2,
            "W",
            {
                "W has the two maps in the wrong order: x meets W_1 first, "
                "so it stands on the left": w_2 @ w_1,
                "W is transposed: here a matrix is [in, out]": (w_1 @ w_2).T,
            },
        )
        same(
            came[1],
            b_1 @ w_2 + b_2,
            "b",
            {
                "b_1 goes through the second map as well": b_2,
                "b_2 is still to be added": b_1 @ w_2,
            },
        )
    return "a feed-forward without a bend is one matrix, [C, C]"


@exercise("fixed-norm")
def fixed_norm(answer: Any) -> str:
    """Exercise 14.4: a norm that divides by a number fixed beforehand."""
    torch.manual_seed(14)
    for width, sigma in ((6, 2.5), (5, 0.4)):
        x = torch.randn(2, 3, width) + 1
        weight, bias = torch.randn(width), torch.randn(width)
        centred = x - x.mean(-1, keepdim=True)
        own = centred.square().mean(-1, keepdim=True).sqrt()
        mistakes = {
            "it divides by each vector's own deviation; the number is to be "
            "the same for all, `sigma`": centred / own * weight + bias,
            "the mean of each vector is still to be subtracted": (
                x / sigma * weight + bias
            ),
            "it subtracts one mean for all vectors; each has its own": (
                (x - x.mean()) / sigma * weight + bias
            ),
            "divide by sigma, a deviation; it is no variance": (
                centred / math.sqrt(sigma) * weight + bias
            ),
            "weight and bias are still to be applied": centred / sigma,
            "the bias comes last and is not multiplied": (
                (centred / sigma + bias) * weight
            ),
        }
        came = call(answer, x, sigma, weight, bias)
        expected = centred / sigma * weight + bias
        same(came, expected, f"the result for sigma={sigma}", mistakes)
    return "every vector keeps its own loudness"

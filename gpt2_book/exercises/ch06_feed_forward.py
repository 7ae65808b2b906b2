"""The exercises of chapter 6."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    exercise,
    same,
    unpack,
)


@exercise("scale-and-shift")
def scale_and_shift(answer: Any) -> str:
    """Exercise 6.2: scale and shift move into the map behind the norm."""
    torch.manual_seed(6)
    for n_in, n_out in ((5, 5), (5, 7)):
        gamma, beta = torch.randn(2, n_in)
        weight, bias = torch.randn(n_in, n_out), torch.randn(n_out)
        got = call(answer, gamma, beta, weight, bias)
        what = "two tensors, the new weight and the new bias"
        new_weight, new_bias = unpack(got, 2, what)
        same(
            new_weight,
            gamma[:, None] * weight,
            f"the new weight for a map from {n_in} to {n_out}",
            _weight_mistakes(gamma, beta, weight),
        )
        same(
            new_bias,
            beta @ weight + bias,
            f"the new bias for a map from {n_in} to {n_out}",
            _bias_mistakes(gamma, beta, weight, bias),
        )
    return "with this map, the norm needs no scale and no shift"


def _weight_mistakes(
    gamma: Tensor, beta: Tensor, weight: Tensor
) -> list[Mistake]:
    mistakes = [
        Mistake("that is still the old weight", weight),
        Mistake(
            "that adds up the rows of W; multiply each row by its gamma",
            gamma @ weight,
        ),
        Mistake(
            "gamma is added to W; multiply by it instead",
            gamma[:, None] + weight,
        ),
        Mistake(
            "the rows of W are divided by gamma; multiply them by it",
            weight / gamma[:, None],
        ),
        Mistake(
            "beta has gone into the weight; it belongs in the bias",
            (gamma + beta)[:, None] * weight,
        ),
    ]
    if len(gamma) == weight.size(1):
        why = (
            "you multiply the columns of W by gamma; gamma belongs to the rows"
        )
        mistakes.append(Mistake(why, gamma * weight))
    return mistakes


def _bias_mistakes(
    gamma: Tensor, beta: Tensor, weight: Tensor, bias: Tensor
) -> list[Mistake]:
    mistakes = [
        Mistake("that is still the old bias; beta is lost", bias),
        Mistake("the old bias is lost", beta @ weight),
        Mistake(
            "you multiply beta by gamma; beta was added after gamma, so it "
            "goes through the old W",
            beta @ (gamma[:, None] * weight) + bias,
        ),
    ]
    if len(gamma) == weight.size(1):
        mistakes += [
            Mistake(
                "you add beta as it is; it should go through W first",
                beta + bias,
            ),
            Mistake(
                "you multiply the old bias by gamma; gamma is applied before "
                "W, and the bias is added after it",
                gamma * bias + beta @ weight,
            ),
            Mistake(
                "that is W @ beta; vectors are rows here, so it is beta @ W",
                weight @ beta + bias,
            ),
        ]
    return mistakes


@exercise("rms-norm")
def rms_norm(answer: Any) -> str:
    """Exercise 6.3: divide by the root of the mean square."""
    torch.manual_seed(6)
    for shape in ((7,), (5, 7), (2, 3, 5)):
        x = 2 * torch.randn(shape) + 1
        right = x / x.square().mean(-1, keepdim=True).sqrt()
        got = call(answer, x)
        same(got, right, f"the result for shape {shape}", _rms_mistakes(x))
    got = call(answer, torch.zeros(2, 3))
    if not bool(torch.as_tensor(got).isfinite().all()):
        raise NotYet(
            "a vector of zeros becomes NaN; add a small number, 1e-5, under "
            "the root"
        )
    return "each vector has a mean square of 1, whatever its mean"


def _rms_mistakes(x: Tensor) -> list[Mistake]:
    square = x.square()
    total = square.sum(-1, keepdim=True)
    mean = total / x.size(-1)
    root = mean.sqrt()
    centred = x - x.mean(-1, keepdim=True)
    deviation = centred.square().mean(-1, keepdim=True).sqrt()
    all_axes = tuple(range(x.dim()))
    return [
        Mistake(
            "that is the layer norm; RMSNorm does not subtract the mean",
            centred / deviation,
        ),
        Mistake("you still subtract the mean", centred / root),
        Mistake(
            "you divide by the standard deviation, which is around the mean; "
            "take the mean square of x itself",
            x / deviation,
        ),
        Mistake("you divide by the mean square; take its root", x / mean),
        Mistake("you add up the squares; take their mean", x / total.sqrt()),
        Mistake("you multiply by the root; divide by it", x * root),
        Mistake("that is the divisor, not the quotient", root.expand_as(x)),
        Mistake(
            "you divide by the mean absolute value; square the numbers first",
            x / x.abs().mean(-1, keepdim=True),
        ),
        Mistake(
            "you average over all vectors; normalise each vector by itself",
            x / square.mean(all_axes, keepdim=True).sqrt(),
        ),
        Mistake(
            "you average over the positions; normalise each vector by itself",
            x / square.mean(max(x.dim() - 2, 0), True).sqrt(),
        ),
        Mistake(
            "you divide by n - 1; the mean of n squares is their sum over n",
            x / (total / (x.size(-1) - 1)).sqrt(),
        ),
    ]

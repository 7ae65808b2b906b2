"""The exercises of chapter 6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gpt2_book.exercises.checking import NotYet, call, describe, exercise, same


@exercise("scale-and-shift")
def scale_and_shift(answer: Any) -> str:
    """Exercise 6.2: scale and shift move into the map behind the norm."""
    torch.manual_seed(6)
    for n_in, n_out in ((5, 5), (5, 7)):
        gamma, beta = torch.randn(2, n_in)
        weight, bias = torch.randn(n_in, n_out), torch.randn(n_out)
        came = call(answer, gamma, beta, weight, bias)
        if not isinstance(came, Sequence) or len(came) != 2:
            raise NotYet(
                "two tensors are wanted, the new weight and the new bias; got "
                f"{describe(came)}"
            )
        square = n_in == n_out
        wrong_weights = {
            "the weight is still the old one": weight,
            "gamma belongs to the rows of W, and there it is multiplied with "
            "the columns": gamma * weight if square else weight,
            "that adds up the rows of W; each is to be multiplied by its "
            "gamma": (gamma @ weight),
            "gamma is added to W; it should be multiplied with it": gamma[
                :, None
            ]
            + weight,
            "the rows of W are multiplied by gamma, not divided": (
                weight / gamma[:, None]
            ),
            "beta has gone into the weight; it belongs in the bias": (
                (gamma + beta)[:, None] * weight
            ),
        }
        scaled = gamma[:, None] * weight
        what = f"the new weight for a map from {n_in} to {n_out}"
        same(came[0], scaled, what, wrong_weights)
        wrong_biases = {
            "the bias is still the old one, and beta is lost": bias,
            "the old bias is lost": beta @ weight,
            "beta is added as it is; it should go through W first": (
                beta + bias if square else bias
            ),
            "beta is multiplied by gamma here; it was added behind gamma, so "
            "it goes through the old W": (beta @ scaled + bias),
            "the old bias is multiplied by gamma, which stood in front of W "
            "and not behind it": (
                gamma * bias + beta @ weight if square else bias
            ),
            "that is W @ beta; a row vector comes from the left, beta @ W": (
                weight @ beta + bias if square else bias
            ),
        }
        what = f"the new bias for a map from {n_in} to {n_out}"
        same(came[1], beta @ weight + bias, what, wrong_biases)
    return "a norm without scale and shift does the same before this map"


@exercise("rms-norm")
def rms_norm(answer: Any) -> str:
    """Exercise 6.3: divide by the root of the mean square."""
    torch.manual_seed(6)
    for shape in ((7,), (5, 7), (2, 3, 5)):
        x = 2 * torch.randn(shape) + 1
        square = x.square()
        centred = x - x.mean(-1, keepdim=True)
        mean = square.mean(-1, keepdim=True)
        every = tuple(range(x.dim()))
        mistakes = {
            "that is the layer norm: the mean is to stay": (
                centred / centred.square().mean(-1, keepdim=True).sqrt()
            ),
            "it still subtracts the mean": centred / mean.sqrt(),
            "it divides by the standard deviation; the mean square is taken "
            "of x itself, not of what it deviates from its mean": (
                x / centred.square().mean(-1, keepdim=True).sqrt()
            ),
            "it divides by the mean square without its root": x / mean,
            "the mean of the squares is wanted, and not their sum": (
                x / square.sum(-1, keepdim=True).sqrt()
            ),
            "it multiplies by the root; it should divide": x * mean.sqrt(),
            "it gives what to divide by, and not the quotient": (
                mean.sqrt().expand_as(x)
            ),
            "it divides by the mean of the absolute values; square them "
            "first": x / x.abs().mean(-1, keepdim=True),
            "it averages over all vectors together; each is normalised by "
            "itself": x / square.mean(every, keepdim=True).sqrt(),
            "it averages over the positions; each vector is normalised by "
            "itself": x / square.mean(max(x.dim() - 2, 0), True).sqrt(),
            "it divides by n - 1; the mean of n squares is their sum over n": (
                x / (square.sum(-1, keepdim=True) / (x.size(-1) - 1)).sqrt()
            ),
        }
        came = call(answer, x)
        what = f"the result for a shape {shape}"
        same(came, x / mean.sqrt(), what, mistakes)
    came = call(answer, torch.zeros(2, 3))
    if not bool(torch.as_tensor(came).isfinite().all()):
        raise NotYet(
            "a vector of zeros becomes NaN; add a little, 1e-5, under the root"
        )
    return "each vector has a mean square of 1, wherever its mean is"

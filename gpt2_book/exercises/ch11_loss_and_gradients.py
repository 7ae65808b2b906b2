"""The exercises of chapter 11."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    exercise,
    same,
    unpack,
    whole_numbers,
)


@exercise("cross-entropy")
def cross_entropy(answer: Any) -> str:
    """Chapter 11, on the way: the surprise at a token, from the logits."""
    torch.manual_seed(11)
    for size, target, shift in ((3, 1, 0.0), (17, 0, -2.0), (5, 4, 400.0)):
        logits = 2 * torch.randn(size) + shift
        p = logits.softmax(-1)
        right = -logits.log_softmax(-1)[target]
        large = (
            "the exponential of a logit in the hundreds is infinite; subtract "
            "the largest logit from all of them first"
        )
        mistakes = [
            Mistake("a surprise is not negative: it is -log p", -right),
            Mistake("that is the probability; take -log of it", p[target]),
            Mistake(
                "that is in bits; use the natural log", right / math.log(2)
            ),
            Mistake(
                "that is the logit; it needs the sum of the exponentials of "
                "all logits as well",
                -logits[target],
            ),
            Mistake(
                "that is the entropy of the guess; what counts is the token "
                "that came",
                -(p * p.log()).sum(),
            ),
            Mistake(
                "that is the mean over the vocabulary; the surprise is that "
                "of one token",
                right / size,
            ),
            Mistake(large, torch.tensor(math.nan)),
            Mistake(large, torch.tensor(math.inf)),
        ]
        got = torch.as_tensor(call(answer, logits, target)).detach()
        what = f"the surprise for V={size}"
        same(got.reshape(()).float(), right, what, mistakes)
    return "the largest logit can be subtracted from all: p stays the same"


@exercise("linear-backward")
def linear_backward(answer: Any) -> str:
    """Chapter 11, on the way: the backward pass of a linear map."""
    torch.manual_seed(11)
    for n, length, inside, outside in ((2, 5, 4, 7), (1, 3, 6, 2)):
        dy, x = torch.randn(n, length, outside), torch.randn(n, length, inside)
        weight = torch.randn(inside, outside)
        dweight = torch.einsum("bti,bto->io", x, dy)
        got = unpack(
            call(answer, dy, x, weight), 3, "dx, dweight and dbias, in a tuple"
        )
        same(got[0], dy @ weight.T, "dx")
        same(
            got[1],
            dweight,
            "dweight",
            [
                Mistake(
                    "dweight has the shape of the weight, (in, out); yours is "
                    "its transpose",
                    dweight.T,
                ),
                Mistake(
                    "one matrix serves all sequences: add up over the batch "
                    "too",
                    x.mT @ dy,
                ),
                Mistake(
                    "roads add: dweight is a sum over positions, not a mean",
                    dweight / (n * length),
                ),
                Mistake(
                    "roads add: dweight is a sum over sequences, not a mean",
                    dweight / n,
                ),
            ],
        )
        same(
            got[2],
            dy.sum((0, 1)),
            "dbias",
            [
                Mistake(
                    "the bias is added at every position: sum over the batch "
                    "and the positions",
                    dy,
                ),
                Mistake(
                    "add up over the positions of all sequences", dy.sum(0)
                ),
                Mistake(
                    "roads add: dbias is a sum, not a mean", dy.mean((0, 1))
                ),
            ],
        )
    return "one product forward, two products backward"


@exercise("softmax-backward")
def softmax_backward(answer: Any) -> str:
    """Chapter 11, on the way: the backward pass of a softmax."""
    torch.manual_seed(11)
    for shape in ((3,), (2, 3, 5, 5), (4, 7)):
        weights = (2 * torch.randn(shape)).softmax(-1)
        dweights = torch.randn(shape)
        product = weights * dweights
        average = product.sum(-1, keepdim=True)
        right = product - weights * average
        mistakes = [
            Mistake(
                "the average is missing: each score has a road to every "
                "weight, through the sum",
                product,
            ),
            Mistake(
                "the average of the dweights is weighted by the weights",
                weights * (dweights - dweights.mean(-1, keepdim=True)),
            ),
            Mistake(
                "you subtract the average, but the factor in front, the "
                "weight itself, is missing",
                dweights - average,
            ),
            Mistake(
                "you followed only the path from each score to its own weight",
                product * (1 - weights),
            ),
            Mistake("the sum is over the last axis", _flat(weights, product)),
            Mistake("the sign is wrong", -right),
        ]
        same(call(answer, dweights, weights), right, "dscores", mistakes)
    return "the dscores of a row add up to 0"


def _flat(weights: Tensor, product: Tensor) -> Tensor:
    """Return dscores with an average over all axes."""
    return product - weights * product.sum()


@exercise("norm-backward")
def norm_backward(answer: Any) -> str:
    """Chapter 11, on the way: the backward pass of the layer norm."""
    torch.manual_seed(11)
    for shape in ((2, 5, 12), (3, 1, 7)):
        x, dy = 3 * torch.randn(shape), torch.randn(shape)
        weight = torch.randn(shape[-1])
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        n = centred / spread
        what = "dx, dweight and dbias, in a tuple"
        got = unpack(call(answer, dy, weight, (n, spread)), 3, what)
        right = _norm_dx(dy * weight, n) / spread
        same(got[0], right, "dx", _norm_mistakes(dy, weight, n, spread))
        axes = (0, 1)
        shapes = Mistake(
            "the scale serves all positions: sum over the first two axes",
            dy * n,
        )
        of_weight = [
            shapes,
            Mistake("add up over the sequences as well", (dy * n).sum(1)),
            Mistake("add up over the positions as well", (dy * n).sum(0)),
            Mistake("the scale is multiplied by n, not by 1", dy.sum(axes)),
        ]
        same(got[1], (dy * n).sum(axes), "dweight", of_weight)
        of_bias = [
            Mistake("the shift serves all positions: sum over them", dy),
            Mistake("the shift serves all sequences, too", dy.sum(1)),
            Mistake("the shift serves all positions, too", dy.sum(0)),
            Mistake(
                "the shift is added after the scale, so the scale has no part "
                "in its gradient",
                (dy * weight).sum(axes),
            ),
        ]
        same(got[2], dy.sum(axes), "dbias", of_bias)
    return "dx has no part in what the norm cannot hear"


def _norm_dx(dn: Tensor, n: Tensor) -> Tensor:
    """Return dx times the spread."""
    along = n * (dn * n).mean(-1, keepdim=True)
    return dn - dn.mean(-1, keepdim=True) - along


def _norm_mistakes(
    dy: Tensor, weight: Tensor, n: Tensor, spread: Tensor
) -> list[Mistake]:
    dn = dy * weight
    mean = dn.mean(-1, keepdim=True)
    along = n * (dn * n).mean(-1, keepdim=True)
    summed = n * (dn * n).sum(-1, keepdim=True)
    return [
        Mistake(
            "two roads are missing: the mean and the spread depend on x too",
            dn / spread,
        ),
        Mistake(
            "the road through the spread is missing", (dn - mean) / spread
        ),
        Mistake("the road through the mean is missing", (dn - along) / spread),
        Mistake("divide by the spread at the end", dn - mean - along),
        Mistake(
            "both terms are means over the vector, not sums",
            (dn - mean - summed) / spread,
        ),
        Mistake(
            "the weight comes after n, so it comes first on the way back: "
            "begin with dn = dy * weight",
            _norm_dx(dy, n) / spread,
        ),
        Mistake(
            "the weight comes after n, so on the way back it is used before "
            "the means are taken",
            weight * _norm_dx(dy, n) / spread,
        ),
    ]


@exercise("zero-gradients")
def zero_gradients(answer: Any) -> str:
    """Exercise 11.1: which numbers of two gradients must be zero."""
    what = 'the positions and a name, such as ([0], "values")'
    positions, third = unpack(answer, 2, what)
    if third not in ("queries", "keys", "values"):
        raise NotYet(f"a third is queries, keys or values; got {third!r}")
    mistakes = [
        Mistake("positions are counted from 0", [6, 7]),
        Mistake("the last position that is read counts too", [4, 5, 6]),
        Mistake("some positions are never read", []),
    ]
    got = sorted(whole_numbers(positions, "a list of positions"))
    same(got, [5, 6], "your list of positions", mistakes)
    biases = [
        Mistake(
            "a bias of the queries adds to each score a number that differs "
            "from key to key, so it moves the weights",
            "queries",
        ),
        Mistake(
            "a bias of the values is added to whatever the head finds, and "
            "goes on into the stream",
            "values",
        ),
    ]
    same(third, "keys", "the third", biases)
    return "what cannot change the weights cannot change the loss"


@exercise("squared-error-gradient")
def squared_error_gradient(answer: Any) -> str:
    """Exercise 11.2: the squared error of a softmax, at the logits."""
    torch.manual_seed(11)
    for size, target in ((3, 1), (5, 4), (17, 0)):
        logits = torch.randn(size)
        p = logits.softmax(-1)
        off = p - F.one_hot(torch.tensor(target), size)
        through = p * (off - (p * off).sum())
        mistakes = [
            Mistake("that is the gradient of the cross-entropy", off),
            Mistake(
                "that is the gradient at the probabilities; take it through "
                "the softmax to the logits",
                2 * off,
            ),
            Mistake("the factor 2 of the square is missing", through),
            Mistake(
                "the sign is wrong: a gradient points to where the loss grows",
                -2 * through,
            ),
            Mistake(
                "each probability depends on all logits; you followed only "
                "the path from each logit to its own probability",
                2 * off * p * (1 - p),
            ),
            Mistake(
                "the average that the softmax subtracts is missing",
                2 * off * p,
            ),
        ]
        got = call(answer, logits, target)
        same(got, 2 * through, f"the gradient for V={size}", mistakes)
    return "where a token has next to no probability, the gradient vanishes"


@exercise("rms-norm-backward")
def rms_norm_backward(answer: Any) -> str:
    """Exercise 11.3: the backward pass of RMSNorm without its scale."""
    torch.manual_seed(11)
    for shape, loudness in (((2, 5, 12), 1.0), ((3, 7), 5.0), ((4,), 0.01)):
        x = loudness * torch.randn(shape)
        dy = torch.randn(shape)
        r = (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        n = x / r
        along = n * (dy * n).mean(-1, keepdim=True)
        summed = n * (dy * n).sum(-1, keepdim=True)
        along_x = x * (dy * x).mean(-1, keepdim=True)
        mistakes = [
            Mistake(
                "the path through r is missing: r depends on x too", dy / r
            ),
            Mistake(
                "this norm does not subtract the mean, so the gradient's mean "
                "stays as well",
                (dy - dy.mean(-1, keepdim=True) - along) / r,
            ),
            Mistake("the second term has the wrong sign", (dy + along) / r),
            Mistake(
                "the part along n is a mean over the vector, not a sum",
                (dy - summed) / r,
            ),
            Mistake(
                "the second term needs the normalised n; you use x there",
                (dy - along_x) / r,
            ),
            Mistake("divide by r at the end", dy - along),
            Mistake(
                "the ε under the root is missing; where x is small, it counts",
                _without_epsilon(dy, x),
            ),
            Mistake(
                "the mean is over the vector, the last axis, and not over all",
                (dy - n * (dy * n).mean()) / r,
            ),
        ]
        same(call(answer, dy, x), (dy - along) / r, "dx", mistakes)
    return "dx has no part along x, and its mean need not be 0"


def _without_epsilon(dy: Tensor, x: Tensor) -> Tensor:
    r = x.square().mean(-1, keepdim=True).sqrt()
    return (dy - x / r * (dy * x / r).mean(-1, keepdim=True)) / r


@exercise("shared-backward")
def shared_backward(answer: Any) -> str:
    """Exercise 11.4: attention backwards, with one key for all heads."""
    torch.manual_seed(11)
    for n, heads, length, size in ((2, 3, 5, 4), (1, 2, 4, 7)):
        q, dmixed = torch.randn(2, n, heads, length, size)
        k, v = torch.randn(2, n, 1, length, size)
        closed = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = (q @ k.mT / math.sqrt(size)).masked_fill(closed, -math.inf)
        weights = scores.softmax(-1)
        got = unpack(
            call(answer, dmixed, q, k, v, weights),
            3,
            "dq, dk and dv, in a tuple",
        )
        of_each = _by_head(dmixed, q, k, v, weights)
        for found, name, right in zip(got, _NAMES, of_each, strict=True):
            if name == "dq":
                same(found, right, name, _query_mistakes(right, size))
            else:
                mistakes = _shared_mistakes(right, size)
                same(found, right.sum(1, keepdim=True), name, mistakes)
    return "every head is a road, and roads add"


_NAMES = ("dq", "dk", "dv")


def _by_head(
    dmixed: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dq, and what each head adds to dk and dv, (B, H, T, D)."""
    dweights = dmixed @ v.mT
    average = (weights * dweights).sum(-1, keepdim=True)
    dscores = weights * (dweights - average) / math.sqrt(q.size(-1))
    return dscores @ k, dscores.mT @ q, weights.mT @ dmixed


def _query_mistakes(dq: Tensor, size: int) -> list[Mistake]:
    return [
        Mistake(
            "the scores were divided by the root of D, so dscores is, too",
            dq * math.sqrt(size),
        ),
        Mistake(
            "each head has its own queries: nothing is added up here",
            dq.sum(1, keepdim=True),
        ),
    ]


def _shared_mistakes(by_head: Tensor, size: int) -> list[Mistake]:
    summed = by_head.sum(1, keepdim=True)
    return [
        Mistake(
            "all heads use the same tensor, so its gradient has one head: add "
            "up over the heads",
            by_head,
        ),
        Mistake(
            "roads add: the gradient is a sum over the heads, not a mean",
            by_head.mean(1, keepdim=True),
        ),
        Mistake("keep the axis of the heads, with the size 1", by_head.sum(1)),
        Mistake(
            "the scores were divided by the root of D, so dscores is, too",
            summed * math.sqrt(size),
        ),
    ]

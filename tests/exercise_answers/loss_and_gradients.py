"""Right and wrong answers to the exercises of chapter 11."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Answers = tuple[object, dict[str, object]]


def off(logits: Tensor, target: int) -> Tensor:
    """Return p - onehot."""
    one_hot = F.one_hot(torch.tensor(target), len(logits))
    return logits.softmax(-1) - one_hot


def squared_error(logits: Tensor, target: int) -> Tensor:
    """Answer exercise 11.2."""
    p, dp = logits.softmax(-1), 2 * off(logits, target)
    return p * (dp - (p * dp).sum())


def root(x: Tensor) -> Tensor:
    """Return what RMSNorm divides by."""
    return (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def rms(dy: Tensor, x: Tensor) -> Tensor:
    """Answer exercise 11.3."""
    leaf = x.clone().requires_grad_()
    (dx,) = torch.autograd.grad(leaf / root(leaf), leaf, dy)
    return dx


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return what causal attention finds."""
    return F.scaled_dot_product_attention(
        q, k.expand(q.shape), v.expand(q.shape), is_causal=True
    )


def shared(
    dmixed: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Tensor
) -> Any:
    """Answer exercise 11.4."""
    return by_autograd(attend, dmixed, q, k, v)


def shared_but(place: int, wrong: Any) -> Any:
    """Answer exercise 11.4, with one of three results wrong."""

    def answer(
        dmixed: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Tensor
    ) -> Any:
        results = [*shared(dmixed, q, k, v, weights)]
        repeated = k.expand(q.shape), v.expand(q.shape)
        by_head = by_autograd(attend, dmixed, q, *repeated)
        results[place] = wrong(results[place], by_head[place])
        return results

    return answer


def surprise(logits: Tensor, target: int) -> float:
    """Answer the try-it of the loss, by a loop over numbers."""
    top = max(logits.tolist())
    total = sum(math.exp(z - top) for z in logits.tolist())
    return math.log(total) + top - float(logits[target])


def by_autograd(forward: Any, dy: Tensor, *inputs: Tensor) -> Any:
    """Return the gradients of a forward pass."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(forward(*leaves), leaves, dy)


def linear(dy: Tensor, x: Tensor, weight: Tensor) -> Any:
    """Answer the try-it of a linear map."""
    dx, dweight = by_autograd(torch.matmul, dy, x, weight)
    return dx, dweight, dy.sum((0, 1))


def linear_with(second: Any, third: Any = None) -> Any:
    """Answer with other gradients of the weight or the bias."""

    def answer(dy: Tensor, x: Tensor, weight: Tensor) -> Any:
        dx, dweight, dbias = linear(dy, x, weight)
        other = dbias if third is None else third(dy)
        return dx, second(dweight, x, dy), other

    return answer


def softmax(dweights: Tensor, weights: Tensor) -> Tensor:
    """Answer the try-it of a softmax."""
    (dscores,) = by_autograd(
        lambda scores: scores.softmax(-1), dweights, weights.log()
    )
    return dscores


def norm(dy: Tensor, weight: Tensor, kept: Any) -> Any:
    """Answer the try-it of the norm: autograd's, of the norm itself."""
    n, spread = kept
    centred, size = n * spread, n.shape[-1:]
    bias = torch.zeros(size)
    return by_autograd(
        lambda x, w, b: F.layer_norm(x, size, w, b), dy, centred, weight, bias
    )


def norm_with(change: Any) -> Any:
    """Answer with another dx."""

    def answer(dy: Tensor, weight: Tensor, kept: Any) -> Any:
        n, spread = kept
        _, dweight, dbias = norm(dy, weight, kept)
        return change(dy * weight, n, spread, dy, weight), dweight, dbias

    return answer


def mean(x: Tensor) -> Tensor:
    """Return the mean over the last axis."""
    return x.mean(-1, keepdim=True)


def norm_but(place: int, wrong: Any) -> Any:
    """Answer the try-it of the norm, with one of three results wrong."""

    def answer(dy: Tensor, weight: Tensor, kept: Any) -> Any:
        results = [*norm(dy, weight, kept)]
        results[place] = wrong(dy, kept[0], weight)
        return results

    return answer


ANSWERS: dict[str, Answers] = {
    "zero-gradients": (
        ([5, 6], "keys"),
        {
            "from 0": ([6, 7], "keys"),
            "counts too": ([4, 5, 6], "keys"),
            "never read": ([], "keys"),
            "differs from key": ((5, 6), "queries"),
            "into the stream": ([6, 5], "values"),
            "queries, keys or values": ([5, 6], 1),
            "expected the positions": 5,
        },
    ),
    "cross-entropy": (
        surprise,
        {
            "is not negative": lambda z, y: z.log_softmax(-1)[y],
            "that is the probability": lambda z, y: z.softmax(-1)[y],
            "in bits": lambda z, y: -z.log_softmax(-1)[y] / math.log(2),
            "that is the logit": lambda z, y: -z[y],
            "the entropy of the guess": lambda z, y: (
                -(z.softmax(-1) * z.log_softmax(-1)).sum()
            ),
            "mean over the vocabulary": lambda z, y: (
                -z.log_softmax(-1)[y] / len(z)
            ),
            "subtract the largest logit": lambda z, y: (
                z.exp().sum().log() - z[y]
            ),
            "in the hundreds": lambda z, y: (
                -(z.exp()[y] / z.exp().sum()).log()
            ),
        },
    ),
    "linear-backward": (
        linear,
        {
            "its transpose": linear_with(lambda dw, x, dy: dw.T),
            "over the batch": linear_with(lambda dw, x, dy: x.mT @ dy),
            "a sum over positions": linear_with(
                lambda dw, x, dy: dw / (x.size(0) * x.size(1))
            ),
            "at every position": linear_with(
                lambda dw, x, dy: dw, lambda dy: dy
            ),
            "of all sequences": linear_with(
                lambda dw, x, dy: dw, lambda dy: dy.sum(0)
            ),
            "a sum, not a mean": linear_with(
                lambda dw, x, dy: dw, lambda dy: dy.mean((0, 1))
            ),
            "expected dx": lambda dy, x, weight: dy @ weight.T,
        },
    ),
    "softmax-backward": (
        softmax,
        {
            "the average is missing": lambda dw, w: w * dw,
            "weighted by the weights": lambda dw, w: w * (dw - mean(dw)),
            "the factor in front": lambda dw, w: (
                dw - (w * dw).sum(-1, keepdim=True)
            ),
            "its own weight": lambda dw, w: w * dw * (1 - w),
            "over the last axis": lambda dw, w: w * (dw - (w * dw).sum()),
            "sign is wrong": lambda dw, w: -softmax(dw, w),
        },
    ),
    "norm-backward": (
        norm,
        {
            "two roads": norm_with(lambda dn, n, s, dy, w: dn / s),
            "through the spread is missing": norm_with(
                lambda dn, n, s, dy, w: (dn - mean(dn)) / s
            ),
            "through the mean is missing": norm_with(
                lambda dn, n, s, dy, w: (dn - n * mean(dn * n)) / s
            ),
            "divide by the spread": norm_with(
                lambda dn, n, s, dy, w: dn - mean(dn) - n * mean(dn * n)
            ),
            "not sums": norm_with(
                lambda dn, n, s, dy, w: (
                    (dn - mean(dn) - n * (dn * n).sum(-1, keepdim=True)) / s
                )
            ),
            "begin with dn": norm_with(
                lambda dn, n, s, dy, w: (dy - mean(dy) - n * mean(dy * n)) / s
            ),
            "before the means": norm_with(
                lambda dn, n, s, dy, w: (
                    w * (dy - mean(dy) - n * mean(dy * n)) / s
                )
            ),
            "expected dx": lambda dy, w, kept: dy,
            "sequences as well": norm_but(1, lambda dy, n, w: (dy * n).sum(1)),
            "positions as well": norm_but(1, lambda dy, n, w: (dy * n).sum(0)),
            "by n, not by 1": norm_but(1, lambda dy, n, w: dy.sum((0, 1))),
            "sum over them": norm_but(2, lambda dy, n, w: dy),
            "all sequences, too": norm_but(2, lambda dy, n, w: dy.sum(1)),
            "all positions, too": norm_but(2, lambda dy, n, w: dy.sum(0)),
            "after the scale": norm_but(
                2, lambda dy, n, w: (dy * w).sum((0, 1))
            ),
        },
    ),
    "squared-error-gradient": (
        squared_error,
        {
            "of the cross-entropy": off,
            "at the probabilities": lambda z, y: 2 * off(z, y),
            "the factor 2": lambda z, y: squared_error(z, y) / 2,
            "sign is wrong": lambda z, y: -squared_error(z, y),
            "only the path": lambda z, y: (
                2 * off(z, y) * z.softmax(-1) * (1 - z.softmax(-1))
            ),
            "the average": lambda z, y: 2 * off(z, y) * z.softmax(-1),
            "has shape": lambda z, y: squared_error(z, y)[:1],
        },
    ),
    "rms-norm-backward": (
        rms,
        {
            "path through r": lambda dy, x: dy / root(x),
            "does not subtract the mean": lambda dy, x: (
                rms(dy, x) - dy.mean(-1, keepdim=True) / root(x)
            ),
            "wrong sign": lambda dy, x: 2 * dy / root(x) - rms(dy, x),
            "not a sum": lambda dy, x: (
                (dy - x * (dy * x).sum(-1, keepdim=True) / root(x) ** 2)
                / root(x)
            ),
            "the normalised n": lambda dy, x: (
                (dy - x * (dy * x).mean(-1, keepdim=True)) / root(x)
            ),
            "divide by r": lambda dy, x: rms(dy, x) * root(x),
            "ε under the root": lambda dy, x: (
                (dy - x * mean(dy * x) / mean(x**2)) / mean(x**2).sqrt()
            ),
            "not over all": lambda dy, x: (
                (dy - x / root(x) * (dy * x / root(x)).mean()) / root(x)
            ),
            "(120 of 120 entries": lambda dy, x: rms(x, dy),
        },
    ),
    "shared-backward": (
        shared,
        {
            "add up over the heads": shared_but(1, lambda own, each: each),
            "has one head": shared_but(2, lambda own, each: each),
            "not a mean": shared_but(1, lambda own, each: own / each.size(1)),
            "keep the axis": shared_but(2, lambda own, each: each.sum(1)),
            "divided by the root of D": shared_but(
                0, lambda own, each: own * math.sqrt(each.size(-1))
            ),
            "so dscores is, too": shared_but(
                1, lambda own, each: own * math.sqrt(each.size(-1))
            ),
            "its own queries": shared_but(
                0, lambda own, each: each.sum(1, keepdim=True)
            ),
            "entries are off": shared_but(1, lambda own, each: -own),
            "expected dq": lambda dmixed, q, k, v, weights: dmixed,
        },
    ),
}

"""Right and wrong answers to the exercises of chapter 18."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Answers = tuple[object, dict[str, object]]


def log_gap(theta: Tensor, n: Tensor, d: Tensor) -> Tensor:
    """Answer the first task of the chapter."""
    a, alpha, b, beta = theta
    return torch.logaddexp(a - alpha * n.log(), b - beta * d.log())


def by_powers(theta: Tensor, n: Tensor, d: Tensor) -> Tensor:
    """Add the two terms themselves."""
    a, alpha, b, beta = theta.tolist()
    return (math.exp(a) / n**alpha + math.exp(b) / d**beta).log()


def turned(theta: Tensor) -> Tensor:
    """Turn the signs of the exponents."""
    return theta * torch.tensor([1, -1, 1, -1])


def logs(theta: Tensor) -> Tensor:
    """Take the logarithms of A and B once more."""
    a, alpha, b, beta = theta
    return torch.stack((a.log(), alpha, b.log(), beta))


def after_one(counts: Tensor) -> float:
    """Answer the second task of the chapter."""
    total = 0.0
    for row in counts:
        for count in row[row > 0]:
            total -= float(count * (count / row.sum()).log())
    return total / float(counts.sum())


def by_the_chain_rule(counts: Tensor) -> Tensor:
    """Take the entropy of the first token off that of the pair."""
    joint = counts / counts.sum()
    pair, first = (torch.special.entr(p).sum() for p in (joint, joint.sum(1)))
    return pair - first


def floor_of(first: float, second: float, third: float) -> float:
    """Answer exercise 18.2."""
    return (first * third - second**2) / (first + third - 2 * second)


def by_the_fall(first: float, second: float, third: float) -> float:
    """Find the factor of the gaps first."""
    fall = (second - third) / (first - second)
    return third - (second - third) * fall / (1 - fall)


def factor(first: float, second: float, third: float) -> float:
    """Return the factor by which the gap falls."""
    return (second - third) / (first - second)


def huber(residuals: Tensor, delta: float) -> Tensor:
    """Answer exercise 18.3."""
    size = residuals.abs()
    far = delta * (size - delta / 2)
    return torch.where(size <= delta, residuals.square() / 2, far)


def one_sided(residuals: Tensor, delta: float) -> Tensor:
    """Forget the absolute value."""
    far = delta * (residuals - delta / 2)
    return torch.where(residuals <= delta, residuals.square() / 2, far)


def torn(residuals: Tensor, delta: float) -> Tensor:
    """Let the two pieces not meet."""
    size = residuals.abs()
    return torch.where(size <= delta, residuals.square() / 2, delta * size)


def steep(residuals: Tensor, delta: float) -> Tensor:
    """Give the line a slope of 1."""
    size = residuals.abs()
    return torch.where(size <= delta, residuals.square() / 2, size - delta / 2)


def swapped(residuals: Tensor, delta: float) -> Tensor:
    """Exchange the pieces."""
    size = residuals.abs()
    return torch.where(
        size <= delta, delta * (size - delta / 2), residuals.square() / 2
    )


def gap_exponent(alpha: float, beta: float) -> float:
    """Answer exercise 18.5."""
    return alpha * beta / (alpha + beta)


ANSWERS: dict[str, Answers] = {
    "scaling-law": (
        log_gap,
        {
            "that is the gap": lambda t, n, d: log_gap(t, n, d).exp(),
            "you add the logarithms": lambda t, n, d: (
                t[0] - t[1] * n.log() + t[2] - t[3] * d.log()
            ),
            "should fall as N and D": lambda t, n, d: log_gap(turned(t), n, d),
            "are ln A and ln B": lambda t, n, d: log_gap(logs(t), n, d),
            "N and D are exchanged": lambda t, n, d: log_gap(t, d, n),
            "of the tokens is missing": lambda t, n, d: t[0] - t[1] * n.log(),
            "of the parameters is missing": lambda t, n, d: (
                t[2] - t[3] * d.log()
            ),
            "to the base 10": lambda t, n, d: log_gap(t, n, d) / math.log(10),
        },
    ),
    "conditional-entropy": (
        after_one,
        {
            "in bits": lambda counts: after_one(counts) / math.log(2),
            "every row counts alike": lambda counts: (
                torch.special.entr(F.normalize(counts, p=1, dim=1))
                .sum(1)
                .mean()
            ),
            "entropy of the pair": lambda counts: torch.special.entr(
                counts / counts.sum()
            ).sum(),
            "when nothing is known": lambda counts: torch.special.entr(
                counts.sum(0) / counts.sum()
            ).sum(),
            "rows and columns": lambda counts: after_one(counts.T),
            "the sign is wrong": lambda counts: -after_one(counts),
            "0 ln 0 counts as 0": lambda counts: (
                -(counts * (counts / counts.sum(1, keepdim=True)).log()).sum()
            ),
        },
    ),
    "floor-from-three": (
        floor_of,
        {
            "last loss for the floor": lambda a, b, c: c,
            "in a straight line": lambda a, b, c: 2 * c - b,
            "that of the losses": lambda a, b, c: c * c / b,
            "that is the factor": factor,
            "that is the first gap": lambda a, b, c: a - floor_of(a, b, c),
            "that is the last gap": lambda a, b, c: c - floor_of(a, b, c),
            "the sign of the correction": lambda a, b, c: (
                2 * c - floor_of(a, b, c)
            ),
        },
    ),
    "huber": (
        huber,
        {
            "half the squares": lambda r, delta: r.square() / 2,
            "the half is missing": lambda r, delta: 2 * huber(r, delta),
            "do not meet at delta": torn,
            "has the slope 1": steep,
            "the pieces are exchanged": swapped,
            "take |r|": one_sided,
            "one number for each": lambda r, delta: huber(r, delta).sum(),
            "expected a tensor": lambda r, delta: float(huber(r, delta).sum()),
        },
    ),
    "gap-exponent": (
        gap_exponent,
        {
            "of the best N": lambda alpha, beta: beta / (alpha + beta),
            "of the best D": lambda alpha, beta: alpha / (alpha + beta),
            "mean of the exponents": lambda alpha, beta: (alpha + beta) / 2,
            "that is their product": lambda alpha, beta: alpha * beta,
            "harmonic mean": lambda alpha, beta: 2 * gap_exponent(alpha, beta),
            "the smaller exponent": min,
            "as a positive number": lambda alpha, beta: (
                -gap_exponent(alpha, beta)
            ),
        },
    ),
}


ALSO_RIGHT: dict[str, list[object]] = {
    "scaling-law": [by_powers],
    "conditional-entropy": [by_the_chain_rule],
    "floor-from-three": [by_the_fall],
    "huber": [
        lambda r, delta: F.huber_loss(
            r, torch.zeros_like(r), reduction="none", delta=delta
        ),
    ],
    "gap-exponent": [lambda alpha, beta: 1 / (1 / alpha + 1 / beta)],
}

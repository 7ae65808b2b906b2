"""The exercises of chapter 17."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import Mistake, NotYet, call, exercise, same


@exercise("compute-optimal")
def compute_optimal(answer: Any) -> str:
    """Exercise 17.2: the size with the lowest loss for given FLOPs."""
    for flops, a, alpha, b, beta in (
        (5e20, 400.0, 0.34, 410.0, 0.28),
        (1e18, 50.0, 0.5, 900.0, 0.25),
        (6e15, 100.0, 0.3, 100.0, 0.3),
    ):
        pairs = flops / 6  # N times D
        ratio, power = alpha * a / (beta * b), 1 / (alpha + beta)
        right = (ratio * pairs**beta) ** power
        mistakes = [
            Mistake("that is the number of tokens; return N", pairs / right),
            Mistake(
                "training takes 6 N D FLOPs, not N D",
                (ratio * flops**beta) ** power,
            ),
            Mistake(
                "2 N D is the forward pass; training takes 6 N D FLOPs",
                (ratio * (flops / 2) ** beta) ** power,
            ),
            Mistake(
                "the derivative brings down the exponents, alpha and beta",
                (a / b * pairs**beta) ** power,
            ),
            Mistake(
                "N stands to the power of alpha + beta; take that root",
                ratio * pairs**beta,
            ),
            Mistake(
                "alpha A and beta B are swapped",
                (pairs**beta / ratio) ** power,
            ),
            Mistake(
                "you raise the FLOPs to alpha; use beta, the exponent of the "
                "tokens",
                (ratio * pairs**alpha) ** power,
            ),
        ]
        got = call(answer, flops, a, alpha, b, beta)
        same(got, right, f"the size for {flops:.0e} FLOPs", mistakes, 1e-3)
    return "no other size has a lower loss for those FLOPs"


@exercise("rotary-halves")
def rotary_halves(answer: Any) -> str:
    """Exercise 17.3: from pairs of neighbours to pairs of halves."""
    torch.manual_seed(17)
    for n_head, size in ((3, 8), (5, 6), (2, 10)):
        width = n_head * size
        x, query, key = (torch.randn(n, width) for n in (7, width, width))
        pairs = torch.arange(width).view(n_head, -1, 2)
        right = query[:, pairs.mT.flatten()]
        got = call(answer, query, n_head)
        what = f"the map for {n_head} heads of {size}"
        if not isinstance(got, Tensor) or got.shape != query.shape:
            same(got, right, what)
        # Compare the scores: other maps have the same, and are right too.
        expected = _scores(x, (query, key), n_head, halves=False)
        maps = (got, call(answer, key, n_head))
        scores = _scores(x, maps, n_head, halves=True)
        if not torch.allclose(scores, expected, 1e-3, 1e-3):
            same(got, right, what, _order_mistakes(query, n_head))
            raise NotYet("the map of the keys is reordered in another way")
    return "the scores agree, for heads of three sizes"


def _order_mistakes(query: Tensor, n_head: int) -> list[Mistake]:
    columns = torch.arange(len(query))
    pairs = columns.view(n_head, -1, 2)
    return [
        Mistake("the columns are where they were", query),
        Mistake(
            "that is the wrong way round: it takes a model that pairs halves "
            "to one that pairs neighbours",
            query[:, columns.view(n_head, 2, -1).mT.flatten()],
        ),
        Mistake(
            "your halves are those of the whole width; each head has its own "
            "halves",
            query[:, columns.view(-1, 2).mT.flatten()],
        ),
        Mistake(
            "the pairs are in place, but the two numbers of each pair are "
            "swapped",
            query[:, pairs.flip(-1).mT.flatten()],
        ),
        Mistake(
            "you reorder the rows, which belong to the input; the columns "
            "make the queries",
            query[pairs.mT.flatten()],
        ),
    ]


def _scores(
    x: Tensor, maps: tuple[Tensor, Tensor], n_head: int, halves: bool
) -> Tensor:
    """Return the scores (H, T, T) of rotary attention."""
    query, key = (
        _rotated((x @ m).unflatten(1, (n_head, -1)).transpose(0, 1), halves)
        for m in maps
    )
    return query @ key.mT


def _rotated(x: Tensor, halves: bool) -> Tensor:
    """Rotate the pairs of (H, T, D) by their positions."""
    n_positions, size = x.shape[-2:]
    speeds = 10_000.0 ** (-torch.arange(0, size, 2) / size)
    angles = torch.arange(n_positions)[:, None] * speeds  # (T, D / 2)
    cos, sin = angles.cos(), angles.sin()
    if halves:
        one, other = x.chunk(2, dim=-1)
    else:
        one, other = x[..., 0::2], x[..., 1::2]
    pair = (one * cos - other * sin, one * sin + other * cos)
    if halves:
        return torch.cat(pair, dim=-1)
    return torch.stack(pair, dim=-1).flatten(-2)


@exercise("normed-scores")
def normed_scores(answer: Any) -> str:
    """Exercise 17.5: queries and keys with a mean square of 1."""
    torch.manual_seed(5)
    for heads, n_queries, n_keys, size in ((3, 4, 5, 8), (2, 7, 7, 6)):
        query = 3 * torch.randn(2, heads, n_queries, size) + 0.5
        key = 0.2 * torch.randn(2, heads, n_keys, size) - 0.1
        right = _normed(query) @ _normed(key).mT / math.sqrt(size)
        got = call(answer, query, key)
        mistakes = _norm_mistakes(query, key, right)
        same(got, right, f"the scores for D={size}", mistakes, 1e-3)
    return "no score is larger than √D, however large the input"


def _normed(x: Tensor, axes: int | tuple[int, ...] = -1) -> Tensor:
    return x / (x.square().mean(axes, keepdim=True) + 1e-5).sqrt()


def _norm_mistakes(query: Tensor, key: Tensor, right: Tensor) -> list[Mistake]:
    size = query.size(-1)
    root = math.sqrt(size)
    usual = query @ key.mT / root
    unit_query, unit_key = (
        x / x.square().sum(-1, keepdim=True).sqrt() for x in (query, key)
    )
    layer_query, layer_key = (
        (x - x.mean(-1, keepdim=True))
        / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        for x in (query, key)
    )
    return [
        Mistake("nothing is normalised; those are the usual scores", usual),
        Mistake("the division by √D is missing", right * root),
        Mistake("you divide by D; divide by √D", right / root),
        Mistake(
            "you give the vectors length 1; a mean square of 1 makes it √D",
            unit_query @ unit_key.mT / root,
        ),
        Mistake(
            "you subtract the mean too; that is a layer norm",
            layer_query @ layer_key.mT / root,
        ),
        Mistake(
            "you normalise only the queries", _normed(query) @ key.mT / root
        ),
        Mistake("you normalise only the keys", query @ _normed(key).mT / root),
        Mistake(
            "you average over the positions; normalise each vector by itself",
            _normed(query, -2) @ _normed(key, -2).mT / root,
        ),
        Mistake(
            "you average over the heads too; normalise each head by itself",
            _normed(query, (1, 3)) @ _normed(key, (1, 3)).mT / root,
        ),
        Mistake("that is the softmax of the scores", right.softmax(-1)),
    ]

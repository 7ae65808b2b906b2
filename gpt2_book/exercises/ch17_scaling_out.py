"""The exercises of chapter 17."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import NotYet, call, exercise, same


@exercise("compute-optimal")
def compute_optimal(answer: Any) -> str:
    """Exercise 17.2: the size of the lowest loss for given FLOPs."""
    for flops, a, alpha, b, beta in (
        (5e20, 400.0, 0.34, 410.0, 0.28),
        (1e18, 50.0, 0.5, 900.0, 0.25),
        (6e15, 100.0, 0.3, 100.0, 0.3),
    ):
        pairs, power = flops / 6, 1 / (alpha + beta)

        def at(
            products: float,
            ratio: float = alpha * a / (beta * b),
            beta: float = beta,
            power: float = power,
        ) -> float:
            return float((ratio * products**beta) ** power)

        expected = at(pairs)
        mistakes = {
            "that is the number of tokens; N is wanted": pairs / expected,
            "training takes 6 N D FLOPs, not N D": at(flops),
            "training takes 6 N D FLOPs; 2 N D are the forward pass": at(
                flops / 2
            ),
            "the exponents come down with the derivative: alpha A against "
            "beta B": at(pairs, a / b),
            "the power of N is alpha + beta, once all are on one side": (
                alpha * a / (beta * b) * pairs**beta
            ),
            "A and B have changed places": at(
                pairs, beta * b / (alpha * a), beta
            ),
            "FLOPs are raised to alpha; it is beta, that of the tokens": at(
                pairs, beta=alpha
            ),
        }
        came = call(answer, flops, a, alpha, b, beta)
        try:
            size = float(came)
        except (TypeError, ValueError) as error:
            raise NotYet("a number of parameters is wanted") from error
        for explanation, wrong in mistakes.items():
            far = not math.isclose(wrong, expected, rel_tol=1e-3)
            if far and math.isclose(size, wrong, rel_tol=1e-3):
                raise NotYet(explanation)
        if not math.isclose(size, expected, rel_tol=1e-3):
            raise NotYet(
                f"for {flops:.0e} FLOPs it gives {size:.3g} parameters, where "
                f"{expected:.3g} give the lowest loss"
            )
    return "no other size has a lower loss for those FLOPs"


def _turned(x: Tensor, halves: bool) -> Tensor:
    """Turn the pairs of (H, T, D) by their positions."""
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


def _scores(
    x: Tensor, maps: tuple[Tensor, Tensor], n_head: int, halves: bool
) -> Tensor:
    """Return the scores (H, T, T) of rotary attention."""
    query, key = (
        _turned((x @ m).unflatten(1, (n_head, -1)).transpose(0, 1), halves)
        for m in maps
    )
    return query @ key.mT


@exercise("rotary-halves")
def rotary_halves(answer: Any) -> str:
    """Exercise 17.3: from pairs of neighbours to pairs of halves."""
    torch.manual_seed(17)
    for n_head, size in ((3, 8), (5, 6), (2, 10)):
        width = n_head * size
        x, query, key = (torch.randn(n, width) for n in (7, width, width))
        columns = torch.arange(width)
        within = columns.view(n_head, -1, 2)
        orders = {
            "the columns are where they were": columns,
            "the wrong way round: that takes a model of halves to one of "
            "neighbours": columns.view(n_head, 2, -1).mT.flatten(),
            "the halves are those of the whole width; each head has halves "
            "of its own": columns.view(-1, 2).mT.flatten(),
            "the pairs are in place, but the two numbers of each are "
            "exchanged": within.flip(-1).mT.flatten(),
        }
        right = within.mT.flatten()
        mistakes = {
            why: query[:, order]
            for why, order in orders.items()
            if not torch.equal(order, right)
        }
        mistakes[
            "the rows are moved: they belong to what comes in; the columns "
            "make the queries"
        ] = query[right]
        came = call(answer, query, n_head)
        what = f"the map for {n_head} heads of {size}"
        if not isinstance(came, Tensor) or came.shape != query.shape:
            same(came, query[:, right], what)
        expected = _scores(x, (query, key), n_head, halves=False)
        maps = (came, call(answer, key, n_head))
        found = _scores(x, maps, n_head, halves=True)
        if not torch.allclose(found, expected, 1e-3, 1e-3):
            same(came, query[:, right], what, mistakes)
            raise NotYet("the map of the keys is moved in another way")
    return "the scores are the same for heads of three sizes"


@exercise("normed-scores")
def normed_scores(answer: Any) -> str:
    """Exercise 17.5: queries and keys with a mean square of 1."""

    def normed(x: Tensor, axis: int | tuple[int, ...] = -1) -> Tensor:
        return x / (x.square().mean(axis, keepdim=True) + 1e-5).sqrt()

    torch.manual_seed(5)
    for heads, n_queries, n_keys, size in ((3, 4, 5, 8), (2, 7, 7, 6)):
        query = 3 * torch.randn(2, heads, n_queries, size) + 0.5
        key = 0.2 * torch.randn(2, heads, n_keys, size) - 0.1
        root = math.sqrt(size)
        whole = normed(query) @ normed(key).mT
        one_long = [
            x / x.square().sum(-1, keepdim=True).sqrt() for x in (query, key)
        ]
        around = [
            (x - x.mean(-1, keepdim=True))
            / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
            for x in (query, key)
        ]
        mistakes = {
            "nothing is normed; these are the usual scores": (
                query @ key.mT / root
            ),
            "the division by the root of D is missing": whole,
            "divide by the root of D, not by D; the length of the two is in "
            "there already": whole / size,
            "the vectors are brought to length 1; with a mean square of 1 "
            "their length is the root of D": one_long[0]
            @ one_long[1].mT
            / root,
            "the mean is taken off too; that is a layer norm": (
                around[0] @ around[1].mT / root
            ),
            "only the queries are normed": normed(query) @ key.mT / root,
            "only the keys are normed": query @ normed(key).mT / root,
            "the mean square is taken over the positions; each vector is "
            "normed by itself": normed(query, -2) @ normed(key, -2).mT / root,
            "the mean square is taken over the heads as well; each head is "
            "normed by itself": normed(query, (1, 3))
            @ normed(key, (1, 3)).mT
            / root,
            "that is the softmax of the scores; the scores are wanted": (
                whole / root
            ).softmax(-1),
        }
        came = call(answer, query, key)
        same(came, whole / root, f"the scores for D={size}", mistakes, 1e-3)
    return "no score is larger than the root of D, however loud the input"

"""The exercises of chapter 17."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpt2.config import GPT2Config
from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    same,
)


@exercise("where-it-stops")
def where_it_stops(answer: Any) -> str:
    """Exercise 17.1: where a sum of hundredths stops in bfloat16."""
    mistakes = [
        Mistake("that is the true sum; a bfloat16 stops before it", 20.0),
        Mistake(
            "between 2 and 4 a step is 1/64, and half of it is less than "
            "0.01, so the sum still moves",
            2.0,
        ),
        Mistake(
            "between 1 and 2 a step is 1/128; even a whole step is less than "
            "0.01",
            1.0,
        ),
        Mistake(
            "from 4 on a step is 1/32, and half of it is more than 0.01", 8.0
        ),
        Mistake("that is where ones stop; here hundredths are added", 256.0),
        Mistake(
            "256 hundredths would be the place if 0.01 were the smallest "
            "step; ask how far apart neighbours are there",
            2.56,
        ),
    ]
    same(_number(answer), 4.0, "the number", mistakes)
    return "from 4 on, half a step is more than a hundredth"


def _number(answer: Any) -> float:
    """Return a number that was handed in."""
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise NotYet(f"expected a number; got {describe(answer)}")
    return float(answer)


@exercise("forward-flops")
def forward_flops(answer: Any) -> str:
    """Section "What one token costs": the FLOPs of a forward pass."""
    for vocab, width, layers, n in ((1440, 192, 4, 91), (50_257, 768, 12, 9)):
        config = GPT2Config(
            n_vocab=vocab, n_embd=width, n_layer=layers, n_head=4
        )
        maps = 12 * layers * width**2
        mix = 2 * layers * n * width
        right = 2 * n * (maps + vocab * width + mix)
        mistakes = [
            Mistake("that is for one token, not for the text", right // n),
            Mistake(
                "those are multiplications; each comes with an addition",
                right // 2,
            ),
            Mistake("the output is missing", 2 * n * (maps + mix)),
            Mistake(
                "attention's scores and its mix are missing",
                2 * n * (maps + vocab * width),
            ),
            Mistake(
                "scores and mix: a query meets all T keys twice, once for the "
                "score and once for the value",
                right - n * mix,
            ),
            Mistake(
                "the matrices of a layer hold 12 C^2 numbers: 4 in attention, "
                "8 in the feed-forward",
                2 * n * (8 * layers * width**2 + vocab * width + mix),
            ),
            Mistake(
                "looking up an embedding costs nothing; count the table once, "
                "for the output",
                right + 2 * n * vocab * width,
            ),
        ]
        got = call(answer, config, n)
        same(got, right, f"the FLOPs of {n} tokens", mistakes)
    return "for two models, it is what PyTorch counts"


@exercise("rotary")
def rotary(answer: Any) -> str:
    """Section "From GPT-2 to today's models": rotary positions."""
    torch.manual_seed(7)
    for size, at in ((8, [0, 1, 5]), (6, [40, 7])):
        x, positions = torch.randn(2, len(at), size), torch.tensor(at)
        turned = partial(_turned, x, positions)
        mistakes = [
            Mistake("nothing is turned", x),
            Mistake(
                "you pair number i with i + D/2; here the pairs are "
                "neighbours (Exercise 17.3 has the others)",
                _rotated(x, halves=True, at=positions),
            ),
            Mistake("you turn the other way round", turned(sign=-1)),
            Mistake(
                "the exponent is -i / D; take -2 * i / D for pair i",
                turned(step=1),
            ),
            Mistake(
                "the exponent is -4 * i / D; take -2 * i / D for pair i",
                turned(step=4),
            ),
            Mistake("the base is 10,000; use the argument", turned(1e4)),
            Mistake(
                "you turn by the place in the row; use `positions`",
                _turned(x, torch.arange(len(at))),
            ),
        ]
        got = call(answer, x, positions)
        same(got, turned(), f"the result for D={size}", mistakes)
    return "two sizes agree, at five positions"


def _turned(
    x: Tensor,
    positions: Tensor,
    base: float = 5e5,
    step: int = 2,
    sign: int = 1,
) -> Tensor:
    """Turn neighbouring pairs of (..., T, D)."""
    pairs = x.unflatten(-1, (-1, 2))
    speeds = base ** (-step * torch.arange(pairs.size(-2)) / x.size(-1))
    angles = sign * positions[:, None] * speeds  # (T, D / 2)
    one, other = pairs.unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    turned = (one * cos - other * sin, one * sin + other * cos)
    return torch.stack(turned, dim=-1).flatten(-2)


@exercise("grouped-attention")
def grouped_attention(answer: Any) -> str:
    """Section "From GPT-2 to today's models": queries that share keys."""
    torch.manual_seed(3)
    for heads, groups, n, size in ((6, 2, 5, 4), (4, 4, 3, 2), (4, 1, 6, 8)):
        query = torch.randn(2, heads, n, size)
        key, value = torch.randn(2, 2, groups, n, size)
        serves = heads // groups
        near = torch.arange(heads) // serves  # the group of each head
        far = torch.arange(heads) % groups
        mistakes = [
            Mistake(
                "the groups are dealt out in turn (`repeat`); H / G "
                "neighbours share a group (`repeat_interleave`)",
                _attended(query, key[:, far], value[:, far]),
            ),
            Mistake(
                "the causal mask is missing",
                _attended(query, key[:, near], value[:, near], causal=False),
            ),
            Mistake(
                "the division by the root of D is missing",
                _attended(
                    query * math.sqrt(size), key[:, near], value[:, near]
                ),
            ),
            Mistake(
                "keys and values are exchanged",
                _attended(query, value[:, near], key[:, near]),
            ),
        ]
        right = _attended(query, key[:, near], value[:, near])
        got = call(answer, query, key, value)
        what = f"the result for {heads} heads in {groups} groups"
        same(got, right, what, mistakes)
    return "three divisions into groups agree"


def _attended(
    query: Tensor, key: Tensor, value: Tensor, causal: bool = True
) -> Tensor:
    """Attend with as many keys and values as queries."""
    scores = query @ key.mT / math.sqrt(query.size(-1))
    if causal:
        n = query.size(-2)
        future = torch.ones(n, n).triu(1).bool()
        scores = scores.masked_fill(future, -math.inf)
    return scores.softmax(-1) @ value


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


def _rotated(x: Tensor, halves: bool, at: Tensor | None = None) -> Tensor:
    """Rotate the pairs of (H, T, D) by their positions."""
    n_positions, size = x.shape[-2:]
    speeds = 500_000.0 ** (-torch.arange(0, size, 2) / size)
    places = torch.arange(n_positions) if at is None else at
    angles = places[:, None] * speeds  # (T, D / 2)
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

"""The exercises of chapter 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    same,
)

SIZES = ((50257, 768, 12), (50257, 1600, 48), (2048, 190, 3))  # V, C, layers


@exercise("table-share")
def table_share(answer: Any) -> str:
    """Exercise 1.2: the share of the parameters that the token table has."""
    for n_vocab, width, n_layer in SIZES:
        table, layers = n_vocab * width, 12 * n_layer * width**2
        same(
            call(answer, n_vocab, width, n_layer),
            table / (table + layers),
            f"the share for V={n_vocab}, C={width} and {n_layer} layers",
            _share_mistakes(n_vocab, width, n_layer),
        )
    return "one C cancels, so the share falls as width and depth grow"


def _share_mistakes(n_vocab: int, width: int, n_layer: int) -> list[Mistake]:
    table, square = n_vocab * width, n_layer * width**2
    layers, vectors = 12 * square, 13 * n_layer * width
    total = table + layers
    return [
        Mistake(
            "you counted a single layer; there are `n_layer` of them",
            table / (table + 12 * width**2),
        ),
        Mistake(
            "that is attention's 4 C² only; the feed-forward part has 8 C²",
            table / (table + 4 * square),
        ),
        Mistake(
            "that is 8 C² for a layer; attention has 4 C², and each of the "
            "feed-forward network's two matrices has 4 C²",
            table / (table + 8 * square),
        ),
        Mistake("that is the share of the layers", layers / total),
        Mistake(
            "that is the ratio of the table to the layers; for a share, "
            "divide by the total, which includes the table",
            table / layers,
        ),
        Mistake("you divided the total by the table", total / table),
        Mistake(
            "leave out the terms that have C alone: biases and norms",
            table / (total + vectors),
        ),
        Mistake(
            "the table has V times C parameters, and you used V alone",
            n_vocab / (n_vocab + layers),
        ),
        Mistake(
            "that is a percentage; a share is between 0 and 1",
            100 * table / total,
        ),
    ]


@exercise("draw-unused")
def draw_unused(answer: Any) -> str:
    """Exercise 1.3: sample a token, but none of those already used."""
    used, n = [0, 2], 500
    drawn = _draws(answer, used, n)
    shares = torch.bincount(torch.tensor(drawn), minlength=len(ODDS)) / n
    if (shares == 1).any():
        raise NotYet(
            "it returns the same token every time; draw one at random, by "
            "the model's probabilities"
        )
    if set(drawn) <= set(used):
        raise NotYet("it draws from the used tokens; leave those out")
    if shares[used].max() > 0:
        n_used = sum(token in used for token in drawn)
        raise NotYet(f"{n_used} of {n} draws gave a token that had been used")
    _check_odds(shares, used, n)
    if _draws(answer, used, 20) != drawn[:20]:
        raise NotYet(
            "the same seed gives different draws; pass the generator on to "
            "torch.multinomial"
        )
    if not {0, 1, 3} <= set(_draws(answer, [], 200)):
        raise NotYet("when nothing has been used, every token may be drawn")
    return "used tokens never come up, and the odds among the others stay"


ODDS = torch.tensor([0.35, 0.3, 0.05, 0.2, 0.1])  # (V,)


def _check_odds(shares: Tensor, used: list[int], n: int) -> None:
    """Check that the other tokens keep their odds relative to each other."""
    left = ODDS.clone()
    left[used] = 0
    even = (left > 0) / (left > 0).sum()
    if (shares - even).abs().max() < 0.08:
        raise NotYet(
            "all other tokens get the same chance; keep the model's odds "
            "among them"
        )
    right = left / left.sum()
    if (shares - right).abs().max() > 0.08:
        worst = int((shares - right).abs().argmax())
        raise NotYet(
            f"token {worst} came up in {shares[worst]:.0%} of {n} draws; its "
            f"share among the unused tokens is {right[worst]:.0%}"
        )


def _draws(answer: Any, used: list[int], n: int) -> list[int]:
    """Draw `n` times, and check that every result is a token id."""
    generator, drawn = torch.Generator().manual_seed(1), []

    def draw(probabilities: Tensor, used: list[int]) -> list[Any]:
        return [answer(probabilities, used, generator) for _ in range(n)]

    given = list(used)
    results = call(draw if callable(answer) else answer, ODDS.clone(), given)
    if given != used:
        raise NotYet("it modifies `used`, a list that belongs to the caller")
    for got in results:
        one = isinstance(got, Tensor) and got.numel() == 1
        token = got.item() if one else got
        if isinstance(token, bool) or not isinstance(token, int):
            raise NotYet(f"it should return one id; got {describe(got)}")
        if not 0 <= token < len(ODDS):
            raise NotYet(f"it returned {token}; the ids go from 0 to 4")
        drawn.append(token)
    return drawn

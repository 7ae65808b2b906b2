"""The exercises of chapter 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import NotYet, call, describe, exercise, same


@exercise("table-share")
def table_share(answer: Any) -> str:
    """Exercise 1.2: the share of the token table, by size."""
    for n_vocab, width, n_layer in (
        (50257, 768, 12),
        (50257, 1600, 48),
        (2048, 190, 3),
    ):
        table, layers = n_vocab * width, 12 * n_layer * width**2
        fewer = 4 * n_layer * width**2
        mistakes = {
            "that is one layer; there are `n_layer` of them": (
                table / (table + 12 * width**2)
            ),
            "those are attention's 4 C² only; the feed-forward has two "
            "matrices that are four times as large": table / (table + fewer),
            "that is 8 C² for a layer; attention has 4 C², and the "
            "feed-forward's two matrices have 4 C² each": (
                table / (table + 2 * fewer)
            ),
            "that is the share of the layers": layers / (table + layers),
            "that is the ratio of the table to the layers; a share is of "
            "everything, the table included": table / layers,
            "that is the ratio of everything to the table; a share is below "
            "1": (table + layers) / table,
            "the terms with C alone, biases and norms, are to be left out": (
                table / (table + n_layer * (12 * width**2 + 13 * width))
            ),
            "the table is V times C, and that is V alone": (
                n_vocab / (n_vocab + layers)
            ),
            "that is per cent; a share is between 0 and 1": (
                100 * table / (table + layers)
            ),
        }
        came = call(answer, n_vocab, width, n_layer)
        same(
            came,
            table / (table + layers),
            f"the share for V={n_vocab}, C={width} and {n_layer} layers",
            mistakes,
        )
    return "C cancels once, so that the share falls as C and depth grow"


@exercise("draw-unused")
def draw_unused(answer: Any) -> str:
    """Exercise 1.3: a draw that refuses some tokens."""
    used, n = [0, 2], 500
    drawn = draws(answer, used, n)
    shares = torch.bincount(torch.tensor(drawn), minlength=len(ODDS)) / n
    if (shares == 1).any():
        raise NotYet(
            "it gives the same token every time; it is to draw one, by the "
            "model's odds"
        )
    if set(drawn) <= set(used):
        raise NotYet("it draws from what was used; that is to be left out")
    if shares[used].max() > 0:
        raise NotYet(
            f"of {n} draws, {sum(d in used for d in drawn)} were tokens that "
            "had been used"
        )
    left = ODDS.clone()
    left[used] = 0
    even = (left > 0) / (left > 0).sum()
    if (shares - even).abs().max() < 0.08:
        raise NotYet(
            "all that is left gets the same chance; the odds of the others "
            "among each other should stay as the model has them"
        )
    expected = left / left.sum()
    if (shares - expected).abs().max() > 0.08:
        worst = int((shares - expected).abs().argmax())
        raise NotYet(
            f"token {worst} came in {shares[worst]:.0%} of {n} draws, and of "
            f"what is left it has {expected[worst]:.0%}"
        )
    if draws(answer, used, 20) != drawn[:20]:
        raise NotYet(
            "the same seed does not give the same draws; hand the generator "
            "on to torch.multinomial"
        )
    if not {0, 1, 3} <= set(draws(answer, [], 200)):
        raise NotYet("with nothing used, every token may be drawn")
    return "what was used never comes, and the odds of the rest stay"


ODDS = torch.tensor([0.35, 0.3, 0.05, 0.2, 0.1])  # (V,)


def draws(answer: Any, used: list[int], n: int) -> list[int]:
    """Draw several times, and see that what comes are ids."""
    generator, drawn = torch.Generator().manual_seed(1), []

    def draw(probabilities: Tensor, used: list[int]) -> list[Any]:
        return [answer(probabilities, used, generator) for _ in range(n)]

    given = list(used)
    several = call(draw if callable(answer) else answer, ODDS.clone(), given)
    if given != used:
        raise NotYet("it changes `used`; whoever calls it keeps that list")
    for came in several:
        one = isinstance(came, Tensor) and came.numel() == 1
        token = came.item() if one else came
        if isinstance(token, bool) or not isinstance(token, int):
            raise NotYet(f"it should return one id, and gave {describe(came)}")
        if not 0 <= token < len(ODDS):
            raise NotYet(f"it gave {token}, and the ids go from 0 to 4")
        drawn.append(token)
    return drawn

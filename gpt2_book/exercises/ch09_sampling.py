"""The exercises of chapter 9."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2.sampling import keep_top_p, scale_by_temperature
from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    same,
)


@exercise("heat-and-cut")
def heat_and_cut(answer: Any) -> str:
    """Exercise 9.2: a distribution for which the order matters."""
    shares = _three_shares(answer)
    logits = shares.log()[None]  # (1, V)
    hot_first = _n_left(keep_top_p(scale_by_temperature(logits, 2.0), 0.7))
    cut_first = _n_left(scale_by_temperature(keep_top_p(logits, 0.7), 2.0))
    if hot_first > cut_first:
        return (
            f"temperature first leaves {hot_first} tokens, top-p first "
            f"{cut_first}"
        )
    largest = shares.max().item()
    if cut_first == 1:
        heated = (shares.sqrt() / shares.sqrt().sum()).max().item()
        raise NotYet(
            f"1 token is left either way: the largest has {largest:.2f}, and "
            f"at a temperature of 2 still {heated:.2f}, which reaches 0.7 "
            "alone"
        )
    if cut_first == 2:
        raise NotYet(
            f"2 tokens are left either way: the largest has {largest:.2f}, "
            "so it takes two even before the temperature; let one reach 0.7"
        )
    raise NotYet(
        "all 3 tokens are left either way; without the temperature, fewer "
        "should reach 0.7"
    )


def _three_shares(answer: Any) -> Tensor:
    """Return the answer as three probabilities: (V,)."""
    try:
        shares = torch.as_tensor(answer, dtype=torch.float32).flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotYet(
            f"expected three probabilities; got {describe(answer)}"
        ) from error
    if len(shares) != 3:
        raise NotYet(f"expected three probabilities; got {len(shares)}")
    if (shares <= 0).all():
        raise NotYet("those are logarithms; give the probabilities themselves")
    if (shares < 0).any():
        raise NotYet("a probability cannot be negative, and one of yours is")
    if abs(shares.sum().item() - 1) > 1e-3:
        raise NotYet(
            f"your probabilities add up to {shares.sum():.3g}, not to 1"
        )
    return shares


def _n_left(logits: Tensor) -> int:
    """Count the tokens that are not ruled out."""
    return int((logits > -math.inf).sum())


# Tokens, and the length of a run.
TEXTS = (
    # After 3 5, three tokens have followed; after 7 3 5, one; after 5, four.
    ([2, 3, 5, 9, 5, 8, 7, 3, 5, 4, 0, 3, 5, 6, 7, 3, 5], 3),
    ([4, 4, 4], 3),  # runs may overlap
    ([1, 2, 3, 4, 5, 2, 3, 4], 4),
    ([6, 1, 6], 2),
    ([1, 2, 3], 3),  # nothing is repeated
    ([5, 5], 4),  # shorter than a run
    ([8, 0, 8], 1),  # a run of one: no token may come back
)


@exercise("repeated-runs")
def repeated_runs(answer: Any) -> str:
    """Exercise 9.3: no run of `n` tokens occurs twice."""
    torch.manual_seed(9)
    for ids, n in TEXTS:
        logits, tokens = torch.randn(1, 11), torch.tensor([ids])
        got = call(answer, logits, tokens, n)
        right = _allow(logits, ids, n)
        what = f"a logit after {ids} for n={n}"
        same(got, right, what, _run_mistakes(logits, ids, n))
    return "seven texts agree; in some of them, runs overlap or branch"


def _run_mistakes(logits: Tensor, ids: list[int], n: int) -> list[Mistake]:
    right = _allow(logits, ids, n)
    return [
        Mistake(
            "set what you rule out to minus infinity; 0 is a good logit",
            right.masked_fill(right == -math.inf, 0.0),
        ),
        Mistake(
            "you leave out the last place; a run may overlap with its first "
            "occurrence",
            _allow(logits, ids, n, but_last=True),
        ),
        Mistake(
            "you forbid runs that are one token too long; the last n - 1 "
            "tokens are the beginning of a run",
            _allow(logits, ids, n + 1),
        ),
        Mistake(
            "you forbid too much: all of the last n - 1 tokens have to match",
            _allow(logits, ids, n - 1),
        ),
        Mistake(
            "you forbid every token of the text; forbid only what would "
            "complete a run",
            _allow(logits, ids, 1),
        ),
        Mistake(
            "you stop at the first place where the run has begun",
            _allow(logits, ids, n, places=slice(None, 1)),
        ),
        Mistake(
            "you use only the last place where the run has begun",
            _allow(logits, ids, n, places=slice(-1, None)),
        ),
        Mistake("you forbid nothing here", logits),
    ]


def _allow(
    logits: Tensor,
    ids: list[int],
    n: int,
    places: slice = slice(None),
    but_last: bool = False,
) -> Tensor:
    """Rule out what would complete a run of `n` for the second time."""
    begun = ids[len(ids) - n + 1 :] if n > 0 else []
    last = len(ids) - max(n, 1) + 1 - but_last
    found = [i for i in range(last) if ids[i : i + n - 1] == begun]
    out = logits.clone()
    out[0, [ids[i + n - 1] for i in found[places]]] = -math.inf
    return out

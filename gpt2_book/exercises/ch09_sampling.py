"""The exercises of chapter 9."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2.sampling import keep_top_p, scale_by_temperature
from gpt2_book.exercises.checking import NotYet, call, describe, exercise, same


@exercise("heat-and-cut")
def heat_and_cut(answer: Any) -> str:
    """Exercise 9.2: a distribution for which the order matters."""
    try:
        shares = torch.as_tensor(answer, dtype=torch.float32).flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotYet(
            f"three probabilities are wanted; got {describe(answer)}"
        ) from error
    if len(shares) != 3:
        raise NotYet(f"three probabilities are wanted; got {len(shares)}")
    if (shares <= 0).all():
        raise NotYet("those are logarithms; probabilities are wanted")
    if (shares < 0).any():
        raise NotYet("one of them is negative, and no probability is")
    if abs(shares.sum().item() - 1) > 1e-3:
        raise NotYet(f"they add up to {shares.sum():.3g}, and not to 1")
    logits = shares.log()[None]  # (1, V)
    hot_first = n_left(keep_top_p(scale_by_temperature(logits, 2.0), 0.7))
    cut_first = n_left(scale_by_temperature(keep_top_p(logits, 0.7), 2.0))
    if hot_first > cut_first:
        return f"{hot_first} are left where heat comes first, else {cut_first}"
    tallest = shares.max().item()
    if cut_first == 1:
        heated = (shares.sqrt() / shares.sqrt().sum()).max().item()
        raise NotYet(
            f"either way 1 is left: the tallest has {tallest:.2f}, and after "
            f"the heat still {heated:.2f}, which reaches 0.7 alone"
        )
    if cut_first == 2:
        raise NotYet(
            f"either way 2 are left: the tallest has {tallest:.2f}, so that "
            "two are needed from the beginning; let one reach 0.7"
        )
    raise NotYet(
        "either way 3 are left, and more there are not: fewer should be "
        "needed at first"
    )


def n_left(logits: Tensor) -> int:
    """Count what is not ruled out."""
    return int((logits > -math.inf).sum())


# Tokens, and the length of a run.
TEXTS = (
    # 3 5 has gone on in three ways; 7 3 5 in one, 5 in four.
    ([2, 3, 5, 9, 5, 8, 7, 3, 5, 4, 0, 3, 5, 6, 7, 3, 5], 3),
    ([4, 4, 4], 3),  # runs may overlap
    ([1, 2, 3, 4, 5, 2, 3, 4], 4),
    ([6, 1, 6], 2),
    ([1, 2, 3], 3),  # nothing has come twice
    ([5, 5], 4),  # shorter than a run
    ([8, 0, 8], 1),  # a run of one: no token may come back
)


@exercise("repeated-runs")
def repeated_runs(answer: Any) -> str:
    """Exercise 9.3: no run of `n` tokens comes twice."""
    torch.manual_seed(9)
    for ids, n in TEXTS:
        logits, tokens = torch.randn(1, 11), torch.tensor([ids])
        expected = allow(logits, ids, n)
        mistakes = {
            "what is ruled out gets minus infinity; a logit of 0 is a good "
            "one": expected.masked_fill(expected == -math.inf, 0.0),
            "a run may overlap with its first part; the last place is "
            "missing": allow(logits, ids, n, but_last=True),
            "it forbids runs of one token more: the last n - 1 tokens are "
            "the beginning": allow(logits, ids, n + 1),
            "it forbids too much: only where all of the last n - 1 tokens "
            "have come before": allow(logits, ids, n - 1),
            "it forbids whatever has come before, and not only what "
            "completes a run": allow(logits, ids, 1),
            "only the first place is found where the run has begun": (
                allow(logits, ids, n, places=slice(None, 1))
            ),
            "only the last place is found where the run has begun": (
                allow(logits, ids, n, places=slice(-1, None))
            ),
            "nothing is forbidden here": logits,
        }
        came = call(answer, logits, tokens, n)
        what = f"the logits after {ids} for n={n}"
        same(came, expected, what, mistakes)
    return "seven texts, in some of which runs overlap or branch"


def allow(
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

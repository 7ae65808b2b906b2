"""The exercises of chapter 4."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2.attention import attention_weights, causal_mask
from gpt2_book.exercises.checking import Mistake, NotYet, call, exercise, same

QUERY = torch.tensor([[0.0, 1.0], [2.0, 0.0], [-2.0, 0.5]])  # (T, D)
KEY = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, -2.0]])  # (S, D)


@exercise("key-bias")
def key_bias(answer: Any) -> str:
    """Exercise 4.2: how far a bias of the keys shifts each row of scores."""
    torch.manual_seed(4)
    for n, width in ((3, 2), (5, 16)):
        query, bias = torch.randn(n, width), torch.randn(width)
        right = query @ bias / math.sqrt(width)
        mistakes = [
            Mistake(
                "the scores are divided by √D, and the bias is part of them",
                query @ bias,
            ),
            Mistake("divide by √D, not by D", query @ bias / width),
            Mistake("that is minus the change; the sign is wrong", -right),
            Mistake(
                "that is one number for the whole table; each query has its "
                "own dot product with the bias",
                right.sum(),
            ),
            Mistake(
                "multiply, then add up: a dot product is one number for each "
                "query",
                query * bias / math.sqrt(width),
            ),
        ]
        got = call(answer, query, bias)
        same(got, right, f"the change for D={width}", mistakes)
    return "it is the same for every key, so it cancels in the softmax"


@exercise("window-mask")
def window_mask(answer: Any) -> str:
    """Exercise 4.3: every position sees the last `width` positions only."""
    for n, width in ((5, 2), (6, 3), (4, 1), (3, 5)):
        # How far each key lies behind its query.
        back = torch.arange(n)[:, None] - torch.arange(n)  # (T, S)
        right = (back >= 0) & (back < width)
        mistakes = [
            Mistake(
                "the window is one position too wide: the position itself is "
                "one of the `width` positions",
                (back >= 0) & (back <= width),
            ),
            Mistake(
                "the window is one position too narrow: a position sees "
                "itself and the `width - 1` before it",
                (back >= 0) & (back < width - 1),
            ),
            Mistake(
                "positions see the future: the mask still has to be causal",
                back < width,
            ),
            Mistake(
                "it looks both ways; the window ends at the position itself",
                back.abs() < width,
            ),
            Mistake(
                "True and False are swapped: True marks what may be seen",
                ~right,
            ),
            Mistake(
                "the window is missing; all of the past can be seen",
                back >= 0,
            ),
        ]
        got = call(answer, n, width)
        if isinstance(got, Tensor) and got.dtype != torch.bool:
            raise NotYet(
                f"the mask has dtype {got.dtype}; a mask is torch.bool, like "
                "that of causal_mask"
            )
        same(got, right, f"the mask for n={n}, width={width}", mistakes)
    return "four sizes agree, one with a window wider than the text"


@exercise("turned-query")
def turned_query(answer: Any) -> str:
    """Exercise 4.5: *her* gives *Ella* at least 0.9 of its attention."""
    same(getattr(answer, "shape", None), QUERY.shape, "the shape of `query`")
    same(answer[:2], QUERY[:2], "one of the rows that should stay")
    weights = attention_weights(answer, KEY, causal_mask(3, 3))[2]  # (S,)
    if torch.equal(answer[2], QUERY[2]):
        raise NotYet(
            "the last row is what it was, and lost gets "
            f"{weights[1]:.2f}; change it"
        )
    if _only_longer(answer[2], QUERY[2]):
        raise NotYet(
            "the last row is only longer or shorter, so its scores keep their "
            f"order: Ella gets {weights[0]:.2f}"
        )
    for place, name in ((1, "lost"), (2, "her")):
        if weights[place] > weights[0]:
            raise NotYet(
                f"{name} gets {weights[place]:.2f}, more than Ella with "
                f"{weights[0]:.2f}: turn the query towards Ella's key and "
                f"away from the key of {name}"
            )
    if weights[0] < 0.9:
        raise NotYet(
            f"the direction is good, but Ella gets {weights[0]:.2f}: a longer "
            "query makes the softmax more decided"
        )
    return f"Ella gets {weights[0]:.2f} of the attention"


def _only_longer(one: Tensor, other: Tensor) -> bool:
    """Return whether two vectors (2,) point in the same direction."""
    return bool(F.cosine_similarity(one, other, dim=0) > 1 - 1e-6)


@exercise("softmax")
def softmax(answer: Any) -> str:
    """Try it yourself: turn each row of numbers into shares."""
    torch.manual_seed(4)
    for shape in ((3,), (4, 3), (2, 4, 3)):
        x = 2 * torch.randn(shape)
        powers, first = x.exp(), max(len(shape) - 2, 0)
        mistakes = [
            Mistake("divide by the sum of the powers of e", powers),
            Mistake(
                "that is the share of each number; raise e to its power first",
                x / x.sum(-1, keepdim=True),
            ),
            Mistake(
                "your shares add up to one over the whole table; each row is "
                "a whole of its own",
                powers / powers.sum(),
            ),
            Mistake(
                "your columns add up to one; the rows should",
                powers / powers.sum(first, keepdim=True),
            ),
            Mistake("those are powers of 2; take powers of e", _shares(2**x)),
            Mistake("that is the logarithm of the shares", x.log_softmax(-1)),
        ]
        got = call(answer, x)
        same(got, x.softmax(-1), f"the result for shape {shape}", mistakes)
    large = torch.tensor([400.0, 399.0])
    if not bool(call(answer, large).isfinite().all()):
        raise NotYet(
            "for the scores 400 and 399 you return NaN: e to the 400 is "
            "more than the machine can hold. Subtract the largest first"
        )
    return "each row is shared out, however large its numbers"


def _shares(powers: Tensor) -> Tensor:
    return powers / powers.sum(-1, keepdim=True)


@exercise("attention-weights")
def weights_of_attention(answer: Any) -> str:
    """Try it yourself: scores, scale, mask, softmax."""
    torch.manual_seed(4)
    for shape in ((4, 3), (2, 3, 5, 4)):
        query, key = torch.randn(2, *shape)
        mask = causal_mask(shape[-2], shape[-2])
        for name, given in (("no mask", None), ("the causal mask", mask)):
            right = attention_weights(query, key, given)
            got = call(answer, query, key, given)
            what = f"the result for queries {shape} and {name}"
            same(got, right, what, _weight_mistakes(query, key, given))
    return "with and without a mask, for one head and for many"


def _weight_mistakes(
    query: Tensor, key: Tensor, mask: Tensor | None
) -> list[Mistake]:
    """Return the results of wrong ways to compute attention weights."""
    scores, width = query @ key.mT, query.size(-1)
    scaled = scores / math.sqrt(width)
    swapped = key @ query.mT / math.sqrt(width)
    found = []
    for why, wrong in {
        "the scores are not scaled; divide them by √D": scores,
        "the scores are divided by D; divide by its root": scores / width,
        "the scores are multiplied by √D; divide by it": scaled * width,
        "queries and keys have changed places: a row is a query's": swapped,
    }.items():
        hidden = wrong if mask is None else wrong.masked_fill(~mask, -math.inf)
        found.append(Mistake(why, hidden.softmax(-1)))
    hidden = scaled if mask is None else scaled.masked_fill(~mask, -math.inf)
    found += [
        Mistake("those are the scores; the softmax is missing", hidden),
        Mistake(
            "your columns add up to one; the softmax belongs on the last "
            "axis, that of the keys",
            hidden.softmax(-2),
        ),
    ]
    if mask is not None:
        found += [
            Mistake("the mask is not used", scaled.softmax(-1)),
            Mistake(
                "a forbidden score is set to 0, and e to the 0 is 1: the "
                "future still gets a share",
                (scaled * mask).softmax(-1),
            ),
            Mistake(
                "the weights are set to 0 behind the softmax, so rows no "
                "longer add up to one; set the scores to minus infinity "
                "before it",
                scaled.softmax(-1) * mask,
            ),
            Mistake(
                "the mask is added as ones and zeros; true should forbid "
                "nothing, and false everything",
                (scaled + mask).softmax(-1),
            ),
            Mistake(
                "the mask is upside down: true means that a query may look",
                scaled.masked_fill(mask, -math.inf).softmax(-1),
            ),
        ]
    return found


@exercise("causal-mask")
def mask_of_the_past(answer: Any) -> str:
    """Try it yourself: which of the keys each of the last queries may see."""
    for n_queries, n_keys in ((3, 3), (5, 5), (2, 5), (1, 4)):
        everything = torch.ones(n_queries, n_keys).bool()
        right = everything.tril(n_keys - n_queries)
        mistakes = [
            Mistake(
                "it is upside down: true means that a query may look", ~right
            ),
            Mistake(
                "a position may look at itself",
                everything.tril(n_keys - n_queries - 1),
            ),
            Mistake(
                "a position sees one key of its future",
                everything.tril(n_keys - n_queries + 1),
            ),
            Mistake(
                "that is the future; a query sees what came before",
                everything.triu(n_keys - n_queries),
            ),
            Mistake(
                "the queries are the last positions, not the first: query 0 "
                "stands at position n_keys - n_queries",
                everything.tril(),
            ),
            Mistake("nothing is hidden", everything),
        ]
        got = call(answer, n_queries, n_keys)
        if isinstance(got, Tensor) and got.dtype != torch.bool:
            raise NotYet(
                f"the mask has dtype {got.dtype}; it should be torch.bool"
            )
        what = f"the mask for {n_queries} queries and {n_keys} keys"
        same(got, right, what, mistakes)
    return "also where the queries are only the last of the positions"


@exercise("same-keys")
def same_keys(answer: Any) -> str:
    """Exercise 4.1: the last of three rows, where all keys are equal."""
    same(
        _row(answer),
        torch.full((3,), 1 / 3),
        "the last row",
        [
            Mistake(
                "a softmax sees differences only, and these scores are equal; "
                "their size does not matter",
                torch.zeros(3),
            ),
            Mistake(
                "the last token has no advantage over the others",
                torch.tensor([0.0, 0.0, 1.0]),
            ),
            Mistake(
                "the first token has no advantage over the others",
                torch.tensor([1.0, 0.0, 0.0]),
            ),
            Mistake(
                "a row is shared out: its numbers add up to one", torch.ones(3)
            ),
        ],
    )
    return "the average over the past, whatever the queries ask"


def _row(answer: Any) -> Any:
    """Return a list of numbers as a tensor, and anything else as it is."""
    try:
        return torch.as_tensor(answer, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        return answer


@exercise("length-cost")
def length_cost(answer: Any) -> str:
    """Exercise 4.4: by what factor the work grows when a text doubles."""
    mistakes = [
        Mistake(
            "twice as many queries, and each meets twice as many keys", 2.0
        ),
        Mistake("D does not grow with the text; only T * T does", 8.0),
        Mistake("that would be a text four times as long", 16.0),
        Mistake("that is the number of doublings; as a factor?", 1.0),
    ]
    same(answer, 4.0, "your factor", mistakes)
    return "twice as many queries, and each meets twice as many keys"

"""The exercises of chapter 9."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2.sampling import (
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    scale_by_temperature,
)
from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    number,
    same,
    unpack,
)


def _same_shares(
    answer: Any,
    logits: Tensor,
    setting: float,
    right: Tensor,
    mistakes: Iterable[Mistake],
) -> None:
    """Compare the distributions that logits lead to: (B, V).

    The logits themselves may differ: a number added to a whole row changes
    nothing, and neither does a very low logit in the place of minus infinity.
    """
    got = call(answer, logits, setting)
    if not isinstance(got, Tensor) or got.shape != logits.shape:
        raise NotYet(
            f"expected logits, {tuple(logits.shape)}; got {describe(got)}"
        )
    shares = got.softmax(-1)
    if shares.isnan().any():
        raise NotYet(
            f"with {setting} a row has no token left, and its softmax is not "
            "a number; the likeliest should always stay"
        )
    same(
        shares,
        right.softmax(-1),
        f"with {setting}, the softmax of your result",
        [Mistake(why, wrong.softmax(-1)) for why, wrong in mistakes],
    )


def _rows() -> Tensor:
    """Draw the logits of three texts: (B, V)."""
    torch.manual_seed(9)
    return 2 * torch.randn(3, 11)


def _without(logits: Tensor, cut: Tensor) -> Tensor:
    return logits.masked_fill(cut, -math.inf)


@exercise("temperature")
def temperature(answer: Any) -> str:
    """Try it yourself: sharpen or flatten."""
    logits = _rows()
    for t in (0.5, 2.0, 0.1):
        shares = logits.softmax(-1)
        mistakes = [
            Mistake("you multiply; divide by the temperature", logits * t),
            Mistake(
                "you divide the probabilities; divide the logits", shares / t
            ),
            Mistake(
                "you return probabilities; return logits",
                (logits / t).softmax(-1),
            ),
            Mistake("nothing is changed", logits),
        ]
        _same_shares(answer, logits, t, logits / t, mistakes)
    return "cold, hot and very cold"


@exercise("top-k")
def top_k(answer: Any) -> str:
    """Try it yourself: the k tallest bars."""
    logits = _rows()
    for k in (1, 3, 11):
        ranks = logits.argsort(-1, descending=True).argsort(-1)
        everywhere = logits.flatten().topk(k).values[-1]
        mistakes = [
            Mistake(
                "0 is a logit like any other; forbid with minus infinity",
                logits.masked_fill(ranks >= k, 0.0),
            ),
            Mistake(f"you keep {k + 1} of them", _without(logits, ranks > k)),
            Mistake("you keep the smallest", _without(logits, ranks < 11 - k)),
            Mistake(
                "every text has a line of its own; you draw one for the "
                "whole batch, by its first text",
                _without(logits, ranks[:1].expand_as(ranks) >= k),
            ),
            Mistake(
                "the tokens that are left are sorted; each has to stay in "
                "its place",
                _without(logits, ranks >= k).sort(-1, descending=True).values,
            ),
            Mistake("nothing is cut", logits),
        ]
        if k == 1:  # then one row at least keeps nothing
            mistakes.append(
                Mistake(
                    "every text has a line of its own; you draw one for the "
                    "whole batch",
                    _without(logits, logits < everywhere),
                )
            )
        _same_shares(answer, logits, k, keep_top_k(logits, k), mistakes)
    return "one, three and all of eleven"


@exercise("top-p")
def top_p(answer: Any) -> str:
    """Try it yourself: the smallest set that reaches a probability."""
    logits = _rows()
    for p in (0.7, 0.3, 0.95):
        ordered, order = logits.sort(-1, descending=True)  # (B, V)
        shares = ordered.softmax(-1)
        sums = shares.cumsum(-1)

        back = order.argsort(-1)
        late = (sums - shares).roll(1, -1) >= p
        late[:, 0] = False
        mistakes = [
            Mistake(
                "you drop the token that crosses the line; it has to stay in",
                _without(ordered, sums > p).gather(-1, back),
            ),
            Mistake(
                "you keep one token too many; the sum is reached before it",
                _without(ordered, late).gather(-1, back),
            ),
            Mistake(
                "you hold each token's own probability against p; add up "
                "those of the taller ones",
                _without(logits, logits.softmax(-1) < 1 - p),
            ),
            Mistake(
                "the tokens that are left are sorted; each has to stay in "
                "its place",
                _without(ordered, sums - shares >= p),
            ),
            Mistake(
                "0 is a logit like any other; forbid with minus infinity",
                ordered.masked_fill(sums - shares >= p, 0.0).gather(-1, back),
            ),
            Mistake("nothing is cut", logits),
        ]
        _same_shares(answer, logits, p, keep_top_p(logits, p), mistakes)
    return "the smallest set that reaches p, at 0.3, 0.7 and 0.95"


@exercise("min-p")
def min_p(answer: Any) -> str:
    """Try it yourself: a line relative to the likeliest token."""
    logits = _rows()
    for p in (0.25, 0.05, 0.9):
        shares = logits.softmax(-1)
        highest = shares.max(-1, keepdim=True).values
        right = keep_min_p(logits, p)
        mistakes = [
            Mistake(
                "your line is p itself; it is p times the likeliest "
                "token's probability",
                _without(logits, shares < p),
            ),
            Mistake(
                "you compare logits; p times the highest probability is "
                "log p added to the highest logit",
                _without(logits, logits < p * logits.max(-1, True).values),
            ),
            Mistake(
                "every text has a likeliest token of its own",
                _without(logits, shares < p * highest.max()),
            ),
            Mistake(
                "0 is a logit like any other; forbid with minus infinity",
                logits.masked_fill(right == -math.inf, 0.0),
            ),
            Mistake("nothing is cut", logits),
        ]
        _same_shares(answer, logits, p, right, mistakes)
    return "a line of its own for each text"


@exercise("repetition-penalty")
def repetition_penalty(answer: Any) -> str:
    """Try it yourself: what has come becomes less likely."""
    logits = _rows()
    tokens = torch.tensor([[3, 3, 5], [0, 1, 2], [7, 10, 7]])  # (B, S)
    came = torch.zeros_like(logits).scatter(1, tokens, 1.0) > 0
    for penalty in (1.5, 3.0):
        got = call(answer, logits, tokens, penalty)
        right = penalize_repetition(logits, tokens, penalty)
        times = torch.zeros_like(logits).scatter_add(
            1, tokens, torch.ones(3, 3)
        )
        power = penalty**times
        mistakes = [
            Mistake(
                "a negative logit divided comes nearer to 0, which is a "
                "reward; multiply it",
                torch.where(came, logits / penalty, logits),
            ),
            Mistake(
                "a positive logit is to be divided and a negative one "
                "multiplied; you do the reverse",
                torch.where(
                    came,
                    torch.where(
                        logits > 0, logits * penalty, logits / penalty
                    ),
                    logits,
                ),
            ),
            Mistake(
                "you punish every token; only those that have come",
                torch.where(logits > 0, logits / penalty, logits * penalty),
            ),
            Mistake(
                "a token that came twice is punished twice; once is enough",
                torch.where(logits > 0, logits / power, logits * power),
            ),
            Mistake(
                "you subtract; that is the frequency penalty",
                logits - penalty * times,
            ),
            Mistake("nothing is changed", logits),
        ]
        same(got, right, "the result", mistakes)
    return "down on either side of 0, and once for each token"


@exercise("dart")
def dart(answer: Any) -> str:
    """Try it yourself: which piece does a dart hit?"""
    p = torch.tensor([0.10, 0.45, 0.05, 0.40])
    throws = (0.02, 0.3, 0.57, 0.8, 0.99)
    right = [0, 1, 2, 3, 3]
    order, n = p.argsort(descending=True), len(p)
    by_size = p[order].cumsum(0)
    mistakes = [
        Mistake("that is the likeliest; it does not heed the dart", [1] * 5),
        Mistake("you count one piece too far", [i + 1 for i in right]),
        Mistake(
            "you stop one piece too early", [max(i - 1, 0) for i in right]
        ),
        Mistake("you stop one piece too early", [i - 1 for i in right]),
        Mistake(
            "the pieces lie in the order of their numbers, unsorted",
            [int(order[int((by_size <= throw).sum())]) for throw in throws],
        ),
        Mistake(
            "you return a place of the dart; return the number of the piece",
            list(throws),
        ),
        Mistake(
            "the dart is thrown at equal pieces; each has the length of its "
            "probability",
            [int(throw * n) for throw in throws],
        ),
    ]
    got = [call(answer, p, throw) for throw in throws]
    numbers = [one.item() if isinstance(one, Tensor) else one for one in got]
    same(numbers, right, f"the list of pieces hit by {throws}", mistakes)
    return "five darts, four pieces"


@exercise("greedy-loop")
def greedy_loop(answer: Any) -> str:
    """Try it yourself: read, take the likeliest, append, read again."""
    torch.manual_seed(0)
    config = GPT2Config(n_vocab=17, n_ctx=11, n_embd=12, n_head=3, n_layer=2)
    model = GPT2(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_()
    model.wpe.weight.mul_(3)  # otherwise it says the same again and again
    tokens, n = torch.randint(17, (2, 3)), 5

    def loop(reads: Any, pick: Any, steps: int = n) -> Tensor:
        told = tokens
        for _ in range(steps):
            logits = pick(model(reads(told)))  # (B, V)
            told = torch.cat([told, logits.argmax(-1, keepdim=True)], dim=1)
        return told

    def last(logits: Tensor) -> Tensor:
        return logits[:, -1]

    right = loop(lambda told: told, last)
    mistakes = [
        Mistake("return the texts as well as the new tokens", right[:, 3:]),
        Mistake("you add one token too many", loop(lambda t: t, last, n + 1)),
        Mistake("you add one token too few", loop(lambda t: t, last, n - 1)),
        Mistake(
            "you give the model only the newest token; without a cache it "
            "has to read the whole text",
            loop(lambda told: told[:, -1:], last),
        ),
        Mistake(
            "you read the same prompt every time; give the model what it "
            "has written too",
            loop(lambda told: told[:, :3], last),
        ),
        Mistake(
            "you take the guess after the first position; the new token "
            "comes after the last",
            loop(lambda told: told, lambda logits: logits[:, 0]),
        ),
        Mistake("nothing is added", tokens),
        Mistake(
            "you take the least likely", loop(lambda t: t, lambda z: -last(z))
        ),
    ]
    same(call(answer, model, tokens, n), right, "the result", mistakes)
    return "two texts at once, five tokens each"


@exercise("two-ends")
def two_ends(answer: Any) -> str:
    """Exercise 9.1: how many tokens are left at the ends of each knob."""
    settings = (
        ("top_k=1", 1),
        ("top_p just above 0", 1),
        ("min_p=1", 1),
        ("top_k=1440", 1440),
        ("a temperature of a million", 1440),
    )
    counts = unpack(answer, 5, "five numbers of tokens")
    why = {
        0: "something is always left, the likeliest token at least",
        1440: "that is every token; which of them pass this line?",
        1: "a temperature forbids nothing, and neither does a k of all tokens",
    }
    for (name, right), got in zip(settings, counts, strict=True):
        mistakes = [Mistake(f"{name}: {w}", n) for n, w in why.items()]
        same(got, right, f"the number of tokens with {name}", mistakes)
    return "greedy three times, no filter at all, and a model unheard"


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


@exercise("how-hot")
def how_hot(answer: Any) -> str:
    """Exercise 9.4: the highest temperature that min-p of 0.1 still bears."""
    answer = number(answer)
    if answer not in (2, 3, 4, 6):
        raise NotYet(f"2, 3, 4 or 6; got {describe(answer)}")
    if answer == 2:
        raise NotYet("it can get hotter: where is the line at 3?")
    if answer > 3:
        raise NotYet(
            f"too hot: at {answer:g} the line is 0.1 to the power {answer:g} "
            "of the likeliest, and the thirteenth token has more than that"
        )
    return "at 3 the line still lies above the thirteenth token"

"""Right and wrong answers to the exercises of chapter 9."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import gpt2

Answers = tuple[object, dict[str, object]]
Forbid = Callable[[Tensor, Tensor, int], Tensor]


def forbid(logits: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Answer exercise 9.3."""
    ids, logits = tokens[0].tolist(), logits.clone()
    begun = ids[len(ids) - n + 1 :]
    for i in range(len(ids) - n + 1):
        if ids[i : i + n - 1] == begun:
            logits[0, ids[i + n - 1]] = -math.inf
    return logits


def shifted(by: int) -> Forbid:
    """Answer for a run of another length."""
    return lambda logits, tokens, n: forbid(logits, tokens, max(n + by, 1))


def first_place(logits: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Stop at the first place."""
    ids, logits = tokens[0].tolist(), logits.clone()
    begun = ids[len(ids) - n + 1 :]
    for i in range(len(ids) - n + 1):
        if ids[i : i + n - 1] == begun:
            logits[0, ids[i + n - 1]] = -math.inf
            break
    return logits


def no_overlap(logits: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Stop one place too early."""
    ids, logits = tokens[0].tolist(), logits.clone()
    begun = ids[len(ids) - n + 1 :]
    for i in range(len(ids) - n):
        if ids[i : i + n - 1] == begun:
            logits[0, ids[i + n - 1]] = -math.inf
    return logits


def too_far(logits: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Look one place too far."""
    ids, logits = tokens[0].tolist(), logits.clone()
    begun = ids[len(ids) - n + 1 :]
    for i in range(len(ids)):
        if ids[i : i + n - 1] == begun:
            logits[0, ids[i + n - 1]] = -math.inf
    return logits


def in_place(logits: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Change what was given."""
    logits.copy_(forbid(logits, tokens, n))
    return logits


INF = math.inf


def cut_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest."""
    kth = logits.topk(k).values[:, -1:]
    return logits.masked_fill(logits < kth, -INF)


def cut_k_by_loop(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest, row by row, with a very low logit elsewhere."""
    out = torch.full_like(logits, -1e9)
    for row, kept in enumerate(logits):
        for place in kept.argsort(descending=True)[:k]:
            out[row, place] = kept[place]
    return out


def cut_p(logits: Tensor, p: float, shift: int = 0) -> Tensor:
    """Keep the smallest set that reaches p, or `shift` tokens more."""
    ordered, order = logits.sort(dim=-1, descending=True)
    shares = ordered.softmax(-1)
    cut = (shares.cumsum(-1) - shares >= p).roll(shift, -1)
    cut[:, : max(shift, 0)] = False
    ordered = ordered.masked_fill(cut, -INF)
    return torch.empty_like(logits).scatter(-1, order, ordered)


def cut_p_by_loop(logits: Tensor, p: float) -> Tensor:
    """Take the tallest until the sum is reached, row by row."""
    out = torch.full_like(logits, -INF)
    for row, shares in enumerate(logits.softmax(-1)):
        total = 0.0
        for place in shares.argsort(descending=True).tolist():
            out[row, place] = shares[place].log()
            total += shares[place].item()
            if total >= p:
                break
    return out


def wrong_p(logits: Tensor, p: float) -> Tensor:
    """Drop the token that crosses the line."""
    ordered, order = logits.sort(dim=-1, descending=True)
    sums = ordered.softmax(-1).cumsum(-1)
    ordered = ordered.masked_fill(sums > p, -INF)
    return torch.empty_like(logits).scatter(-1, order, ordered)


def left_sorted(logits: Tensor, p: float) -> Tensor:
    """Forget to put the tokens back."""
    return cut_p(logits, p).sort(dim=-1, descending=True).values


def line(logits: Tensor, p: float) -> Tensor:
    """Answer min-p."""
    highest = logits.max(dim=-1, keepdim=True).values
    return logits.masked_fill(logits < highest + math.log(p), -INF)


def line_by_shares(logits: Tensor, p: float) -> Tensor:
    """Answer min-p with probabilities."""
    shares = logits.softmax(-1)
    kept = shares >= p * shares.max(dim=-1, keepdim=True).values
    return torch.where(kept, shares.log(), -INF)


def punish(logits: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    """Answer the repetition penalty, token by token."""
    out = logits.clone()
    for row, text in enumerate(tokens.tolist()):
        for token in set(text):
            value = logits[row, token]
            lower = value / penalty if value > 0 else value * penalty
            out[row, token] = lower
    return out


def only_divide(logits: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    """Divide whatever the sign."""
    came = torch.zeros_like(logits).scatter(1, tokens, 1.0) > 0
    return torch.where(came, logits / penalty, logits)


def hit(p: Tensor, dart: float) -> int:
    """Answer the dart."""
    for i in range(len(p)):
        if dart < p[i]:
            return i
        dart -= float(p[i])
    return len(p) - 1


def write(model: Any, tokens: Tensor, n: int) -> Tensor:
    """Answer the loop."""
    for _ in range(n):
        likeliest = model(tokens)[:, -1:].argmax(dim=-1)
        tokens = torch.cat([tokens, likeliest], dim=1)
    return tokens


def newest_only(model: Any, tokens: Tensor, n: int) -> Tensor:
    """Read the newest token alone."""
    for _ in range(n):
        likeliest = model(tokens[:, -1:])[:, -1:].argmax(dim=-1)
        tokens = torch.cat([tokens, likeliest], dim=1)
    return tokens


def same_prompt(model: Any, tokens: Tensor, n: int) -> Tensor:
    """Read the prompt again and again."""
    likeliest = model(tokens)[:, -1:].argmax(dim=-1)
    return torch.cat([tokens, likeliest.repeat(1, n)], dim=1)


ALSO_RIGHT: dict[str, list[object]] = {
    "how-hot": [3.0],
    "temperature": [
        lambda z, t: (z - z.max(-1, keepdim=True).values) / t,
        lambda z, t: (z.softmax(-1) ** (1 / t)).log(),
    ],
    "top-k": [cut_k_by_loop],
    "top-p": [cut_p_by_loop],
    "min-p": [line_by_shares],
    "repetition-penalty": [
        lambda z, tokens, penalty: torch.where(
            torch.zeros_like(z).scatter(1, tokens, 1.0) > 0,
            torch.where(z > 0, z / penalty, z * penalty),
            z,
        )
    ],
    "dart": [lambda p, dart: (p.cumsum(0) <= dart).sum()],
    "greedy-loop": [
        lambda model, tokens, n: gpt2.generate(
            model, tokens, n, gpt2.Sampling(temperature=0)
        )
    ],
    "heat-and-cut": [(0.8, 0.1, 0.1)],
    "two-ends": [(1, 1.0, 1, 1440, 1440)],
}

ANSWERS: dict[str, Answers] = {
    "how-hot": (
        3,
        {"hotter": 2, "too hot": 4, "the power 6": 6, "got 1.5": 1.5},
    ),
    "two-ends": (
        [1, 1, 1, 1440, 1440],
        {
            "top_p just above 0: something is always left": [1, 0, 1, 9, 9],
            "min_p=1: that is every token": (1, 1, 1440, 1440, 1440),
            "a temperature forbids nothing": [1, 1, 1, 1440, 1],
            "expected five numbers": [1, 1440],
        },
    ),
    "temperature": (
        lambda z, t: z / t,
        {
            "you multiply": lambda z, t: z * t,
            "you divide the probabilities": lambda z, t: z.softmax(-1) / t,
            "you return probabilities": lambda z, t: (z / t).softmax(-1),
            "nothing is changed": lambda z, t: z,
            "expected logits": lambda z, t: 3.0,
        },
    ),
    "top-k": (
        cut_k,
        {
            "forbid with minus infinity": lambda z, k: (
                z * (cut_k(z, k) > -INF)
            ),
            "you keep 2 of them": lambda z, k: cut_k(z, min(k + 1, 11)),
            "you keep the smallest": lambda z, k: (
                -cut_k(-z, k).abs()
                if k < 0
                else z.masked_fill(
                    z > z.topk(k, largest=False).values[:, -1:], -INF
                )
            ),
            "has to stay in its place": lambda z, k: (
                cut_k(z, k).sort(-1, descending=True).values
            ),
            "a row has no token left": lambda z, k: z.masked_fill(
                z < z.flatten().topk(k).values[-1], -INF
            ),
            "nothing is cut": lambda z, k: z,
        },
    ),
    "top-p": (
        cut_p,
        {
            "it has to stay in": lambda z, p: torch.where(
                z == z.max(-1, keepdim=True).values, z, wrong_p(z, p)
            ),
            "no token left": lambda z, p: wrong_p(z, 0.1),
            "one token too many": lambda z, p: cut_p(z, p, shift=1),
            "has to stay in its place": left_sorted,
            "forbid with minus infinity": lambda z, p: cut_p(z, p).nan_to_num(
                neginf=0.0
            ),
            "nothing is cut": lambda z, p: z,
        },
    ),
    "min-p": (
        line,
        {
            "it is p times the likeliest": lambda z, p: z.masked_fill(
                z.softmax(-1) < p, -INF
            ),
            "log p added": lambda z, p: z.masked_fill(
                z < p * z.max(-1, keepdim=True).values, -INF
            ),
            "forbid with minus infinity": lambda z, p: line(z, p).nan_to_num(
                neginf=0.0
            ),
            "nothing is cut": lambda z, p: z,
        },
    ),
    "repetition-penalty": (
        punish,
        {
            "which is a reward": only_divide,
            "you punish every token": lambda z, tokens, penalty: torch.where(
                z > 0, z / penalty, z * penalty
            ),
            "that is the frequency penalty": lambda z, tokens, penalty: (
                z
                - penalty
                * torch.zeros_like(z).scatter_add(
                    1, tokens, torch.ones(tokens.shape)
                )
            ),
            "nothing is changed": lambda z, tokens, penalty: z,
        },
    ),
    "dart": (
        hit,
        {
            "that is the likeliest": lambda p, dart: int(p.argmax()),
            "one piece too far": lambda p, dart: hit(p, dart) + 1,
            "one piece too early": lambda p, dart: hit(p, dart) - 1,
            "unsorted": lambda p, dart: int(
                p.argsort(descending=True)[
                    hit(p.sort(descending=True).values, dart)
                ]
            ),
        },
    ),
    "greedy-loop": (
        write,
        {
            "as well as the new tokens": lambda model, tokens, n: write(
                model, tokens, n
            )[:, tokens.size(1) :],
            "one token too many": lambda model, tokens, n: write(
                model, tokens, n + 1
            ),
            "one token too few": lambda model, tokens, n: write(
                model, tokens, n - 1
            ),
            "only the newest token": newest_only,
            "the same prompt every time": same_prompt,
            "nothing is added": lambda model, tokens, n: tokens,
        },
    ),
    "heat-and-cut": (
        torch.tensor([0.75, 0.15, 0.10]),
        {
            "still 0.75": [0.9, 0.1, 0.0],
            "it takes two even before": [0.6, 0.3, 0.1],
            "all 3 tokens are left": torch.ones(3) / 3,
            "add up to 1.5": [0.5, 0.5, 0.5],
            "those are logarithms": torch.tensor([0.75, 0.15, 0.10]).log(),
            "cannot be negative": [1.2, -0.1, -0.1],
            "expected three probabilities; got 2": [0.8, 0.2],
            "probabilities; got '0.75": "0.75, 0.15, 0.10",
        },
    ),
    "repeated-runs": (
        forbid,
        {
            "0 is a good logit": lambda logits, tokens, n: forbid(
                logits, tokens, n
            ).nan_to_num(neginf=0.0),
            "one token too long": shifted(1),
            "forbid too much": shifted(-1),
            "every token of the text": lambda logits, tokens, n: forbid(
                logits, tokens, 1
            ),
            "stop at the first place": first_place,
            "may overlap": no_overlap,
            "raises IndexError": too_far,
            "forbid nothing": lambda logits, tokens, n: logits,
            "modifies a tensor": in_place,
        },
    ),
}

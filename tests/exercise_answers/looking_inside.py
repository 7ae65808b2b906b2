"""Right and wrong answers to the exercises of chapter 15."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from gpt2.attention import MultiHeadAttention
from gpt2.evaluation.circuits import induction_scores, previous_token_scores
from gpt2.layer import GPT2Layer
from gpt2.model import GPT2

Answers = tuple[object, dict[str, object]]


def idle(length: int, first: int = 1, seen: int = 1) -> tuple[float, float]:
    """Answer exercise 15.2; `seen` more than t are seen at position t."""
    share = [1 / max(t + seen, 1) for t in range(2 * length)]
    previous = sum(share[first:]) / (2 * length - first)
    return previous, sum(share[length:]) / length


def duplicate(weights: Tensor, length: int, offset: int = 0) -> Tensor:
    """Answer exercise 15.3, or take another diagonal."""
    same = weights.diagonal(offset=offset - length, dim1=-2, dim2=-1)
    return same.mean(dim=(1, -1))


def two_circuits(
    attention: MultiHeadAttention, head: int, rows: bool = True
) -> tuple[Tensor, Tensor]:
    """Write the two products of a head."""
    size = attention.c_proj.weight.size(0) // attention.n_head
    own = slice(head * size, head * size + size)
    thirds = attention.c_attn.weight.chunk(3, dim=-1)
    q, k, v = (third[:, own] for third in thirds)
    out = attention.c_proj.weight
    return q @ k.T, v @ (out[own] if rows else out[:, own].T)


def by_einsum(
    attention: MultiHeadAttention, head: int
) -> tuple[Tensor, Tensor]:
    """Write the same for all heads, and take one."""
    n = attention.n_head
    q, k, v = (
        part.unflatten(1, (n, -1))
        for part in attention.c_attn.weight.chunk(3, dim=-1)
    )
    out = attention.c_proj.weight.unflatten(0, (n, -1))
    qk = torch.einsum("ahd, bhd -> hab", q, k)
    return qk[head], torch.einsum("ahd, hdb -> hab", v, out)[head]


def induction(weights: Tensor, length: int, first: int = 1) -> Tensor:
    """Write the induction scores."""
    along = weights.diagonal(offset=1 - length, dim1=-2, dim2=-1)
    return along[..., first:].mean(dim=(1, -1))


def patch(
    model: GPT2,
    tokens: Tensor,
    source: Tensor,
    layer: int,
    head: int,
    at: int,
    *,
    size: int | None = None,
    interleaved: bool = False,
    everywhere: bool = False,
    all_heads: bool = False,
    leave: bool = False,
) -> Tensor:
    """Answer exercise 15.4, or make a mistake."""
    size = size or model.config.head_size
    own = slice(head * size, (head + 1) * size)
    if all_heads:
        own = slice(None)
    if interleaved:
        own = slice(head, None, model.config.n_head)
    where: int | slice = slice(None) if everywhere else at
    place = cast(GPT2Layer, model.h[layer]).attn.c_proj
    theirs: list[Tensor] = []
    hook = place.register_forward_pre_hook(
        lambda module, inputs: theirs.append(inputs[0])
    )
    model(source)
    hook.remove()

    def exchange(module: object, inputs: tuple[Tensor]) -> tuple[Tensor]:
        x = inputs[0].clone()
        x[:, where, own] = theirs[0][:, where, own]
        return (x,)

    hook = place.register_forward_pre_hook(exchange)
    logits = model(tokens)
    if not leave:
        hook.remove()
    return logits


ANSWERS: dict[str, Answers] = {
    "two-rows": (
        ([1, 3], [6]),
        {
            "is position 0": ([0, 2], [6]),
            "different tokens, too": ([1], [6]),
            "are equal": (range(7), [6]),
            "at the name as well": ([3], [6]),
            "speaks for itself": ([1, 3], [1, 3]),
            "from 0": ([1, 3], [7]),
            "expected two lists": [1, 3],
        },
    ),
    "two-circuits": (
        two_circuits,
        {
            "keys times queries": lambda a, h: (
                two_circuits(a, h)[0].T,
                two_circuits(a, h)[1],
            ),
            "the two products are swapped": lambda a, h: two_circuits(a, h)[
                ::-1
            ],
            "the rows belong to the head": lambda a, h: two_circuits(
                a, h, rows=False
            ),
            "that is its transpose": lambda a, h: (
                two_circuits(a, h)[0],
                two_circuits(a, h)[1].T,
            ),
            "expected a pair": lambda a, h: two_circuits(a, h)[0],
        },
    ),
    "induction-scores": (
        induction,
        {
            "the diagonal beside it": lambda w, n: w.diagonal(
                offset=-n, dim1=-2, dim2=-1
            ).mean(dim=(1, -1)),
            "leave it out": lambda w, n: induction(w, n, first=0),
            "previous-token scores": lambda w, n: previous_token_scores(w),
            "mean over the batch is missing": lambda w, n: w.diagonal(
                offset=1 - n, dim1=-2, dim2=-1
            )[..., 1:].mean(-1),
            "average over the heads": lambda w, n: induction(w, n).mean(1),
        },
    ),
    "idle-scores": (
        idle,
        {
            "sees itself too": lambda n: idle(n, seen=0),
            "the sum begins with 1/2": lambda n: idle(n, first=0),
            "over 2 * length - 1": lambda n: (
                idle(n)[0] * (2 * n - 1) / (2 * n),
                idle(n)[1],
            ),
            "swapped": lambda n: idle(n)[::-1],
            "has no causal mask": lambda n: (1 / (2 * n), 1 / (2 * n)),
            "the second telling only": lambda n: (
                idle(n)[0],
                idle(n, first=0)[0],
            ),
            "the first telling, where nothing": lambda n: (
                idle(n)[0],
                sum(1 / (t + 1) for t in range(n)) / n,
            ),
            "expected a pair": lambda n: idle(n)[0],
        },
    ),
    "duplicate-scores": (
        duplicate,
        {
            "the induction diagonal, one": induction_scores,
            "with one place of the first": lambda w, n: duplicate(w, n, 1),
            "on the other side": lambda w, n: duplicate(w, n, -1),
            "leave out the first place": lambda w, n: w.diagonal(
                offset=-n, dim1=-2, dim2=-1
            )[..., 1:].mean(dim=(1, -1)),
            "previous-token scores": lambda w, n: previous_token_scores(w),
            "lies the future": lambda w, n: duplicate(w, n, 2 * n),
            "divide the sum by all positions": lambda w, n: (
                duplicate(w, n) / 2
            ),
            "mean over the batch is missing": lambda w, n: w.diagonal(
                offset=-n, dim1=-2, dim2=-1
            ).mean(-1),
            "mean over the positions is missing": lambda w, n: w.diagonal(
                offset=-n, dim1=-2, dim2=-1
            ).mean(1),
            "average over the heads": lambda w, n: duplicate(w, n).mean(1),
        },
    ),
    "patch-one-head": (
        patch,
        {
            "nothing was patched": lambda model, tokens, *rest: model(tokens),
            "the logits of `source`": lambda m, tokens, source, *rest: m(
                source
            ),
            "all heads": lambda *given: patch(*given, all_heads=True),
            "at all positions": lambda *given: patch(*given, everywhere=True),
            "consecutive numbers": lambda *given: patch(
                *given, interleaved=True
            ),
            "has the wrong width": lambda *given: patch(*given, size=3),
            "the two texts are swapped": lambda m, tokens, source, *rest: (
                patch(m, source, tokens, *rest)
            ),
            "the last position only": lambda *given: patch(*given)[:, -1],
            "a hook is still in place": lambda *given: patch(
                *given, leave=True
            ),
            "expected a function": torch.zeros(2, 5, 17),
        },
    ),
}


ALSO_RIGHT: dict[str, list[object]] = {
    "two-circuits": [
        by_einsum,
        lambda attention, head: list(two_circuits(attention, head)),
    ],
    "induction-scores": [
        lambda w, n: torch.stack(
            [w[..., t, t - n + 1] for t in range(n, 2 * n)], -1
        ).mean(dim=(1, -1)),
    ],
}

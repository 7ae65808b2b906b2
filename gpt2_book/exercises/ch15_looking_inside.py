"""The exercises of chapter 15."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from gpt2.config import GPT2Config
from gpt2.evaluation.circuits import induction_scores, previous_token_scores
from gpt2.layer import GPT2Layer
from gpt2.model import GPT2
from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    exercise,
    same,
    unpack,
    whole_numbers,
)


@exercise("two-circuits")
def two_circuits(answer: Any) -> str:
    """Section "Two circuits in one head": where to look, what to bring."""
    attention = cast(GPT2Layer, _loud_model().h[1]).attn
    thirds = attention.c_attn.weight.chunk(3, dim=-1)
    out = attention.c_proj.weight
    for head in (1, 0):
        own = _columns(head, 4)
        q, k, v = (third[:, own] for third in thirds)
        what = "a pair, the QK and the OV product"
        qk, ov = unpack(call(answer, attention, head), 2, what)
        same(
            qk,
            q @ k.mT,
            f"the QK product of head {head}",
            [
                Mistake("that is keys times queries; transpose it", k @ q.mT),
                Mistake(
                    "that is the product over all heads; take the columns of "
                    "one",
                    thirds[0] @ thirds[1].mT,
                ),
                Mistake("the two products are swapped", v @ out[own]),
                Mistake("multiply so that C x C is left, not D x D", q.mT @ k),
            ],
        )
        same(
            ov,
            v @ out[own],
            f"the OV product of head {head}",
            [
                Mistake(
                    "in c_proj, the rows belong to the head, not the columns",
                    v @ out[:, own].mT,
                ),
                Mistake("that is the product over all heads", thirds[2] @ out),
                Mistake("that is its transpose", (v @ out[own]).mT),
            ],
        )
    return "for two heads, the products are those of the weights"


@exercise("induction-scores")
def induction(answer: Any) -> str:
    """Section "Heads that copy": attention to what came after."""
    generator = torch.Generator().manual_seed(1)
    for shape, n in (((2, 3, 5), 4), ((3, 2, 4), 7)):
        raw = torch.rand(*shape, 2 * n, 2 * n, generator=generator)
        weights = raw.tril()
        weights = weights / weights.sum(-1, keepdim=True)
        along = _diagonal(weights, 1 - n)
        mistakes = [
            Mistake(
                "that is the diagonal beside it: those heads look for the "
                "same token, not for the one after it",
                _diagonal(weights, -n).mean(dim=(1, -1)),
            ),
            Mistake(
                "the first place on that diagonal is asked from the first "
                "telling, where nothing has been repeated yet; leave it out",
                along.mean(dim=(1, -1)),
            ),
            Mistake(
                "those are the previous-token scores",
                previous_token_scores(weights),
            ),
            Mistake(
                "the mean over the batch is missing", along[..., 1:].mean(-1)
            ),
            Mistake(
                "you average over the heads; each should have its own score",
                along[..., 1:].mean(dim=(1, 2, 3)),
            ),
        ]
        got = call(answer, weights, n)
        right = induction_scores(weights, n)
        same(got, right, f"the result for length={n}", mistakes)
    return "two sizes agree"


@exercise("two-rows")
def two_rows(answer: Any) -> str:
    """Exercise 15.1: which cells of the two outer rows can be filled."""
    what = "two lists of positions, of the lowest row and of the topmost"
    lowest, topmost = unpack(answer, 2, what)
    below = [
        Mistake("the end of text is position 0, so the name is 1", [0, 2]),
        Mistake("her and his are different tokens, too", [1]),
        Mistake(
            "where both sentences have the same token, the vectors before the "
            "first layer are equal",
            [0, 1, 2, 3, 4, 5, 6],
        ),
        Mistake("the texts differ at the name as well", [3]),
    ]
    got = [sorted(whole_numbers(row, what)) for row in (lowest, topmost)]
    same(got[0], [1, 3], "the lowest row", below)
    above = [
        Mistake(
            "after the last layer, each position speaks for itself; only the "
            "last one is asked",
            wrong,
        )
        for wrong in ([1, 3], [1], [0, 1, 2, 3, 4, 5, 6], [1, 3, 6])
    ]
    above.append(Mistake("positions are counted from 0", [7]))
    same(got[1], [6], "the topmost row", above)
    return "below, what is read differs; above, one position is asked"


@exercise("idle-scores")
def idle_scores(answer: Any) -> str:
    """Exercise 15.2: both scores of a head that looks everywhere evenly."""
    what = "a pair, the previous-token score and the induction score"
    for n in (21, 2, 7):
        got = call(answer, n)
        if isinstance(got, Tensor):
            got = got.tolist()
        pair = unpack(got, 2, what)
        share = [1 / (t + 1) for t in range(2 * n)]  # of position t
        previous = sum(share[1:]) / (2 * n - 1)
        induction = sum(share[n:]) / n
        same(
            float(pair[0]),
            previous,
            f"the previous-token score for length={n}",
            _previous_mistakes(share, induction),
            1e-6,
        )
        same(
            float(pair[1]),
            induction,
            f"the induction score for length={n}",
            _induction_mistakes(share),
            1e-6,
        )
    return f"for length 7 they are {previous:.3f} and {induction:.3f}"


NO_MASK = (
    "that head has no causal mask: position t sees t + 1 positions, not all "
    "of them"
)
NOT_ITSELF = (
    "a position sees itself too: at t, the attention is shared among t + 1 "
    "positions"
)


def _previous_mistakes(share: list[float], induction: float) -> list[Mistake]:
    n_positions = len(share)
    without_itself = [1 / t for t in range(1, n_positions)]
    return [
        Mistake(NOT_ITSELF, sum(without_itself) / (n_positions - 1)),
        Mistake(
            "position 0 has no predecessor and does not count: the mean is "
            "over 2 * length - 1 positions",
            sum(share[1:]) / n_positions,
        ),
        Mistake(
            "position 0 has no predecessor: the sum begins with 1/2",
            sum(share) / n_positions,
        ),
        Mistake("the two scores are swapped", induction),
        Mistake(NO_MASK, 1 / n_positions),
    ]


def _induction_mistakes(share: list[float]) -> list[Mistake]:
    n_positions = len(share)
    n = n_positions // 2
    return [
        Mistake(NOT_ITSELF, sum(1 / t for t in range(n, n_positions)) / n),
        Mistake(
            "the induction score is a mean over the second telling only, from "
            "t = length on",
            sum(share) / n_positions,
        ),
        Mistake(
            "that is the mean over the first telling, where nothing is "
            "repeated yet",
            sum(share[:n]) / n,
        ),
        Mistake(NO_MASK, 1 / n_positions),
    ]


@exercise("duplicate-scores")
def duplicate_scores(answer: Any) -> str:
    """Exercise 15.3: attention to the same token in the first telling."""
    generator = torch.Generator().manual_seed(0)
    for shape, n in (((2, 3, 5), 4), ((3, 2, 4), 7)):
        raw = torch.rand(*shape, 2 * n, 2 * n, generator=generator)
        weights = raw.tril()
        weights = weights / weights.sum(-1, keepdim=True)
        got = call(answer, weights, n)
        right = _diagonal(weights, -n).mean(dim=(1, -1))
        what = f"the result for length={n}"
        same(got, right, what, _diagonal_mistakes(weights, n))
    return "two sizes agree"


def _diagonal(weights: Tensor, offset: int) -> Tensor:
    return weights.diagonal(offset=offset, dim1=-2, dim2=-1)


def _diagonal_mistakes(weights: Tensor, n: int) -> list[Mistake]:
    both = _diagonal(weights, -n)  # (L, B, H, n)
    return [
        Mistake(
            "that is the induction diagonal, one place off",
            induction_scores(weights, n),
        ),
        Mistake(
            "that is the induction diagonal, with one place of the first "
            "telling",
            _diagonal(weights, 1 - n).mean(dim=(1, -1)),
        ),
        Mistake(
            "that is the diagonal on the other side: it goes from t to "
            "t - length - 1; take t - length",
            _diagonal(weights, -n - 1).mean(dim=(1, -1)),
        ),
        Mistake(
            "those are the previous-token scores",
            previous_token_scores(weights),
        ),
        Mistake(
            "all weights are 0 there: above the main diagonal lies the "
            "future; a negative offset goes below it",
            torch.zeros(weights.size(0), weights.size(2)),
        ),
        Mistake(
            "you divide the sum by all positions; only those of the second "
            "telling count",
            both.sum(-1).mean(1) / (2 * n),
        ),
        Mistake(
            "you leave out the first place of the diagonal; here it belongs "
            "to the second telling, unlike that of the induction scores",
            both[..., 1:].mean(dim=(1, -1)),
        ),
        Mistake("the mean over the positions is missing", both.mean(1)),
        Mistake("the mean over the batch is missing", both.mean(-1)),
        Mistake(
            "you average over the heads; each should have its own score",
            both.mean(dim=(1, 2, 3)),
        ),
    ]


@exercise("patch-one-head")
def patch_one_head(answer: Any) -> str:
    """Exercise 15.4: patch one head's output at one position."""
    model = _loud_model()
    tokens = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    source = torch.tensor([[2, 7, 1, 8, 2], [8, 4, 5, 9, 0]])
    clean = model(tokens)
    for layer, head, at in ((0, 2, 2), (1, 1, 4)):
        got = call(answer, model, tokens, source, layer, head, at)
        if not torch.equal(model(tokens), clean):
            raise NotYet(
                "your function leaves the model changed: a hook is still in "
                "place, or a weight was modified"
            )
        right = _patched(model, tokens, source, layer, at, _columns(head, 4))
        what = f"for layer {layer}, head {head}, position {at} the result"
        mistakes = _patch_mistakes(model, tokens, source, layer, head, at)
        same(got, right, what, mistakes)
    return "two heads agree, in two layers"


def _loud_model() -> GPT2:
    """Return a small model, loud enough to see what each part does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2(
            GPT2Config(n_vocab=17, n_ctx=8, n_embd=12, n_head=3, n_layer=2)
        )
    model.eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.mul_(10)
    return model


def _columns(head: int, size: int) -> slice:
    return slice(size * head, size * head + size)


def _patch_mistakes(
    model: GPT2, tokens: Tensor, source: Tensor, layer: int, head: int, at: int
) -> list[Mistake]:
    own, every = _columns(head, 4), slice(None)
    patched = partial(_patched, model)
    right = patched(tokens, source, layer, at, own)
    return [
        Mistake(
            "nothing was patched: those are the logits of `tokens`",
            model(tokens),
        ),
        Mistake("those are the logits of `source`", model(source)),
        Mistake(
            "you patched all heads of the layer",
            patched(tokens, source, layer, at, every),
        ),
        Mistake(
            "you patched the head at all positions, not only at `at`",
            patched(tokens, source, layer, every, own),
        ),
        Mistake(
            "your slice has the wrong width; a head owns D = head_size "
            "consecutive numbers",
            patched(tokens, source, layer, at, _columns(head, 3)),
        ),
        Mistake(
            "your head is every third number; a head owns consecutive numbers",
            patched(tokens, source, layer, at, slice(head, None, 3)),
        ),
        Mistake(
            "you set the head to zero; give it what it found in `source`",
            patched(tokens, None, layer, at, own),
        ),
        Mistake(
            "the two texts are swapped: run `tokens`, patched from `source`",
            patched(source, tokens, layer, at, own),
        ),
        Mistake(
            "you return the last position only; return the logits of all",
            right[:, -1],
        ),
    ]


def _patched(
    model: GPT2,
    tokens: Tensor,
    source: Tensor | None,
    layer: int,
    at: int | slice,
    columns: slice,
) -> Tensor:
    """Return the logits with some numbers from another text, or zeros.

    Args:
        model: Its heads have `columns` in the input of `c_proj`.
        tokens: (B, T).
        source: (B, T); None patches with zeros.
        layer: Of the patched head.
        at: The patched positions.
        columns: The patched numbers.

    Returns:
        (B, T, V).
    """
    place = cast(GPT2Layer, model.h[layer]).attn.c_proj
    found: list[Tensor] = []
    hook = place.register_forward_pre_hook(
        lambda module, inputs: found.append(inputs[0])
    )
    model(tokens if source is None else source)
    hook.remove()

    def patch(module: object, inputs: tuple[Tensor]) -> tuple[Tensor]:
        x = inputs[0].clone()
        x[:, at, columns] = 0 if source is None else found[0][:, at, columns]
        return (x,)

    hook = place.register_forward_pre_hook(patch)
    logits = model(tokens)
    hook.remove()
    return logits

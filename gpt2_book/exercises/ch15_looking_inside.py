"""The exercises of chapter 15."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from gpt2.config import GPT2Config
from gpt2.evaluation.circuits import induction_scores, previous_token_scores
from gpt2.layer import GPT2Layer
from gpt2.model import GPT2
from gpt2_book.exercises.checking import NotYet, call, describe, exercise, same


@exercise("idle-scores")
def idle_scores(answer: Any) -> str:
    """Exercise 15.2: both scores of a head that looks everywhere evenly."""
    for n in (21, 2, 7):
        came = call(answer, n)
        if not isinstance(came, Sequence | Tensor) or len(came) != 2:
            raise NotYet(
                "a pair is wanted, the previous-token score and the induction "
                f"score; got {describe(came)}"
            )
        share = [1 / (t + 1) for t in range(2 * n)]  # of position t
        without_itself = [1 / max(t, 1) for t in range(2 * n)]
        previous = sum(share[1:]) / (2 * n - 1)
        induction = sum(share[n:]) / n
        unmasked = (
            "that is a head without a causal mask: position t sees t + 1 "
            "positions, not all of them"
        )
        itself = (
            "a position sees itself too: at t there are t + 1 to share among"
        )
        same(
            float(came[0]),
            previous,
            f"the previous-token score for length={n}",
            {
                itself: sum(without_itself[1:]) / (2 * n - 1),
                "position 0 has nobody before it and does not count: the "
                "mean is over 2 * length - 1 positions": (
                    sum(share[1:]) / (2 * n)
                ),
                "position 0 has nobody before it: the sum begins with 1/2": (
                    sum(share) / (2 * n)
                ),
                "the two scores are exchanged": induction,
                unmasked: 1 / (2 * n),
            },
            1e-6,
        )
        same(
            float(came[1]),
            induction,
            f"the induction score for length={n}",
            {
                itself: sum(without_itself[n:]) / n,
                "the induction score is a mean over the second telling only, "
                "from t = length on": sum(share) / (2 * n),
                "that is the mean over the first telling; nothing is "
                "repeated there": sum(share[:n]) / n,
                unmasked: 1 / (2 * n),
            },
            1e-6,
        )
    return f"an even head scores {previous:.3f} and {induction:.3f} at 7"


@exercise("duplicate-scores")
def duplicate_scores(answer: Any) -> str:
    """Exercise 15.3: looks at the same token in the first telling."""
    generator = torch.Generator().manual_seed(0)
    for shape, n in (((2, 3, 5), 4), ((3, 2, 4), 7)):
        raw = torch.rand(*shape, 2 * n, 2 * n, generator=generator)
        weights = raw.tril()
        weights = weights / weights.sum(-1, keepdim=True)
        both = weights.diagonal(offset=-n, dim1=-2, dim2=-1)  # (L, B, H, n)
        came = call(answer, weights, n)
        same(
            came,
            both.mean(dim=(1, -1)),
            f"for length={n} the result",
            {
                "that is the diagonal of induction, one place beside this "
                "one": induction_scores(weights, n),
                "that is the diagonal of induction, with a place of the "
                "first telling": weights.diagonal(
                    offset=1 - n, dim1=-2, dim2=-1
                ).mean(dim=(1, -1)),
                "that is the diagonal on the other side: from t to "
                "t - length, not to t - length - 1": weights.diagonal(
                    offset=-n - 1, dim1=-2, dim2=-1
                ).mean(dim=(1, -1)),
                "those are the previous-token scores": (
                    previous_token_scores(weights)
                ),
                "all weights there are 0: above the main diagonal lies the "
                "future; a negative offset goes below it": torch.zeros(
                    shape[0], shape[2]
                ),
                "the sum is divided by all positions; only those of the "
                "second telling count": both.sum(-1).mean(1) / (2 * n),
                "it is not averaged over the positions": both.mean(1),
                "it is not averaged over the rows of the batch": (
                    both.mean(-1)
                ),
                "it is averaged over the heads, of which each is to have its "
                "own score": both.mean(dim=(1, 2, 3)),
            },
        )
    return "two sizes agree"


@exercise("patch-one-head")
def patch_one_head(answer: Any) -> str:
    """Exercise 15.4: what one head found at one place, from another run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2(
            GPT2Config(n_vocab=17, n_ctx=8, n_embd=12, n_head=3, n_layer=2)
        )
    model.eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.mul_(10)  # loud enough to see what each part does
    tokens = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    source = torch.tensor([[2, 7, 1, 8, 2], [8, 4, 5, 9, 0]])
    clean = model(tokens)
    every, own = slice(None), slice(8, 12)
    for layer, head, at in ((0, 2, 2), (1, 1, 4)):
        own = slice(4 * head, 4 * head + 4)
        came = call(answer, model, tokens, source, layer, head, at)
        if not torch.equal(model(tokens), clean):
            raise NotYet(
                "after it the model is another one: a hook is still in "
                "place, or a weight was changed"
            )
        wrong = slice(3 * head, 3 * head + 3)
        expected = _patched(model, tokens, source, layer, at, own)
        same(
            came,
            expected,
            f"for layer {layer}, head {head}, position {at} the result",
            {
                "nothing was exchanged: these are the logits of `tokens` as "
                "they are": clean,
                "these are the logits of `source`": model(source),
                "all heads of the layer were exchanged": _patched(
                    model, tokens, source, layer, at, every
                ),
                "the head was exchanged at all positions, not only at `at`": (
                    _patched(model, tokens, source, layer, every, own)
                ),
                "a head owns D = head_size numbers that lie together; here "
                "the slice is of another width": _patched(
                    model, tokens, source, layer, at, wrong
                ),
                "the head was set to zero; it should have what it found in "
                "`source`": _patched(model, tokens, None, layer, at, own),
                "the two texts are exchanged: it is `tokens` that is run, "
                "with something of `source`": _patched(
                    model, source, tokens, layer, at, own
                ),
                "only the last position came back; the logits of all are "
                "wanted": expected[:, -1],
            },
        )
    return "two heads, in two layers"


def _patched(
    model: GPT2,
    tokens: Tensor,
    source: Tensor | None,
    layer: int,
    at: int | slice,
    own: slice,
) -> Tensor:
    """Return the logits with some findings from another text, or zeros."""
    place = cast(GPT2Layer, model.h[layer]).attn.c_proj
    theirs: list[Tensor] = []
    hook = place.register_forward_pre_hook(
        lambda module, inputs: theirs.append(inputs[0])
    )
    model(tokens if source is None else source)
    hook.remove()

    def exchange(module: object, inputs: tuple[Tensor]) -> tuple[Tensor]:
        x = inputs[0].clone()
        x[:, at, own] = 0 if source is None else theirs[0][:, at, own]
        return (x,)

    hook = place.register_forward_pre_hook(exchange)
    logits = model(tokens)
    hook.remove()
    return logits

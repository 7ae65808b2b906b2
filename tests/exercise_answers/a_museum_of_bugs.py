"""Right and wrong answers to the exercises of chapter 16."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gpt2 import GPT2, next_token_loss
from gpt2.data import pad
from gpt2.weights.loading import load_model
from gpt2_book.exercises.specimens import FAULTS

Parts = list[tuple[Tensor, Tensor]]
Answers = tuple[object, dict[str, object]]


END = 1439
"""The token that stands before every story."""


def hears_the_future(
    model: GPT2, margin: float = 1e-3, upto: int = -1
) -> bool:
    """Change the last token, and look before it."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, END, (1, 30), generator=generator)
    changed = tokens.clone()
    changed[0, -1] = 5
    before = model(tokens)[0, : upto or None]
    after = model(changed)[0, : upto or None]
    return not torch.allclose(before, after, atol=margin)


def other_weights(model: GPT2) -> bool:
    """Compare with a model that is known to be good."""
    tokens = torch.arange(300, 330)[None]
    difference = model(tokens) - load_model("story")(tokens)
    return bool(difference.abs().max() > 1e-3)


def minds_company(
    model: GPT2, with_mask: bool = True, side: str = "left"
) -> bool:
    """Read a short text alone and beside a longer one."""
    rows = [[END, *range(300, 329)], [END, *range(400, 419)]]
    tokens, mask = pad(rows, side=side)
    logits = model(tokens, mask) if with_mask else model(tokens)
    own = logits[1][mask[1]]
    alone = model(torch.tensor([rows[1]]))[0]
    return not torch.allclose(own, alone, atol=1e-3)


def weighted(
    weight: Callable[[Tensor], float],
    of_gradient: bool = True,
    forget: bool = False,
) -> Callable[[nn.Module, Parts], Tensor]:
    """Answer exercise 16.3 with parts weighted like this."""

    def accumulate(model: nn.Module, parts: Parts) -> Tensor:
        total = sum(weight(mask) for _, mask in parts)
        loss = torch.zeros(())
        for tokens, mask in parts:
            if forget:
                model.zero_grad()
            share = weight(mask) / total
            mean = next_token_loss(model, tokens, mask)
            (mean * share if of_gradient else mean).backward()
            loss += mean.detach() * share
        return loss

    return accumulate


def predicted(mask: Tensor) -> float:
    """Count what a part is asked for."""
    return mask[:, 1:].sum().item()


def summed(model: nn.Module, parts: Parts) -> Tensor:
    """Add the losses of the parts up."""
    loss = torch.stack([next_token_loss(model, *part) for part in parts]).sum()
    loss.backward()
    return loss


def backwards(model: nn.Module, parts: Parts) -> Tensor:
    """Forget the gradient."""
    with torch.no_grad():
        return weighted(predicted)(model, parts)


def right_loss_mean_gradient(model: nn.Module, parts: Parts) -> Tensor:
    """Report the right loss, and follow the mean of means."""
    means = [next_token_loss(model, *part) for part in parts]
    (torch.stack(means).sum() / len(parts)).backward()
    counts = [predicted(mask) for _, mask in parts]
    pairs = zip(means, counts, strict=True)
    return sum(m.detach() * n for m, n in pairs) / sum(counts)


def specimen(right: str) -> Answers:
    """Every other diagnosis is contradicted by name."""
    wrong: dict[str, object] = {
        f"with {name!r}, ": name
        for name in FAULTS
        if name not in (right, "healthy")
    }
    if right != "healthy":
        wrong["the model is not healthy: "] = "healthy"
    wrong["the diagnoses are activation"] = "measles"
    return right, wrong


ANSWERS: dict[str, Answers] = {
    "wrong-all-the-way": (
        [],
        {
            "same mistake": ["loss", "parity"],
            "as good as another": ("loss",),
            "the measurements are": ["taste"],
            "expected a list": "loss",
        },
    ),
    "hears-the-future": (
        hears_the_future,
        {
            "a healthy model hears": lambda model: True,
            "off by one, in its last": lambda model: False,
            "compare the model with itself": other_weights,
            "expected True or False": lambda model: "yes",
        },
    ),
    "minds-company": (
        minds_company,
        {
            "pass the mask": lambda model: minds_company(
                model, with_mask=False
            ),
            "counts the padding in front": lambda model: minds_company(
                model, side="right"
            ),
            "with another variance": lambda model: (
                other_weights(model) or minds_company(model)
            ),
            "the `return`": lambda model: None,
        },
    ),
    "unbiased-norm": (
        lambda width: math.sqrt((width - 1) / width),
        {
            "the other way round": lambda width: math.sqrt(
                width / (width - 1)
            ),
            "by its square root": lambda width: (width - 1) / width,
            "how much larger the variance": lambda width: width / (width - 1),
            "the share that is lost": lambda width: (
                1 - math.sqrt((width - 1) / width)
            ),
            "expected a function": 0.9974,
        },
    ),
    "uneven-parts": (
        weighted(predicted),
        {
            "not yet: every part has the same weight": weighted(
                lambda mask: 1
            ),
            "weighted by their rows": weighted(len),
            "padding counts": weighted(lambda mask: mask[:, 1:].numel()),
            "one token too many": weighted(lambda mask: mask.sum().item()),
            "the loss grows": summed,
            "added up without weights": weighted(predicted, False),
            "gradient is not: every part": right_loss_mean_gradient,
            "raises RuntimeError": backwards,
            "a zero_grad() in the loop": weighted(predicted, forget=True),
            "there is no gradient": lambda model, parts: 1.0,
        },
    ),
    "specimen-a": specimen("cache"),
    "specimen-b": specimen("variance"),
    "specimen-c": specimen("healthy"),
    "specimen-d": specimen("mask"),
    "specimen-e": specimen("order"),
}


ALSO_RIGHT: dict[str, list[object]] = {
    "hears-the-future": [
        lambda model: torch.tensor(hears_the_future(model)),
        lambda model: hears_the_future(model, margin=1e-2),
    ],
}

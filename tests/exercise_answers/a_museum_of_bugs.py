"""Right and wrong answers to the exercises of chapter 16."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gpt2 import next_token_loss
from gpt2_book.exercises.specimens import FAULTS

Parts = list[tuple[Tensor, Tensor]]
Answers = tuple[object, dict[str, object]]


def weighted(
    weight: Callable[[Tensor], float], of_gradient: bool = True
) -> Callable[[nn.Module, Parts], Tensor]:
    """Answer exercise 16.3 with parts weighted like this."""

    def accumulate(model: nn.Module, parts: Parts) -> Tensor:
        total = sum(weight(mask) for _, mask in parts)
        loss = torch.zeros(())
        for tokens, mask in parts:
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
            "there is no gradient": lambda model, parts: 1.0,
        },
    ),
    "specimen-a": specimen("cache"),
    "specimen-b": specimen("variance"),
    "specimen-c": specimen("healthy"),
    "specimen-d": specimen("mask"),
    "specimen-e": specimen("order"),
}

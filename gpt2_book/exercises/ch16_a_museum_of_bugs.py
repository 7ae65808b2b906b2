"""The exercises of chapter 16, and the boxes with the broken models.

`specimen` gives a box out, and `check("specimen-a", "mask")` tries a
diagnosis. A wrong diagnosis is answered with a measurement that speaks
against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt2.config import GPT2Config
from gpt2.data import pad
from gpt2.model import GPT2, next_token_loss
from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    same,
)
from gpt2_book.exercises.specimens import (
    FAULTS,
    SYMPTOMS,
    broken_model,
    symptoms_of,
)

Part = tuple[Tensor, Tensor]
"""Tokens and mask, each (B, T)."""


@exercise("hears-the-future")
def hears_the_future(answer: Any) -> str:
    """Section "Second room": a test for a mask that shows the future."""
    _tell_apart(
        answer,
        {
            "healthy": (False, "a healthy model hears no future"),
            "mask": (
                True,
                "one model has a mask that is off by one, in its last layer "
                "only; change a token, and look at the logits before it",
            ),
            "variance": (
                False,
                "a model with another variance hears no future; compare the "
                "model with itself on two texts, not with another model",
            ),
            "positions": (
                False,
                "a model that counts padding hears no future; compare the "
                "logits before the changed token only",
            ),
        },
    )
    return "it finds the model with the wrong mask, and no other"


@exercise("minds-company")
def minds_company(answer: Any) -> str:
    """Section "Third room": a test for padding that takes up places."""
    _tell_apart(
        answer,
        {
            "healthy": (
                False,
                "a healthy model minds no company; pass the mask, leave the "
                "padding's own logits out, and allow a thousandth",
            ),
            "positions": (
                True,
                "one model counts the padding in front; put it there with "
                'side="left"',
            ),
            "variance": (
                False,
                "a model with another variance minds no company; compare the "
                "model with itself, not with another one",
            ),
            "activation": (
                False,
                "a model with another GELU minds no company; compare the "
                "model with itself, not with another one",
            ),
        },
    )
    return "it finds the model that counts padding, and no other"


def _tell_apart(answer: Any, expected: dict[str, tuple[bool, str]]) -> None:
    """Try a measurement on models with a fault, each as it is expected."""
    for fault, (rings, why) in expected.items():
        got = call(answer, broken_model(fault))
        if isinstance(got, Tensor) and got.numel() == 1:
            got = got.item()
        if not isinstance(got, bool):
            raise NotYet(f"expected True or False; got {describe(got)}")
        if got != rings:
            raise NotYet(f"your function returns {got}, but {why}")


MEASUREMENTS = (
    *("loss", "at start", "on dice", "recite", "parity"),
    *("future", "cache", "company", "twice", "tied"),
)


@exercise("wrong-all-the-way")
def wrong_all_the_way(answer: Any) -> str:
    """Exercise 16.1: what rings if one mistake is made everywhere."""
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        raise NotYet(
            f"expected a list of measurements; got {describe(answer)}"
        )
    rung = list(answer)
    for name in rung:
        if name not in MEASUREMENTS:
            raise NotYet(
                f"the measurements are {', '.join(MEASUREMENTS)}; got {name!r}"
            )
    if "parity" in rung:
        raise NotYet("the twin for parity has the same mistake")
    if rung:
        raise NotYet(
            f"{rung[0]!r} does not ring: to a model that is still random, one "
            "third of `c_attn` is as good as another, and training fills it "
            "with what is read from it"
        )
    return "it becomes a mistake where two programs meet"


@exercise("unbiased-norm")
def unbiased_norm(answer: Any) -> str:
    """Exercise 16.2: the length of a norm's output with `torch.std`.

    A norm divides by the standard deviation. The unbiased one is larger, so
    the output is shorter.
    """
    for width in (2, 5, 192, 768):
        share = (width - 1) / width
        mistakes = [
            Mistake(
                "it is the other way round: the unbiased deviation is larger, "
                "and the norm divides by it",
                share**-0.5,
            ),
            Mistake(
                "that is the factor for the variance; a norm divides by its "
                "square root",
                share,
            ),
            Mistake("that is how much larger the variance gets", 1 / share),
            Mistake(
                "that is the share that is lost; return the share that is "
                "left",
                1 - share**0.5,
            ),
        ]
        x = torch.arange(float(width), dtype=torch.float64)
        x = x - x.mean()
        right = (x / x.std()).norm() / (x / x.std(correction=0)).norm()
        got = call(answer, width)
        same(got, right.item(), f"the factor for C={width}", mistakes, 1e-7)
    return "it agrees with torch.std for four widths, from 2 to 768"


@exercise("uneven-parts")
def uneven_parts(answer: Any) -> str:
    """Exercise 16.3: the gradient of a batch, computed part by part."""
    for lengths in ([[7, 4], [3]], [[5], [9, 2, 6], [4, 4]]):
        parts = _parts(lengths)
        network = _tiny()
        loss = call(answer, network, parts)
        gradient = network.wte.weight.grad
        if gradient is None:
            raise NotYet("there is no gradient; call backward()")
        if isinstance(loss, Tensor):
            loss = loss.item()
        right_loss, right_gradient = _accumulated(parts, _n_predicted)
        losses, gradients = _part_mistakes(parts)
        same(loss, right_loss, "the loss", losses, 1e-5)
        same(gradient, right_gradient, "the gradient of wte", gradients, 1e-6)
    return "the loss and the gradient are those of one large batch"


def _n_predicted(mask: Tensor) -> Tensor:
    return mask[:, 1:].sum()


# Here the wrong thing is the weight of a part, a function of its mask.
WRONG_WEIGHTS = (
    Mistake(
        "every part has the same weight; weight it by the number of tokens "
        "that it predicts",
        lambda mask: torch.tensor(1),
    ),
    Mistake(
        "the parts are weighted by their rows; rows differ in length",
        lambda mask: torch.tensor(len(mask)),
    ),
    Mistake(
        "padding counts: weight by the mask, not by the shape",
        lambda mask: torch.tensor(mask[:, 1:].numel()),
    ),
    Mistake(
        "each row counts one token too many: its first token is given, not "
        "predicted",
        lambda mask: mask.sum(),
    ),
)


def _part_mistakes(parts: list[Part]) -> tuple[list[Mistake], list[Mistake]]:
    """Return the known mistakes in the loss and in the gradient."""
    losses, gradients = [], []
    for why, weight in WRONG_WEIGHTS:
        loss, gradient = _accumulated(parts, weight)
        losses.append(Mistake(why, loss))
        why = f"the loss is right, the gradient is not: {why}"
        gradients.append(Mistake(why, gradient))
    loss, gradient = _summed(parts)
    losses.append(
        Mistake(
            "you add up the losses of the parts, so the loss grows with "
            "their number",
            loss,
        )
    )
    gradients.append(
        Mistake(
            "the loss is right, the gradient is not: the gradients of the "
            "parts are added up without weights",
            gradient,
        )
    )
    only_last = Mistake(
        "the loss is right, the gradient is not: only that of the last part "
        "is left; is there a zero_grad() in the loop?",
        _accumulated(parts, _n_predicted, last_only=True)[1],
    )
    return losses, [only_last, *gradients]


def _tiny() -> GPT2:
    torch.manual_seed(16)
    sizes = GPT2Config(n_vocab=11, n_ctx=12, n_embd=6, n_head=2, n_layer=1)
    tiny = GPT2(sizes).eval()
    with torch.no_grad():
        tiny.wte.weight.mul_(20)
    return tiny


def _parts(lengths: list[list[int]]) -> list[Part]:
    """Return parts whose rows have these lengths."""
    generator = torch.Generator().manual_seed(len(lengths))

    def row(n: int) -> npt.NDArray[np.int64]:
        return torch.randint(11, (n,), generator=generator).numpy()

    return [pad([row(n) for n in part]) for part in lengths]


def _accumulated(
    parts: list[Part],
    weight: Callable[[Tensor], Tensor],
    last_only: bool = False,
) -> tuple[float, Tensor]:
    """Return the loss and the gradient of `wte` with these weights."""
    network, total = _tiny(), sum(weight(mask).item() for _, mask in parts)
    losses = [
        next_token_loss(network, tokens, mask) * weight(mask) / total
        for tokens, mask in parts
    ]
    kept = losses[-1:] if last_only else losses
    return _with_gradient(network, torch.stack(kept).sum())


def _summed(parts: list[Part]) -> tuple[float, Tensor]:
    """Return the loss and the gradient of `wte` without weights."""
    network = _tiny()
    losses = [next_token_loss(network, *part) for part in parts]
    return _with_gradient(network, torch.stack(losses).sum())


def _with_gradient(network: GPT2, loss: Tensor) -> tuple[float, Tensor]:
    loss.backward()
    assert network.wte.weight.grad is not None
    return loss.item(), network.wte.weight.grad


LETTERS = "ABCDE"


def specimen(letter: str) -> GPT2:
    """Return the story model, with one unnamed fault or none.

    Args:
        letter: The box, A to E.

    Returns:
        A model like that of `gpt2.load("story")`, in evaluation mode.

    Raises:
        ValueError: There is no such box.
    """
    if len(letter) != 1 or letter not in LETTERS:
        raise ValueError(
            f"the boxes are lettered {', '.join(LETTERS)}; got {letter!r}"
        )
    return broken_model(_fault_in(letter))


def _fault_in(letter: str) -> str:
    """Return the name of the fault in a box.

    The order of the boxes is a shuffle that a reader cannot see through.
    """

    def place(fault: str) -> bytes:
        return sha256(f"box 4293: {fault}".encode()).digest()

    shuffled = sorted(FAULTS, key=place)
    return shuffled[LETTERS.index(letter)]


def diagnose(letter: str, answer: Any) -> str:
    """Exercise 16.4: compare a diagnosis with what is in the box."""
    if answer not in FAULTS:
        raise NotYet(f"the diagnoses are {', '.join(FAULTS)}; got {answer!r}")
    fault = _fault_in(letter)
    if answer == fault:
        return "healthy" if fault == "healthy" else f"it is the {fault}"
    compared = zip(
        SYMPTOMS, symptoms_of(fault), symptoms_of(answer), strict=True
    )
    differing = [(s, here) for s, here, named in compared if here != named]
    # Prefer a symptom that the named fault would show and this one does not:
    # it speaks against the diagnosis without giving the right one away.
    symptom, here = min(differing, key=lambda pair: pair[1])
    if answer == "healthy":
        raise NotYet(f"the model is not healthy: {symptom.present}")
    with_it, found = symptom.present, symptom.absent
    if here:
        with_it, found = found, with_it
    raise NotYet(f"with {answer!r}, {with_it}; in this specimen, {found}")


def _register(letter: str) -> None:
    @exercise(f"specimen-{letter.lower()}")
    def checker(answer: Any) -> str:
        return diagnose(letter, answer)


for _letter in LETTERS:
    _register(_letter)

"""The exercises of chapter 16, and the broken models that it hands out.

Who reads on will find the faults here: all of them, but not which of them is
in which box. `specimen` gives a box out, and `check("specimen-a", "mask")`
tries a diagnosis: it makes a model that has the fault which was named, and
looks for a measurement in which the two differ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2 import attention, layer_norm, model
from gpt2.config import GPT2Config
from gpt2.data import pad
from gpt2.feed_forward import gelu, gelu_new
from gpt2.layer import GPT2Layer
from gpt2.model import GPT2, next_token_loss
from gpt2.weights.loading import load_model
from gpt2_book.exercises.checking import NotYet, call, exercise, same

LETTERS = "ABCDE"


@exercise("unbiased-norm")
def unbiased_norm(answer: Any) -> str:
    """Exercise 16.2: what `torch.std` does to the length of a norm's output.

    A norm of width C divides by the standard deviation; with the unbiased one
    it divides by more.
    """
    for width in (2, 5, 192, 768):
        share = (width - 1) / width
        mistakes = {
            "it is the other way round: the unbiased deviation is the larger "
            "one, and the result is divided by it": share**-0.5,
            "that is the factor of the variance; a norm divides by its root": (
                share
            ),
            "that is how much larger the variance gets": 1 / share,
            "that is how much is lost, not what is left": 1 - share**0.5,
        }
        x = torch.arange(float(width), dtype=torch.float64)
        x = x - x.mean()
        expected = (x / x.std()).norm() / (x / x.std(correction=0)).norm()
        came = call(answer, width)
        same(came, expected.item(), f"for C={width} it", mistakes, 1e-7)
    return "four widths, from 2 to 768, agree with torch.std"


@exercise("uneven-parts")
def uneven_parts(answer: Any) -> str:
    """Exercise 16.3: the gradient of a batch, computed part by part."""
    for lengths in ([[7, 4], [3]], [[5], [9, 2, 6], [4, 4]]):
        parts = _parts(lengths)
        expected = _accumulated(parts, lambda m: m[:, 1:].sum())
        candidates = {
            "the mean of the parts' means: a part counts by how many tokens "
            "it asks for": lambda m: torch.tensor(1),
            "the parts are weighted by their rows; rows are of different "
            "lengths": lambda m: torch.tensor(len(m)),
            "padding counts: weigh with the mask, not with the shape": (
                lambda m: torch.tensor(m[:, 1:].numel())
            ),
            "one token too many in each row: the first of a row is given and "
            "not asked for": lambda m: m.sum(),
        }
        wrong = {why: _accumulated(parts, w) for why, w in candidates.items()}
        total = sum(next_token_loss(_tiny(), *part).item() for part in parts)
        network = _tiny()
        loss = call(answer, network, parts)
        gradient = network.wte.weight.grad
        if gradient is None:
            raise NotYet("no gradient has arrived: call backward()")
        mistakes: dict[str, Any] = {w: loss for w, (loss, _) in wrong.items()}
        mistakes[
            "the parts' losses are added up, so the loss grows with "
            "their number"
        ] = total
        found = loss.item() if isinstance(loss, Tensor) else loss
        same(found, expected[0], "the loss", mistakes, 1e-5)
        mistakes = {
            f"the loss is right, and the gradient is not: {why}": g
            for why, (_, g) in wrong.items()
        }
        mistakes[
            "the loss is right, and the gradients of the parts are added "
            "up without their weights"
        ] = _summed(parts)
        same(gradient, expected[1], "the gradient of wte", mistakes, 1e-6)
    return "the loss and the gradient are those of one large batch"


def _tiny() -> GPT2:
    torch.manual_seed(16)
    sizes = GPT2Config(n_vocab=11, n_ctx=12, n_embd=6, n_head=2, n_layer=1)
    tiny = GPT2(sizes).eval()
    with torch.no_grad():
        tiny.wte.weight.mul_(20)
    return tiny


def _parts(lengths: list[list[int]]) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(len(lengths))
    return [
        pad(
            [
                torch.randint(11, (n,), generator=generator).numpy()
                for n in part
            ]
        )
        for part in lengths
    ]


def _accumulated(
    parts: list[tuple[Tensor, Tensor]], weight: Callable[[Tensor], Tensor]
) -> tuple[float, Tensor]:
    """Return loss and gradient when the parts are weighted like this."""
    network, total = _tiny(), sum(weight(mask).item() for _, mask in parts)
    losses = [
        next_token_loss(network, tokens, mask) * weight(mask) / total
        for tokens, mask in parts
    ]
    loss = torch.stack(losses).sum()
    loss.backward()
    assert network.wte.weight.grad is not None
    return loss.item(), network.wte.weight.grad


def _summed(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    network = _tiny()
    for part in parts:
        next_token_loss(network, *part).backward()
    assert network.wte.weight.grad is not None
    return network.wte.weight.grad


# What follows is exercise 16.4. The classes below differ from the package's
# in one respect each; `_become` gives an object one of them, under the name
# of the class that it had, so that printing a model tells nothing.


def _become(part: nn.Module, other: type[nn.Module]) -> None:
    other.__name__ = type(part).__name__
    object.__setattr__(part, "__class__", other)


class _Norm(layer_norm.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (x.var(-1, keepdim=True) + self.epsilon).sqrt()
        return self.weight * centred / deviation + self.bias


class _Near(attention.MultiHeadAttention):
    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
    ) -> Tensor:
        n, m = query.size(2), key.size(2)
        if mask is None and n > 1:
            mask = torch.ones(n, m, dtype=torch.bool).tril(m - n + 1)
            causal = False
        return super().attend(query, key, value, mask, causal)


class _Square(attention.MultiHeadAttention):
    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
    ) -> Tensor:
        if mask is not None:
            return super().attend(query, key, value, mask, causal)
        return F.scaled_dot_product_attention(
            query, key, value, is_causal=query.size(2) > 1
        )


class _Noise(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.1)


class _Places(model.GPT2):
    def positions_and_mask(
        self, tokens: Tensor, attention_mask: Tensor | None, past: int
    ) -> tuple[Tensor, Tensor | None]:
        _, mask = super().positions_and_mask(tokens, attention_mask, past)
        return torch.arange(past, past + tokens.size(1)), mask


class _Twin(model.GPT2):
    output: nn.Parameter

    def unembed(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.output)


def _layers(patient: GPT2) -> list[GPT2Layer]:
    return [cast(GPT2Layer, layer) for layer in patient.h]


def _activation(patient: GPT2) -> None:
    for layer in _layers(patient):
        layer.mlp.activation = gelu


def _variance(patient: GPT2) -> None:
    for part in list(patient.modules()):
        if isinstance(part, layer_norm.LayerNorm):
            _become(part, _Norm)


def _transpose(patient: GPT2) -> None:
    weight = _layers(patient)[2].attn.c_proj.weight
    weight.data = weight.data.T.contiguous()


def _order(patient: GPT2) -> None:
    for part in _layers(patient)[2].attn.c_attn.parameters():
        query, key, value = part.data.chunk(3, dim=-1)
        part.data = torch.cat([key, query, value], dim=-1)


def _mask(patient: GPT2) -> None:
    _become(_layers(patient)[-1].attn, _Near)


def _cache(patient: GPT2) -> None:
    for layer in _layers(patient):
        _become(layer.attn, _Square)


def _positions(patient: GPT2) -> None:
    _become(patient, _Places)


def _tying(patient: GPT2) -> None:
    _become(patient, _Twin)
    twin = patient.wte.weight.detach().clone()
    patient.register_parameter("output", nn.Parameter(twin))


def _dropout(patient: GPT2) -> None:
    _become(_layers(patient)[1].attn.resid_dropout, _Noise)


def _healthy(patient: GPT2) -> None:
    """Leave it as it is: one box may hold a model that has nothing."""


# What each fault is called, and how it is made. The names are the diagnoses
# that `check` knows.
FAULTS: dict[str, Callable[[GPT2], None]] = {
    "activation": _activation,
    "variance": _variance,
    "transpose": _transpose,
    "order": _order,
    "mask": _mask,
    "cache": _cache,
    "positions": _positions,
    "tying": _tying,
    "dropout": _dropout,
    "healthy": _healthy,
}


def _in_box(letter: str) -> str:
    """Return the name of the fault in a box.

    The boxes are filled in an order that looks like none.
    """

    def place(fault: str) -> bytes:
        return sha256(f"box 4293: {fault}".encode()).digest()

    shuffled = sorted(FAULTS, key=place)
    return shuffled[LETTERS.index(letter)]


def specimen(letter: str) -> GPT2:
    """Hand out the story model with at most one fault, which is not named.

    Args:
        letter: From A to E.

    Returns:
        A model like that of `gpt2.load("story")`, ready to be evaluated.

    Raises:
        ValueError: There is no such box.
    """
    if len(letter) != 1 or letter not in LETTERS:
        raise ValueError(
            f"the boxes are lettered {', '.join(LETTERS)}; got {letter!r}"
        )
    return _patient(_in_box(letter))


def _patient(fault: str) -> GPT2:
    patient = load_model("story")
    FAULTS[fault](patient)
    patient.eval().requires_grad_(False)
    return patient


class Sign(NamedTuple):
    """A measurement, and how its two outcomes read."""

    rings: Callable[[GPT2, GPT2], bool]
    """Takes a model and the healthy one."""
    bad: str
    good: str


def _text() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(1439, (1, 12), generator=generator)


def _differ(one: Tensor, other: Tensor) -> bool:
    return not torch.allclose(one, other, atol=1e-3, rtol=1e-4)


def _again(patient: GPT2, healthy: GPT2) -> bool:
    return _differ(patient(_text()), patient(_text()))


def _in_pieces(patient: GPT2, *ends: int) -> Tensor:
    text, memory = _text(), patient.new_cache(1)
    return torch.cat(
        [patient(text[:, a:b], cache=memory) for a, b in pairwise(ends)], dim=1
    )


def _chunks(patient: GPT2, healthy: GPT2) -> bool:
    pieces = _in_pieces(patient, 0, 5, 9, 12)
    return _differ(pieces, patient(_text()))


def _padded(patient: GPT2, healthy: GPT2) -> bool:
    text = _text()
    tokens, mask = F.pad(text, (4, 0)), F.pad(torch.ones_like(text), (4, 0))
    return _differ(patient(tokens, mask)[:, 4:], patient(text))


def _future(patient: GPT2, healthy: GPT2) -> bool:
    text = _text()
    other = torch.cat([text[:, :-1], (text[:, -1:] + 1) % 1439], dim=1)
    return _differ(patient(text)[:, :-1], patient(other)[:, :-1])


def _table(patient: GPT2, healthy: GPT2) -> bool:
    hidden = torch.ones(1, patient.config.n_embd)
    kept = patient.wte.weight.data
    patient.wte.weight.data = kept + 1
    moved = patient.unembed(hidden)
    patient.wte.weight.data = kept
    return not _differ(moved, patient.unembed(hidden))


def _norm(patient: GPT2, healthy: GPT2) -> bool:
    x = torch.linspace(-1, 3, patient.config.n_embd)[None]
    return _differ(100 * patient.ln_f(x), 100 * healthy.ln_f(x))


def _bend(patient: GPT2, healthy: GPT2) -> bool:
    x = torch.linspace(-4, 4, 99)
    return any(
        _differ(100 * layer.mlp.activation(x), 100 * gelu_new(x))
        for layer in _layers(patient)
    )


def _other_weights(name: str) -> Callable[[GPT2, GPT2], bool]:
    def rings(patient: GPT2, healthy: GPT2) -> bool:
        ours, theirs = patient.state_dict(), healthy.state_dict()
        return any(
            not torch.equal(ours[key], theirs[key])
            for key in theirs
            if key.endswith(name)
        )

    return rings


SIGNS = (
    Sign(
        _again,
        "the same text twice gets different logits",
        "the same text twice gets the same logits",
    ),
    Sign(
        _table,
        "the logits stay as they are when the rows of wte are moved",
        "the logits follow when the rows of wte are moved",
    ),
    Sign(
        _norm,
        "ln_f gives something else than F.layer_norm with its weights",
        "ln_f gives what F.layer_norm gives with its weights",
    ),
    Sign(
        _bend,
        "an activation differs from gelu_new in the fourth decimal",
        "all activations agree with gelu_new",
    ),
    Sign(
        _other_weights("attn.c_proj.weight"),
        "an attn.c_proj.weight is not the one of gpt2.load('story')",
        "every attn.c_proj.weight is the one of gpt2.load('story')",
    ),
    Sign(
        _other_weights("c_attn.weight"),
        "a c_attn.weight is not the one of gpt2.load('story')",
        "every c_attn.weight is the one of gpt2.load('story')",
    ),
    Sign(
        _future,
        "another last token changes the logits before it",
        "another last token changes no logits before it",
    ),
    Sign(
        _padded,
        "padding in front, with its mask, changes the logits of a text",
        "padding in front, with its mask, changes nothing",
    ),
    Sign(
        _chunks,
        "a text read in several pieces, with a cache, gets other logits than "
        "read at once",
        "a text read in several pieces, with a cache, gets the logits that it "
        "gets at once",
    ),
)


@cache
def _signs_of(fault: str) -> tuple[bool, ...]:
    patient, healthy = _patient(fault), _patient("healthy")
    return tuple(sign.rings(patient, healthy) for sign in SIGNS)


def diagnose(letter: str, answer: Any) -> str:
    """Compare a diagnosis with what is in the box, by measurements."""
    if answer not in FAULTS:
        raise NotYet(f"the diagnoses are {', '.join(FAULTS)}; got {answer!r}")
    fault = _in_box(letter)
    if answer == fault:
        return "healthy" if fault == "healthy" else f"it is the {fault}"
    here, there = _signs_of(fault), _signs_of(answer)
    told = zip(SIGNS, here, there, strict=True)
    # What the named fault would show comes first: it speaks against the
    # diagnosis without speaking for another.
    sign, rings = max(
        ((sign, h) for sign, h, t in told if h != t),
        key=lambda pair: not pair[1],
    )
    if answer == "healthy":
        raise NotYet(f"it is not well: {sign.bad}")
    with_it = sign.good if rings else sign.bad
    found = sign.bad if rings else sign.good
    raise NotYet(f"with {answer!r}, {with_it}; in this specimen, {found}")


def _register(letter: str) -> None:
    @exercise(f"specimen-{letter.lower()}")
    def checker(answer: Any) -> str:
        return diagnose(letter, answer)


for _letter in LETTERS:
    _register(_letter)

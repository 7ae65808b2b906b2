"""The broken models of chapter 16, and the symptoms that they show.

This module describes all faults, but it does not say which of them is in
which box; `ch16_a_museum_of_bugs` hands out the boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2 import attention, layer_norm, model
from gpt2.feed_forward import gelu, gelu_new
from gpt2.layer import GPT2Layer
from gpt2.model import GPT2
from gpt2.weights.loading import load_model


def broken_model(fault: str) -> GPT2:
    """Return the story model with one fault.

    Args:
        fault: A key of `FAULTS`.

    Returns:
        A model in evaluation mode that needs no gradients.
    """
    patient = load_model("story")
    FAULTS[fault](patient)
    patient.eval().requires_grad_(False)
    return patient


# --- Faults ---

# Each class differs from the package's in one respect. `_become` gives it to
# an object under the name of the object's own class, so that printing a model
# reveals nothing.


def _become(part: nn.Module, other: type[nn.Module]) -> None:
    other.__name__ = type(part).__name__
    object.__setattr__(part, "__class__", other)


def _layers(patient: GPT2) -> list[GPT2Layer]:
    return [cast(GPT2Layer, layer) for layer in patient.h]


def _activation(patient: GPT2) -> None:
    for layer in _layers(patient):
        layer.mlp.activation = gelu


class _UnbiasedNorm(layer_norm.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (x.var(-1, keepdim=True) + self.epsilon).sqrt()
        return self.weight * centred / deviation + self.bias


def _variance(patient: GPT2) -> None:
    for part in list(patient.modules()):
        if isinstance(part, layer_norm.LayerNorm):
            _become(part, _UnbiasedNorm)


def _transpose(patient: GPT2) -> None:
    weight = _layers(patient)[2].attn.c_proj.weight
    weight.data = weight.data.T.contiguous()


def _order(patient: GPT2) -> None:
    for part in _layers(patient)[2].attn.c_attn.parameters():
        query, key, value = part.data.chunk(3, dim=-1)
        part.data = torch.cat([key, query, value], dim=-1)


class _OneTooFar(attention.MultiHeadAttention):
    """Its mask also shows the next position."""

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


def _mask(patient: GPT2) -> None:
    _become(_layers(patient)[-1].attn, _OneTooFar)


class _NoOffset(attention.MultiHeadAttention):
    """Its mask aligns the first query with the first key of the cache."""

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


def _cache(patient: GPT2) -> None:
    for layer in _layers(patient):
        _become(layer.attn, _NoOffset)


class _PaddingCounts(model.GPT2):
    """Its positions count the padding."""

    def positions_and_mask(
        self, tokens: Tensor, attention_mask: Tensor | None, past: int
    ) -> tuple[Tensor, Tensor | None]:
        _, mask = super().positions_and_mask(tokens, attention_mask, past)
        return torch.arange(past, past + tokens.size(1)), mask


def _positions(patient: GPT2) -> None:
    _become(patient, _PaddingCounts)


class _TwoTables(model.GPT2):
    output: Tensor

    def unembed(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.output)


def _tying(patient: GPT2) -> None:
    _become(patient, _TwoTables)
    table = patient.wte.weight.detach().clone()
    # A buffer, because the number of parameters would reveal a second one.
    patient.register_buffer("output", table, persistent=False)


class _AlwaysOn(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.1)


def _dropout(patient: GPT2) -> None:
    _become(_layers(patient)[1].attn.resid_dropout, _AlwaysOn)


def _healthy(patient: GPT2) -> None:
    """Change nothing: one box may hold a healthy model."""


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
"""The diagnoses that `check` knows, and what puts each fault in a model."""


# --- Symptoms ---


class Symptom(NamedTuple):
    """A measurement that tells a broken model from a healthy one."""

    shows: Callable[[GPT2, GPT2], bool]
    """Whether a model has the symptom; the second model is healthy."""
    present: str
    """What one observes when the symptom is there."""
    absent: str
    """What one observes when it is not."""


@cache
def symptoms_of(fault: str) -> tuple[bool, ...]:
    """Return for each of `SYMPTOMS` whether a fault shows it."""
    patient, healthy = broken_model(fault), broken_model("healthy")
    return tuple(symptom.shows(patient, healthy) for symptom in SYMPTOMS)


def _text() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(1439, (1, 12), generator=generator)


def _differ(one: Tensor, other: Tensor) -> bool:
    return not torch.allclose(one, other, atol=1e-3, rtol=1e-4)


def _not_repeatable(patient: GPT2, healthy: GPT2) -> bool:
    return _differ(patient(_text()), patient(_text()))


def _untied(patient: GPT2, healthy: GPT2) -> bool:
    hidden = torch.ones(1, patient.config.n_embd)
    kept = patient.wte.weight.data
    patient.wte.weight.data = kept + 1
    moved = patient.unembed(hidden)
    patient.wte.weight.data = kept
    return not _differ(moved, patient.unembed(hidden))


def _other_norm(patient: GPT2, healthy: GPT2) -> bool:
    x = torch.linspace(-1, 3, patient.config.n_embd)[None]
    return _differ(100 * patient.ln_f(x), 100 * healthy.ln_f(x))


def _other_activation(patient: GPT2, healthy: GPT2) -> bool:
    x = torch.linspace(-4, 4, 99)
    return any(
        _differ(100 * layer.mlp.activation(x), 100 * gelu_new(x))
        for layer in _layers(patient)
    )


def _other_weights(name: str) -> Callable[[GPT2, GPT2], bool]:
    def shows(patient: GPT2, healthy: GPT2) -> bool:
        ours, theirs = patient.state_dict(), healthy.state_dict()
        names = [key for key in theirs if key.endswith(name)]
        return any(not torch.equal(ours[key], theirs[key]) for key in names)

    return shows


def _hears_the_future(patient: GPT2, healthy: GPT2) -> bool:
    text = _text()
    other = torch.cat([text[:, :-1], (text[:, -1:] + 1) % 1439], dim=1)
    return _differ(patient(text)[:, :-1], patient(other)[:, :-1])


def _minds_padding(patient: GPT2, healthy: GPT2) -> bool:
    text = _text()
    tokens, mask = F.pad(text, (4, 0)), F.pad(torch.ones_like(text), (4, 0))
    return _differ(patient(tokens, mask)[:, 4:], patient(text))


def _minds_pieces(patient: GPT2, healthy: GPT2) -> bool:
    text, cache = _text(), patient.new_cache(1)
    pieces = [
        patient(text[:, start:end], cache=cache)
        for start, end in pairwise((0, 5, 9, 12))
    ]
    return _differ(torch.cat(pieces, dim=1), patient(text))


SYMPTOMS = (
    Symptom(
        _not_repeatable,
        "the same text twice gives different logits",
        "the same text twice gives the same logits",
    ),
    Symptom(
        _untied,
        "the logits stay the same when the rows of wte change",
        "the logits change when the rows of wte do",
    ),
    Symptom(
        _other_norm,
        "ln_f gives something other than F.layer_norm with its weights",
        "ln_f gives what F.layer_norm gives with its weights",
    ),
    Symptom(
        _other_activation,
        "an activation differs from gelu_new in the fourth decimal",
        "all activations agree with gelu_new",
    ),
    Symptom(
        _other_weights("attn.c_proj.weight"),
        "an attn.c_proj.weight is not the one of gpt2.load('story')",
        "every attn.c_proj.weight is the one of gpt2.load('story')",
    ),
    Symptom(
        _other_weights("c_attn.weight"),
        "a c_attn.weight is not the one of gpt2.load('story')",
        "every c_attn.weight is the one of gpt2.load('story')",
    ),
    Symptom(
        _hears_the_future,
        "changing the last token changes the logits before it",
        "changing the last token changes no logits before it",
    ),
    Symptom(
        _minds_padding,
        "padding in front, with its mask, changes the logits of a text",
        "padding in front, with its mask, changes nothing",
    ),
    Symptom(
        _minds_pieces,
        "a text read in several pieces, with a cache, gets other logits than "
        "a text read at once",
        "a text read in several pieces, with a cache, gets the same logits as "
        "a text read at once",
    ),
)

"""Right and wrong answers to the exercises of chapter 10."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpt2.cache import KeyValueCache

Answers = tuple[object, dict[str, object]]


def forget(cache: KeyValueCache, n: int) -> None:
    """Answer exercise 10.3."""
    for layer in cache.layers:
        layer.length -= n


def keep(cache: KeyValueCache, n: int) -> None:
    """Keep what should be forgotten."""
    for layer in cache.layers:
        layer.length = n


def first_only(cache: KeyValueCache, n: int) -> None:
    """Forget in the layer that `cache.length` asks."""
    cache.layers[0].length -= n


def cut(cache: KeyValueCache, n: int) -> None:
    """Cut off memory, and leave nothing to write into."""
    for layer in cache.layers:
        layer.length -= n
        layer.keys = layer.keys[:, :, : layer.length]
        layer.values = layer.values[:, :, : layer.length]


def blank(cache: KeyValueCache, n: int) -> None:
    """Wipe out the numbers, which still count."""
    for layer in cache.layers:
        end = layer.length
        layer.keys[:, :, end - n : end] = 0


def from_the_front(cache: KeyValueCache, n: int) -> None:
    """Forget the first positions."""
    for layer in cache.layers:
        layer.keys, layer.values = (
            table.roll(-n, dims=2) for table in (layer.keys, layer.values)
        )
        layer.length -= n


def assign(cache: KeyValueCache, n: int) -> None:
    """Assign to what is only reported."""
    # The mistake is that there is nothing to assign to.
    cache.length -= n  # type: ignore[misc]


class Growing:
    """Answer the try-it of a first cache, with one tensor for both."""

    def __init__(self) -> None:
        """Start empty."""
        self.both: Tensor | None = None

    def append(self, key: Tensor, value: Tensor) -> Any:
        """Append, and return all."""
        new = torch.stack([key, value])
        old = self.both
        self.both = new if old is None else torch.cat([old, new], dim=3)
        return self.shown(self.both, new)

    def shown(self, both: Tensor, new: Tensor) -> Any:
        """Return the two halves."""
        return list(both)


class NewOnly(Growing):
    """Return what came in."""

    def shown(self, both: Tensor, new: Tensor) -> Any:
        """Return the new."""
        return tuple(new)


class Backwards(Growing):
    """Put the new ones in front."""

    def shown(self, both: Tensor, new: Tensor) -> Any:
        """Return the newest first."""
        n = new.size(3)
        return tuple(torch.cat([new, both[..., :-n, :]], dim=3))


class Swapped(Growing):
    """Return values and keys."""

    def shown(self, both: Tensor, new: Tensor) -> Any:
        """Return them the wrong way round."""
        return both[1], both[0]


class Silent(Growing):
    """Forget the return."""

    def shown(self, both: Tensor, new: Tensor) -> Any:
        """Return nothing."""


class OneTensor(Growing):
    """Return one thing."""

    def shown(self, both: Tensor, new: Tensor) -> Any:
        """Return the keys."""
        return both[0]


class ShortMemory:
    """Remember one call."""

    old: Any = None

    def append(self, key: Tensor, value: Tensor) -> Any:
        """Join the last two calls."""
        new = torch.stack([key, value])
        both = new if self.old is None else torch.cat([self.old, new], 3)
        self.old = new
        return tuple(both)


class Shared:
    """Keep everything in the class."""

    # The mistake is that all instances share it.
    kept: list[Tensor] = []  # noqa: RUF012

    def append(self, key: Tensor, value: Tensor) -> Any:
        """Append for everybody."""
        self.kept.append(torch.stack([key, value]))
        return tuple(torch.cat(self.kept, dim=3))


def columns(weight: Tensor) -> Any:
    """Answer the try-it of one byte for each weight, by a loop."""
    scales = [max(map(abs, column)) / 127 for column in weight.T.tolist()]
    scale = torch.tensor(scales)
    return (weight / scale).round().char(), scale


def per_row(weight: Tensor) -> Any:
    """Give each row a scale."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round().char(), scale


def with_scale(weight: Tensor, scale: Tensor) -> Any:
    """Round with another scale."""
    return (weight / scale).round().clamp(-127, 127).char(), scale


ANSWERS: dict[str, Answers] = {
    "exchanged-word": (
        ([0, 1, 0, 0, 0], [False, True, True, True, True]),
        {
            "alone": ([0, 1, 1, 1, 1], [0, 1, 1, 1, 1]),
            "already attended": ([0, 1, 0, 0, 0], [0, 1, 0, 0, 0]),
            "cannot see it": ([1, 1, 0, 0, 0], [0, 1, 1, 1, 1]),
            "own key changes": ([0, 0, 0, 0, 0], [0, 1, 1, 1, 1]),
            "expected two lists": [0, 1, 0, 0, 0],
        },
    ),
    "growing-cache": (
        Growing,
        {
            "the new keys only": NewOnly,
            "append them at the end": Backwards,
            "swapped": Swapped,
            "`return` missing": Silent,
            "expected two tensors": OneTensor,
            "of the last two calls": ShortMemory,
            "not in the class": Shared,
            "no method `append`": dict,
            "expected a function": Growing(),
        },
    ),
    "quantize-columns": (
        columns,
        {
            "for each row": per_row,
            "for the whole matrix": lambda w: with_scale(
                w, w.abs().max() / 127
            ),
            "a negative number": lambda w: with_scale(w, w.amax(dim=0) / 127),
            "go up to 127": lambda w: with_scale(w, w.abs().amax(dim=0) / 128),
            "its inverse": lambda w: with_scale(w, 127 / w.abs().amax(dim=0)),
            "round first": lambda w: (
                (w / columns(w)[1]).char(),
                columns(w)[1],
            ),
            "torch.int8": lambda w: (
                (w / columns(w)[1]).round(),
                columns(w)[1],
            ),
            "expected two tensors": lambda w: columns(w)[0],
        },
    ),
    "cache-break-even": (
        lambda c: (6 * c, 4 * 2 * 6 * c * c, 4 * 12 * c * c),
        {
            "the scores alone": lambda c: (
                12 * c,
                96 * c * c,
                48 * c * c,
            ),
            "for 768 only": lambda c: (4608, 48 * c * c, 48 * c * c),
            "upside down": lambda c: (c / 6, 48 * c * c, 48 * c * c),
            "one C too many": lambda c: (6 * c * c, 48 * c * c, 48 * c * c),
            "that counts numbers": lambda c: (6 * c, 12 * c**2, 12 * c**2),
            "a key and a value": lambda c: (6 * c, 24 * c * c, 48 * c * c),
            "two bytes for each weight": lambda c: (
                6 * c,
                48 * c * c,
                24 * c * c,
            ),
            "cache of all twelve": lambda c: (6 * c, 576 * c * c, 48 * c * c),
            "that counts weights": lambda c: (6 * c, 48 * c**2, 12 * c**2),
            "biases and norms": lambda c: (
                6 * c,
                48 * c * c,
                4 * (12 * c * c + 13 * c),
            ),
            "attention's weights": lambda c: (6 * c, 48 * c**2, 16 * c**2),
            "expected three numbers": lambda c: 6 * c,
            "expected a function": (4608, 28311552, 28311552),
        },
    ),
    "forget-positions": (
        forget,
        {
            "it should drop 2": keep,
            "lengths are 7 and 9": first_only,
            "cuts the reserved memory down": cut,
            "still holds all 9": blank,
            "the first positions": from_the_front,
            "raises AttributeError": assign,
        },
    ),
}

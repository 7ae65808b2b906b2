"""Right and wrong answers to the exercises of chapter 5."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gpt2.attention import attention_weights, causal_mask, padding_mask
from gpt2.linear import Linear

Answers = tuple[object, dict[str, object]]


def places(order: Tensor, size: int) -> Tensor:
    """Give the places of the heads in this order."""
    heads = torch.arange(len(order) * size).unflatten(0, (len(order), size))
    return heads[order].flatten()


def rearrange(order: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Answer exercise 5.2."""
    rows, width = places(order, size), len(order) * size
    return torch.cat([rows, rows + width, rows + 2 * width]), rows


def columns(order: Tensor, size: int) -> Tensor:
    """Give the right columns."""
    return rearrange(order, size)[0]


def strided(order: Tensor, size: int) -> Tensor:
    """Take every H-th row."""
    rows = torch.arange(len(order) * size).unflatten(0, (size, len(order)))
    return rows[:, order].flatten()


class SharedKeys(nn.Module):
    """Answer exercise 5.3."""

    order = "qkv"

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head, self.size = n_head, width // n_head
        self.c_attn = Linear(width, width + 2 * self.size)
        self.c_proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        sizes = [x.size(-1) if p == "q" else self.size for p in self.order]
        parts = self.c_attn(x).split(sizes, dim=-1)
        q, k, v = (parts[self.order.index(part)] for part in "qkv")
        q = q.unflatten(-1, (self.n_head, -1)).transpose(1, 2)
        mixed = self.mix(q, k[:, None], v[:, None])
        return self.c_proj(self.merge(mixed))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = causal_mask(q.size(2), q.size(2))
        return attention_weights(q, k, mask) @ v

    def merge(self, mixed: Tensor) -> Tensor:
        return mixed.transpose(1, 2).flatten(2)


class Future(SharedKeys):
    """No mask."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_weights(q, k) @ v


class Unscaled(SharedKeys):
    """No root of D."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().mix(q * q.size(-1) ** 0.5, k, v)


class ScaledByWidth(SharedKeys):
    """The root of C."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().mix(q / self.n_head**0.5, k, v)


class Merged(SharedKeys):
    """A reshape instead of a transpose."""

    def merge(self, mixed: Tensor) -> Tensor:
        batch, heads, n, size = mixed.shape
        return mixed.reshape(batch, n, heads * size)


class ValueFirst(SharedKeys):
    """Key and value exchanged."""

    order = "qvk"


class QueriesLast(SharedKeys):
    """The queries behind the key and the value."""

    order = "kvq"


class KeysForAll(SharedKeys):
    """Keys and values for every head."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__(width, n_head)
        self.c_attn = Linear(width, 3 * width)


class OneForBoth(SharedKeys):
    """A key, and no value."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__(width, n_head)
        self.c_attn = Linear(width, width + self.size)


class Torch(SharedKeys):
    """PyTorch's maps, which keep the transpose."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__(width, n_head)
        self.c_attn = nn.Linear(width, width + 2 * self.size)


class Renamed(SharedKeys):
    """Another name for the output."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__(width, n_head)
        # The mistake is that a name is gone on which others rely.
        self.out, self.c_proj = self.c_proj, None  # type: ignore[assignment]


ANSWERS: dict[str, Answers] = {
    "heads-in-order": (
        rearrange,
        {
            "writes where another one did": lambda o, d: (
                columns(o, d),
                torch.arange(len(o) * d),
            ),
            "puts the heads back": lambda o, d: rearrange(o.argsort(), d),
            "not every H-th": lambda o, d: (columns(o, d), strided(o, d)),
            "numbers of the heads": lambda o, d: (columns(o, d), o),
            "one row apart": lambda o, d: (
                columns(o, d),
                (o[:, None] + torch.arange(d)).flatten(),
            ),
            "only the queries": lambda o, d: (places(o, d), places(o, d)),
            "from the columns of the queries": lambda o, d: (
                places(o, d).repeat(3),
                places(o, d),
            ),
            "keys and values are not reordered": lambda o, d: (
                torch.cat(
                    [places(o, d), torch.arange(len(o) * d, 3 * len(o) * d)]
                ),
                places(o, d),
            ),
            "into H pieces": lambda o, d: (places(o, 3 * d), places(o, d)),
            "expected two tensors": lambda o, d: columns(o, d),
        },
    ),
    "shared-keys": (
        SharedKeys,
        {
            "see the future": Future,
            "not scaled": Unscaled,
            "by √C": ScaledByWidth,
            "without swapping": Merged,
            "key and value are swapped": ValueFirst,
            "from the front": QueriesLast,
            "a key and a value for each head": KeysForAll,
            "are two": OneForBoth,
            "is transposed": Torch,
            "no `c_proj`": Renamed,
            "expected an nn.Module": lambda width, n_head: width,
            "expected a function": SharedKeys(12, 3).n_head,
        },
    ),
    "split-heads": (
        lambda x, n_head: x.unflatten(-1, (n_head, -1)).transpose(1, 2),
        {
            "the text is cut": lambda x, h: x.reshape(
                len(x), h, x.size(1), -1
            ),
            "before that of the positions": lambda x, h: x.unflatten(
                -1, (h, -1)
            ),
            "not every H-th": lambda x, h: x.unflatten(-1, (-1, h)).permute(
                0, 3, 1, 2
            ),
            "changed places": lambda x, h: x.unflatten(-1, (h, -1)).permute(
                0, 2, 3, 1
            ),
            "has shape": lambda x, h: x,
        },
    ),
    "padding-mask": (
        padding_mask,
        {
            "are empty under": lambda real, n: real.bool()[
                :, None, None
            ].expand(-1, 1, n, -1),
            "one row for all": lambda real, n: real.bool()[:, None, None],
            "upside down": lambda real, n: ~padding_mask(real, n),
            "changed places": lambda real, n: (
                real.bool()[:, None, :, None] | torch.eye(real.size(1)).bool()
            )[:, :, -n:],
            "the future": lambda real, n: padding_mask(
                real, real.size(1)
            ).tril()[:, :, -n:],
            "for the heads": lambda real, n: padding_mask(real, n)[:, 0],
            "a row for every position": lambda real, n: padding_mask(
                real, real.size(1)
            ),
            "not the first": lambda real, n: padding_mask(real, real.size(1))[
                :, :, :n
            ],
        },
    ),
    "heads-missed": (
        9,
        {
            "the whole first layer": 15,
            "a few heads do": 3,
            "from 0 to 16": 17,
            "got 'all'": "all",
        },
    ),
    "wrong-heads": (
        8,
        {"right number": 4, "less harm": 2, "1, 2, 8 or 16": 3},
    ),
}

ALSO_RIGHT: dict[str, list[object]] = {
    "split-heads": [
        lambda x, h: x.view(*x.shape[:2], h, -1).transpose(1, 2),
        lambda x, h: torch.stack(x.chunk(h, dim=-1), dim=1),
        lambda x, h: x.reshape(*x.shape[:2], h, -1).permute(0, 2, 1, 3),
    ],
    "padding-mask": [
        lambda real, n: (
            (real == 1)[:, None, None] | torch.eye(real.size(1))[-n:].bool()
        ),
        lambda real, n: real[:, None, None] + torch.eye(real.size(1))[-n:] > 0,
    ],
    "heads-missed": [torch.tensor(9)],
    "heads-in-order": [lambda o, d: list(rearrange(o, d))],
    "wrong-heads": [torch.tensor(8)],
}

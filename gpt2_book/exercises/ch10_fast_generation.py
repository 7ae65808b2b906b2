"""The exercises of chapter 10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpt2.cache import KeyValueCache
from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2_book.exercises.checking import (
    NotYet,
    act,
    call,
    describe,
    exercise,
    same,
)

CONFIG = GPT2Config(n_vocab=17, n_ctx=11, n_embd=12, n_head=3, n_layer=2)


@exercise("cache-break-even")
def cache_break_even(answer: Any) -> str:
    """Exercise 10.2: where attention takes as much as the maps."""
    for width in (768, 192, 35):
        came = call(answer, width)
        if not isinstance(came, Sequence) or len(came) != 3:
            raise NotYet(
                "three numbers are wanted, the length, the bytes of the cache "
                f"and those of the weights; got {describe(came)}"
            )
        length, square = 6 * width, width**2
        same(
            came[0],
            float(length),
            f"the length for C={width}",
            {
                "the width is to be the argument; 4,608 is the length for "
                "768 only": 4608.0,
                "that is where the scores alone take as much as the maps; the "
                "mix takes S C as well": (2.0 * length),
                "that has a C too many; in 2 S C = 12 C² one cancels": 6.0
                * square,
                "that is upside down; a wider model can read longer before "
                "attention matters": width / 6,
            },
        )
        same(
            came[1],
            48.0 * square,
            f"the bytes of cache for C={width}",
            {
                "those are numbers; each has four bytes": 12.0 * square,
                "that counts the keys; a position has a value as well": 24.0
                * square,
                "that is the cache of all twelve layers; asked is one": (
                    12 * 48.0 * square
                ),
                "those are bits; asked are bytes": 8 * 48.0 * square,
            },
        )
        same(
            came[2],
            48.0 * square,
            f"the bytes of weights for C={width}",
            {
                "those are numbers of the weights; each has four bytes": (
                    12.0 * square
                ),
                "that counts biases and norms as well; 12 C² are the "
                "matrices": 4.0 * (12 * square + 13 * width),
                "those are the weights of attention; the feed-forward has "
                "8 C² more": 16.0 * square,
                "those are the weights of all twelve layers; asked is one": (
                    12 * 48.0 * square
                ),
            },
        )
    return "from six times the width on, the cache is the larger of the two"


@exercise("forget-positions")
def forget_positions(answer: Any) -> str:
    """Exercise 10.3: a cache forgets its last positions."""
    torch.manual_seed(10)
    model = GPT2(CONFIG).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.5)
    first, second = torch.randint(17, (2, 2, 9))  # each (B, T)
    for n_read, n in ((9, 2), (7, 5), (6, 0)):
        cache = model.new_cache(2)
        model(first[:, :n_read], cache=cache)
        before = cache.layers[1].keys.clone()
        act(answer, cache, n)
        has_forgotten(cache, before, n_read, n)
        kept = n_read - n
        logits = model(second[:, kept:], cache=cache, last_only=True)
        whole = torch.cat([first[:, :kept], second[:, kept:]], dim=1)
        fresh = model(whole, last_only=True)
        what = f"a logit after {n} of {n_read} positions were forgotten"
        same(logits, fresh, what)
    return "what is written then is what a fresh cache gives"


def has_forgotten(
    cache: KeyValueCache, before: Tensor, n_read: int, n: int
) -> None:
    """See that every layer has room again, and nothing else has changed."""
    lengths = [layer.length for layer in cache.layers]
    kept = n_read - n
    for layer in cache.layers:
        if layer.keys.size(2) != CONFIG.n_ctx:
            raise NotYet(
                f"it cuts the reserved memory down to {layer.keys.size(2)} "
                "positions, and what is written next has no room"
            )
    if len(set(lengths)) > 1:
        raise NotYet(
            "its layers do not agree any more: their lengths are "
            f"{' and '.join(map(str, lengths))}; each has one of its own"
        )
    if lengths[0] != kept and lengths[0] == n:
        raise NotYet(
            f"of {n_read} positions it keeps {n}; it should forget {n}"
        )
    if lengths[0] == n_read and n > 0:
        raise NotYet(
            f"the cache still holds all {n_read} positions; what says how "
            "many count is the `length` of each layer"
        )
    what = f"the length after {n} of {n_read} positions were forgotten"
    same(lengths[0], kept, what)
    same(
        cache.layers[1].keys[:, :, :kept],
        before[:, :, :kept],
        "a key that was to stay",
        {
            "it forgets the first positions, and should forget the last": (
                before[:, :, n:n_read]
            )
        },
    )

"""The exercises of chapter 10."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpt2.cache import KeyValueCache
from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    act,
    call,
    exercise,
    same,
    unpack,
)

CONFIG = GPT2Config(n_vocab=17, n_ctx=11, n_embd=12, n_head=3, n_layer=2)


@exercise("cache-break-even")
def cache_break_even(answer: Any) -> str:
    """Exercise 10.2: where attention takes as much as the linear maps."""
    for width in (768, 192, 35):
        what = (
            "three numbers, the length, the bytes of the cache and the bytes "
            "of the weights"
        )
        got = unpack(call(answer, width), 3, what)
        length, square = 6.0 * width, width**2
        size, what = 48.0 * square, f"for C={width}"
        same(got[0], length, f"the length {what}", _lengths(width))
        same(got[1], size, f"the bytes of the cache {what}", _caches(square))
        same(got[2], size, f"the bytes of the weights {what}", _weights(width))
    return "beyond six times the width, the cache is larger than the weights"


def _lengths(width: int) -> list[Mistake]:
    return [
        Mistake(
            "compute it from the width; 4,608 is the length for 768 only",
            4608.0,
        ),
        Mistake(
            "that is where the scores alone take as much as the maps; the "
            "weighted sum takes S C as well",
            12.0 * width,
        ),
        Mistake(
            "that has one C too many; in 2 S C = 12 C² one C cancels",
            6.0 * width**2,
        ),
        Mistake(
            "that is upside down; the wider the model, the longer the text "
            "before attention matters",
            width / 6,
        ),
    ]


def _caches(square: int) -> list[Mistake]:
    return [
        Mistake("that counts numbers; each has four bytes", 12.0 * square),
        Mistake(
            "that counts the keys; a position has a value as well",
            24.0 * square,
        ),
        Mistake(
            "that is the cache of all twelve layers; the exercise asks for "
            "one",
            12 * 48.0 * square,
        ),
        Mistake(
            "that is in bits; the exercise asks for bytes", 8 * 48.0 * square
        ),
    ]


def _weights(width: int) -> list[Mistake]:
    square = width**2
    return [
        Mistake("that counts weights; each has four bytes", 12.0 * square),
        Mistake(
            "that includes biases and norms; the matrices alone are 12 C²",
            4.0 * (12 * square + 13 * width),
        ),
        Mistake(
            "those are attention's weights; the feed-forward network has 8 C² "
            "more",
            16.0 * square,
        ),
        Mistake(
            "those are the weights of all twelve layers; the exercise asks "
            "for one",
            12 * 48.0 * square,
        ),
    ]


@exercise("forget-positions")
def forget_positions(answer: Any) -> str:
    """Exercise 10.3: drop the last positions of a cache."""
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
        _check_cache(cache, before, n_read, n)
        kept = n_read - n
        logits = model(second[:, kept:], cache=cache, last_only=True)
        whole = torch.cat([first[:, :kept], second[:, kept:]], dim=1)
        fresh = model(whole, last_only=True)
        same(
            logits, fresh, f"a logit after dropping {n} of {n_read} positions"
        )
    return "the text that follows gets the logits that a new cache gives"


def _check_cache(
    cache: KeyValueCache, before: Tensor, n_read: int, n: int
) -> None:
    """Check that every layer has room again, and that the rest is unchanged.

    Args:
        cache: What the reader's function was given.
        before: The keys of layer 1 before that.
        n_read: The number of positions that were in the cache.
        n: The number of positions to drop.
    """
    lengths = [layer.length for layer in cache.layers]
    kept = n_read - n
    for layer in cache.layers:
        if layer.keys.size(2) != CONFIG.n_ctx:
            raise NotYet(
                f"it cuts the reserved memory down to {layer.keys.size(2)} "
                "positions, so there is no room for the tokens that follow"
            )
    if len(set(lengths)) > 1:
        raise NotYet(
            "the layers no longer agree: their lengths are "
            f"{' and '.join(map(str, lengths))}; each layer has its own"
        )
    if lengths[0] != kept and lengths[0] == n:
        raise NotYet(f"it keeps {n} of {n_read} positions; it should drop {n}")
    if lengths[0] == n_read and n > 0:
        raise NotYet(
            f"the cache still holds all {n_read} positions; the `length` of "
            "each layer says how many count"
        )
    what = f"the length after dropping {n} of {n_read} positions"
    same(lengths[0], kept, what)
    same(
        cache.layers[1].keys[:, :, :kept],
        before[:, :, :kept],
        "a key that should stay",
        [
            Mistake(
                "it drops the first positions; it should drop the last",
                before[:, :, n:n_read],
            )
        ],
    )

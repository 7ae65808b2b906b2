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
    whole_numbers,
)

Pair = tuple[Tensor, Tensor]

CONFIG = GPT2Config(n_vocab=17, n_ctx=11, n_embd=12, n_head=3, n_layer=2)


@exercise("growing-cache")
def growing_cache(answer: Any) -> str:
    """Chapter 10, on the way: a cache for one layer."""
    torch.manual_seed(10)
    pieces = [torch.randn(2, 2, 3, n, 5) for n in (4, 1, 2)]  # keys, values
    one, other = call(answer), call(answer)
    for cache in (one, other):
        if not callable(getattr(cache, "append", None)):
            raise NotYet(f"{type(cache).__name__} has no method `append`")
    what = "two tensors, all keys and all values"
    done: list[Tensor] = []
    for piece in pieces:
        got = unpack(call(one.append, *piece), 2, what)
        before, done = done, [*done, piece]
        keys, values = torch.cat(done, dim=3)
        _check_pair((got[0], got[1]), (keys, values), before, piece)
    got = unpack(call(other.append, *pieces[2]), 2, what)
    if isinstance(got[0], Tensor) and got[0].shape != pieces[2][0].shape:
        raise NotYet(
            "a second cache begins with what the first one holds; keep the "
            "tensors in the object, not in the class"
        )
    same(got[0], pieces[2][0], "a key in a second cache")
    return "each layer can have one of its own, and nothing is forgotten"


def _check_pair(
    got: Pair, right: Pair, before: list[Tensor], new: Any
) -> None:
    """Compare what `append` returned with all keys and all values.

    Args:
        got: The keys and the values that the reader's cache returned.
        right: What it should have returned.
        before: The pieces appended before, each (2, B, H, T, D).
        new: The piece appended last.
    """
    for i, name in enumerate(("key", "value")):
        own, swapped = right[i], right[1 - i]
        mistakes = [Mistake("keys and values are swapped", swapped)]
        for piece in before[-1:]:
            mistakes += [
                Mistake(
                    f"it returns the new {name}s only; the query needs those "
                    "from before as well",
                    new[i],
                ),
                Mistake(
                    f"the new {name}s stand before the old ones; append them "
                    "at the end",
                    torch.cat([new[i], own[:, :, : -new.size(3)]], dim=2),
                ),
                Mistake(
                    f"it forgets all {name}s but those of the last two calls",
                    torch.cat([piece[i], new[i]], dim=2),
                ),
            ]
        same(got[i], own, f"what it returns of the {name}s", mistakes)


@exercise("exchanged-word")
def exchanged_word(answer: Any) -> str:
    """Exercise 10.1: which keys change when the first word is exchanged."""
    what = "two lists of five, for the first layer and for the others"
    for got, name, right, wrong in zip(
        unpack(answer, 2, what),
        ("the first layer", "the other layers"),
        ([0, 1, 0, 0, 0], [0, 1, 1, 1, 1]),
        ([0, 1, 1, 1, 1], [0, 1, 0, 0, 0]),
        strict=True,
    ):
        changed = whole_numbers(unpack(got, 5, what), what)
        mistakes = [
            Mistake(
                "in the first layer a key is made from its own token and "
                "position alone"
                if wrong[-1]
                else "from the second layer on, a key is made from a stream "
                "that has already attended to the exchanged word",
                wrong,
            ),
            Mistake(
                "the end of text stands before the word and cannot see it",
                [1, *right[1:]],
            ),
            Mistake("the exchanged word's own key changes", [0] * 5),
        ]
        same(changed, right, f"what you say of {name}", mistakes)
    return "what came before stays, in every layer"


@exercise("quantize-columns")
def quantize_columns(answer: Any) -> str:
    """Chapter 10, on the way: one byte for each weight."""
    torch.manual_seed(10)
    for shape in ((7, 3), (2, 5), (12, 12)):
        weight = torch.randn(shape) * torch.linspace(0.01, 3, shape[1])
        scale = weight.abs().amax(dim=0) / 127
        what = "two tensors, the integers and the scales"
        got = unpack(call(answer, weight), 2, what)
        mistakes = _scale_mistakes(weight, scale)
        same(torch.as_tensor(got[1]).squeeze(), scale, "a scale", mistakes)
        integers = got[0]
        if not isinstance(integers, Tensor):
            same(integers, torch.zeros(shape), "the integers")
        if integers.dtype != torch.int8:
            raise NotYet(
                f"the integers have the dtype {integers.dtype}; one byte is "
                "torch.int8"
            )
        steps = weight / scale
        same(
            integers.float(),
            steps.round(),
            "an integer",
            [
                Mistake(
                    "`to(torch.int8)` cuts off what is behind the point; "
                    "round first",
                    steps.trunc(),
                ),
                Mistake("multiply by the scale to come back", weight.round()),
            ],
        )
    return "no number is off by more than half a step of its column"


def _scale_mistakes(weight: Tensor, scale: Tensor) -> list[Mistake]:
    rows = weight.abs().amax(dim=1) / 127
    return [
        Mistake(
            "that is a scale for each row; the columns need one each", rows
        ),
        Mistake(
            "that is one scale for the whole matrix; a column of small "
            "numbers would be rounded with the steps of a large one",
            weight.abs().max() / 127,
        ),
        Mistake(
            "the sign counts: the largest magnitude may be a negative number",
            weight.amax(dim=0) / 127,
        ),
        Mistake(
            "the integers go up to 127; 128 does not fit on both sides",
            scale * 127 / 128,
        ),
        Mistake(
            "that is its inverse: a scale is the size of a step", 1 / scale
        ),
    ]


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
            "that is half of it: a position has a key and a value, and each "
            "number has four bytes",
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
            "that is two bytes for each weight; here each has four",
            24.0 * square,
        ),
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

"""Right and wrong answers to the exercises of chapter 10."""

from __future__ import annotations

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


ANSWERS: dict[str, Answers] = {
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
            "a value as well": lambda c: (6 * c, 24 * c * c, 48 * c * c),
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

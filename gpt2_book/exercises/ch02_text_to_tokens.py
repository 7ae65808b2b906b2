"""The exercises of chapter 2."""

from __future__ import annotations

from typing import Any

import regex  # type: ignore[import-untyped]  # has no type hints

from gpt2.tokenizer.bpe import SPLIT_PATTERN, count_pieces, learn_merges
from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    same,
    unpack,
)


@exercise("longest-token")
def longest_token(answer: Any) -> str:
    """Exercise 2.2: the longest token after some merges, and its text."""
    for n in (1, 5, 8):
        mistakes = [
            Mistake(
                "you add one byte for each merge; a merge may join two tokens "
                "that are long already",
                n + 1,
            ),
            Mistake(
                "you add two bytes for each merge; at best a merge doubles "
                "the longest token",
                2 * n,
            ),
            Mistake(
                "that is one doubling too many; before the first merge a "
                "token has one byte",
                2 ** (n + 1),
            ),
            Mistake(
                "that is one doubling too few; the first merge makes two "
                "bytes",
                2 ** (n - 1),
            ),
            Mistake(
                "that is m to the power of 2; it should be 2 to the power "
                "of m",
                n**2,
            ),
        ]
        what = "two things, the bound and a text that reaches it"
        bound, text = unpack(call(answer, n), 2, what)
        same(bound, 2**n, f"the bound after {n} merges", mistakes)
        _check_text(text, n)
    return "every merge doubles the longest token"


def _check_text(text: Any, n_merges: int) -> None:
    """Check that in this text every merge doubles the longest token."""
    if not isinstance(text, str):
        raise NotYet(f"the text should be a str; got {describe(text)}")
    if len(text.encode()) > 64 * 2**n_merges:
        raise NotYet("the text is much longer than it has to be")
    merges = learn_merges(count_pieces([text]), n_merges)
    lengths = [len(first + second) for first, second in merges]
    if len(lengths) < n_merges:
        raise NotYet(
            f"there is room for only {len(lengths)} of {n_merges} merges: the "
            "text is too short, or the split pattern has cut it"
        )
    if max(lengths, default=1) < 2**n_merges:
        raise NotYet(
            f"in your text the {n_merges} merges give tokens of {lengths} "
            "bytes; each of them should double the last"
        )


# Each text, and the pieces that it may be cut into. The space before a digit
# may be part of the digit's piece or a piece of its own.
SAMPLES = (
    ("1001", [["1", "0", "0", "1"]]),
    (
        "in 42 days",
        [["in", " 4", "2", " days"], ["in", " ", "4", "2", " days"]],
    ),
    (
        "ELLA'S kite isn't TOM'LL",
        [["ELLA", "'S", " kite", " isn", "'t", " TOM", "'LL"]],
    ),
    ("wait...  what?\n\n", [["wait", "...", " ", " what", "?", "\n\n"]]),
    ("x²½٣", [["x", "²", "½", "٣"]]),
)


@exercise("single-digits")
def single_digits(answer: Any) -> str:
    """Exercise 2.3: a split pattern with single digits and capital endings."""
    pattern = getattr(answer, "pattern", answer)
    if not isinstance(pattern, str):
        raise NotYet(f"expected a pattern, a str; got {describe(answer)}")
    try:
        compiled = regex.compile(answer)
    except regex.error as error:
        raise NotYet(f"the pattern does not compile: {error}") from error
    if pattern == SPLIT_PATTERN:
        raise NotYet("that is still the old pattern")
    for text, allowed in SAMPLES:
        pieces = [match[0] for match in compiled.finditer(text)]
        if pieces not in allowed:
            _explain_pieces(text, pieces, allowed[0])
    return "every text comes back, digit by digit"


def _explain_pieces(text: str, pieces: list[str], right: list[str]) -> None:
    """Say what is wrong with the pieces of a text."""
    if "".join(pieces) != text:
        raise NotYet(
            f"only {pieces} remains of {text!r}; every character has to be in "
            "some piece"
        )
    numbers = [p for p in pieces if sum(c.isnumeric() for c in p) > 1]
    if numbers:
        raise NotYet(
            f"{numbers[0]!r} is still one piece; without a `+`, a digit class "
            "matches one digit"
        )
    for ending in ("S", "LL"):
        if ending in pieces:
            raise NotYet(
                f"'{ending} is cut into ' and {ending}; `(?i:...)` makes the "
                "endings case-insensitive"
            )
    raise NotYet(f"{text!r} becomes {pieces}; expected {right}")

"""The exercises of chapter 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import regex  # type: ignore[import-untyped]  # it has no type hints

from gpt2.tokenizer.bpe import SPLIT_PATTERN, count_pieces, learn_merges
from gpt2_book.exercises.checking import NotYet, call, describe, exercise, same


@exercise("longest-token")
def longest_token(answer: Any) -> str:
    """Exercise 2.2: the longest token after some merges, and its text."""
    for n_merges in (1, 5, 8):
        came = call(answer, n_merges)
        if not isinstance(came, Sequence) or len(came) != 2:
            raise NotYet(
                "two things are wanted, the bound and a text that reaches "
                f"it; got {describe(came)}"
            )
        bound, text = came
        same(
            bound,
            2**n_merges,
            f"the bound after {n_merges} merges",
            {
                "one byte more for each merge is too little; a merge may join "
                "two tokens that are long already": n_merges + 1,
                "that adds two bytes with each merge; at best a merge "
                "doubles": n_merges * 2,
                "that is one doubling too many; before the first merge a "
                "token has one byte": 2 ** (n_merges + 1),
                "that is one doubling too few; the first merge makes two "
                "bytes": 2 ** (n_merges - 1),
                "that is m to the power of two; it should be two to the power "
                "of m": n_merges**2,
            },
        )
        if not isinstance(text, str):
            raise NotYet(f"the text should be a str; got {describe(text)}")
        if len(text.encode()) > 64 * 2**n_merges:
            raise NotYet("such a text need not be so long")
        merges = learn_merges(count_pieces([text]), n_merges)
        lengths = [len(first + second) for first, second in merges]
        reached = max(lengths, default=1)
        if len(lengths) < n_merges:
            raise NotYet(
                f"of {n_merges} merges there is room for {len(lengths)}: the "
                "text is too short, or the split pattern has cut it"
            )
        if reached < 2**n_merges:
            raise NotYet(
                f"in this text the {n_merges} merges give tokens of "
                f"{lengths} bytes; each of them is to double the last"
            )
    return "every merge doubles the longest token"


# A text, and the pieces that it may have: a space before a digit goes with it,
# or stays alone.
SAMPLES = (
    ("1001", [["1", "0", "0", "1"]]),
    (
        "in 42 days",
        [["in", " 4", "2", " days"], ["in", " ", "4", "2", " days"]],
    ),
    ("ELLA'S kite isn't TOM'LL", [
        ["ELLA", "'S", " kite", " isn", "'t", " TOM", "'LL"],
    ]),
    ("wait...  what?\n\n", [["wait", "...", " ", " what", "?", "\n\n"]]),
    ("x²½٣", [["x", "²", "½", "٣"]]),
)  # fmt: skip


@exercise("single-digits")
def single_digits(answer: Any) -> str:
    """Exercise 2.3: a split pattern with single digits, blind to case."""
    pattern = getattr(answer, "pattern", answer)
    if not isinstance(pattern, str):
        raise NotYet(f"a pattern is wanted, a str; got {describe(answer)}")
    try:
        compiled = regex.compile(answer)
    except regex.error as error:
        raise NotYet(f"the pattern cannot be read: {error}") from error
    if pattern == SPLIT_PATTERN:
        raise NotYet("it is still the old pattern")
    for text, allowed in SAMPLES:
        came = [match[0] for match in compiled.finditer(text)]
        if "".join(came) != text:
            raise NotYet(
                f"of {text!r} only {came} is left; every character has to be "
                "in some piece"
            )
        if came in allowed:
            continue
        numbers = [p for p in came if sum(c.isnumeric() for c in p) > 1]
        if numbers:
            raise NotYet(
                f"{numbers[0]!r} is still one piece; a digit without a plus "
                "sign is one digit"
            )
        loud = [ending for ending in ("S", "LL") if ending in came]
        if loud:
            raise NotYet(
                f"'{loud[0]} is cut into ' and {loud[0]}; `(?i:...)` makes "
                "the endings blind to case"
            )
        raise NotYet(f"{text!r} becomes {came}; expected {allowed[0]}")
    return "every text comes back, digit by digit"

"""The exercises of chapter 2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import regex  # type: ignore[import-untyped]  # has no type hints

from gpt2.tokenizer.bpe import SPLIT_PATTERN, count_pieces, learn_merges
from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    number,
    same,
    unpack,
)

Tokens = list[bytes]
Pair = tuple[bytes, bytes]


@exercise("join-pair")
def join_pair(answer: Any) -> str:
    """Section 2.2: join a pair wherever it occurs, from left to right."""
    for tokens, pair in (
        ([b"h", b"e", b"r"], (b"h", b"e")),
        ([b"h", b"e", b" ", b"h", b"e"], (b"h", b"e")),
        ([b"h", b"h", b"h"], (b"h", b"h")),
        ([b"h", b"h", b"h", b"h"], (b"h", b"h")),
        ([b" ", b"he", b"r", b" ", b"her"], (b" ", b"he")),
        ([b"t", b"he", b"h", b"e"], (b"h", b"e")),
        ([b"h", b"e"], (b"e", b"h")),
        ([b"h"], (b"h", b"e")),
        ([], (b"h", b"e")),
    ):
        given = list(tokens)
        got = call(answer, given, pair)
        if given != tokens:
            raise NotYet("it changes the list that it was given; copy it")
        if not isinstance(got, list | tuple):
            raise NotYet(f"expected a list of tokens; got {describe(got)}")
        what = f"for {tokens} and the pair {pair}, the result"
        same(list(got), _joined(tokens, pair), what, _joins(tokens, pair))
    return "from left to right, and no token twice"


def _joined(tokens: Tokens, pair: Pair, times: int = -1) -> Tokens:
    """Join a pair, at most so many times unless that is negative."""
    joined: Tokens = []
    for token in tokens:
        before = joined[-1:]
        # A token that has been joined is longer than the first of the pair.
        if times and [*before, token] == [*pair]:
            joined[-1] += token
            times -= 1
        else:
            joined.append(token)
    return joined


def _joins(tokens: Tokens, pair: Pair) -> list[Mistake]:
    pairs = list(pairwise(tokens))
    overlapping = [a + b if (a, b) == pair else a for a, b in pairs]
    without_last: Tokens = []
    skip = False
    for a, b in pairs:
        if not skip:
            without_last.append(a + b if (a, b) == pair else a)
        skip = (a, b) == pair and not skip
    backwards = [t[::-1] for t in tokens[::-1]]
    turned = (pair[1][::-1], pair[0][::-1])
    kept = [t for a, b in pairs for t in ([a + b] if (a, b) == pair else [a])]
    return [
        Mistake(
            "only the first occurrence is joined", _joined(tokens, pair, 1)
        ),
        Mistake(
            "a token is joined twice; after a join, go on behind the pair",
            overlapping,
        ),
        Mistake(
            "a token is joined twice; after a join, go on behind the pair",
            [*kept, *tokens[-1:]],
        ),
        Mistake("the last token is lost", without_last),
        Mistake(
            "of three equal tokens the first two are joined, not the last two",
            [t[::-1] for t in _joined(backwards, turned)[::-1]],
        ),
        Mistake(
            "you join bytes inside other tokens, or in other tokens' joints; "
            "the two neighbours must be the pair exactly",
            _by_bytes(tokens, pair),
        ),
        Mistake("it joins nothing", tokens),
        Mistake(
            "the pair is left out; its two tokens become one",
            [t for t in _joined(tokens, pair) if t != pair[0] + pair[1]],
        ),
    ]


def _by_bytes(tokens: Tokens, pair: Pair) -> Tokens:
    """Join neighbours whose bytes together are those of the pair."""
    text, whole = b"|".join(tokens), b"|".join(pair)
    parts = text.replace(whole, b"".join(pair)).split(b"|")
    return parts if tokens else []


def _learned(
    data: bytes,
    n_merges: int,
    choose: Callable[[Counter[Pair]], Pair],
    again: bool = True,
) -> list[Pair]:
    """Learn merges by another rule of choice, or by counting once only."""
    tokens, merges = [bytes([byte]) for byte in data], []
    counts = Counter(pairwise(tokens))
    for _ in range(n_merges):
        pair = choose(counts)
        merges.append(pair)
        if again:
            tokens = _joined(tokens, pair)
            counts = Counter(pairwise(tokens))
        else:
            del counts[pair]
    return merges


@exercise("learn-pairs")
def learn_pairs(answer: Any) -> str:
    """Section 2.2: join the most frequent pair, again and again."""

    def right(counts: Counter[Pair]) -> Pair:
        return min(counts, key=lambda pair: (-counts[pair], pair))

    for data, n in (
        (b"he hears her here", 1),
        (b"he hears her here", 4),
        (b"abababab cdcdcd", 4),
        (b"zyzyxx xx", 3),
    ):
        got = call(answer, data, n)
        if not isinstance(got, list | tuple) or not all(
            isinstance(pair, list | tuple) and len(pair) == 2 for pair in got
        ):
            raise NotYet(f"expected a list of pairs; got {describe(got)}")
        pairs = [tuple(pair) for pair in got]
        if pairs and not isinstance(pairs[0][0], bytes):
            raise NotYet(
                "a token should be bytes; data[0] is a number, and data[0:1] "
                "is bytes"
            )
        mistakes = [
            Mistake(
                "you count the pairs only once; count again after every join",
                _learned(data, n, right, again=False),
            ),
            Mistake(
                "of equally frequent pairs, take the first in byte order; "
                "yours is the one seen first",
                _learned(data, n, lambda c: c.most_common(1)[0][0]),
            ),
            Mistake(
                "of equally frequent pairs, take the first in byte order; "
                "yours is the last",
                _learned(data, n, lambda c: max(c, key=lambda p: (c[p], p))),
            ),
            Mistake(
                "you take the rarest pair",
                _learned(data, n, lambda c: min(c, key=lambda p: (c[p], p))),
            ),
        ]
        same(
            pairs,
            _learned(data, n, right),
            f"for {data!r} and {n} merges, the result",
            mistakes,
        )
    return "count, join, count again"


@exercise("apply-merges")
def apply_merges(answer: Any) -> str:
    """Section 2.6: make the merges in the order in which they were learned."""
    for piece, merges in (
        (b"abab", [(b"a", b"b")]),
        (b"kies", [(b"k", b"i"), (b"e", b"s"), (b"ki", b"e")]),
        (b"abc", [(b"b", b"c"), (b"a", b"b")]),
        (b"abcabc", [(b"a", b"b"), (b"ab", b"c")]),
        (b"aaa", [(b"a", b"a")]),
        (b"", [(b"a", b"b")]),
    ):
        given = list(merges)
        got = call(answer, piece, given)
        if given != merges:
            raise NotYet("it changes the list of merges; leave it as it was")
        if not isinstance(got, list | tuple):
            raise NotYet(f"expected a list of tokens; got {describe(got)}")
        if len(got) and not isinstance(got[0], bytes):
            raise NotYet(
                "a token should be bytes; piece[0] is a number, and "
                "piece[0:1] is bytes"
            )
        tokens = [bytes([byte]) for byte in piece]
        backwards, first_only = tokens, tokens
        for pair in merges[::-1]:
            backwards = _joined(backwards, pair)
        for pair in merges:
            first_only = _joined(first_only, pair, 1)
        right = _made(tokens, merges)
        what = f"for {piece!r} and the merges {merges}, the result"
        mistakes = [
            Mistake("make the merges in order, the first first", backwards),
            Mistake("each merge is made wherever its pair stands", first_only),
            Mistake(
                "that is the longest token that fits, which is not the same",
                _longest_first(piece, merges),
            ),
            Mistake("no merge is made", tokens),
        ]
        same(list(got), right, what, mistakes)
    return "the same merges in the same order"


def _made(tokens: Tokens, merges: list[Pair]) -> Tokens:
    for pair in merges:
        tokens = _joined(tokens, pair)
    return tokens


def _longest_first(piece: bytes, merges: list[Pair]) -> Tokens:
    known = {first + second for first, second in merges}
    tokens: Tokens = []
    while piece:
        sizes = [n for n in range(1, len(piece) + 1) if piece[:n] in known]
        tokens.append(piece[: max(sizes, default=1)])
        piece = piece[len(tokens[-1]) :]
    return tokens


PIECES = ["it", "'s", "  ", " 3", "pm", ",", " isn", "'t", " it", "?"]


@exercise("pieces")
def pieces(answer: Any) -> str:
    """Exercise 2.1: the pieces of a sentence."""
    if not isinstance(answer, list | tuple) or not all(
        isinstance(piece, str) for piece in answer
    ):
        raise NotYet(f"expected a list of strings; got {describe(answer)}")
    given = list(answer)
    text = "".join(PIECES)
    if "".join(given) != text:
        raise NotYet(
            "put together, your pieces are not the sentence; count the spaces"
        )
    if "3pm" in "|".join(given):
        raise NotYet("digits and letters have rules of their own")
    if "   " in given or " " in given:
        raise NotYet(
            "of several spaces, all but the last are one piece, and the last "
            "goes with what follows"
        )
    if "it's" in given or "isn't" in "|".join(given):
        raise NotYet("an ending with its apostrophe is a piece of its own")
    if " isn't" not in text or "'" in given:
        raise NotYet("the apostrophe stays with its ending")
    for wrong, right in zip(given, PIECES, strict=False):
        if wrong != right:
            raise NotYet(f"{wrong!r} is not a piece; look at what is near it")
    return "ten pieces, and no space is lost"


@exercise("shouting")
def shouting(answer: Any) -> str:
    """Exercise 2.4: how many times as many tokens capitals need."""
    factor = number(answer)
    if factor <= 1.2:
        raise NotYet(
            "more; in capitals the words are other words to the tokenizer"
        )
    if factor < 2.8:
        raise NotYet("more; which merges has the tokenizer for two capitals?")
    if factor > 4.2:
        raise NotYet(
            "fewer; even letter by letter, a story needs no more tokens than "
            "it has bytes, and a token holds four of them"
        )
    return "it is 3.3: a shouted word is spelled letter by letter"


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

"""Right and wrong answers to the exercises of chapter 2."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from gpt2.tokenizer.bpe import SPLIT_PATTERN

Answers = tuple[object, dict[str, object]]

ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
OLD_ENDINGS = SPLIT_PATTERN.partition("| ?")[0]
REST = r"| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def join(tokens: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """Join a pair with an index."""
    joined, at = [], 0
    while at < len(tokens):
        if at + 1 < len(tokens) and (tokens[at], tokens[at + 1]) == pair:
            joined.append(tokens[at] + tokens[at + 1])
            at += 2
        else:
            joined.append(tokens[at])
            at += 1
    return joined


def join_in_place(
    tokens: list[bytes], pair: tuple[bytes, bytes]
) -> list[bytes]:
    """Forget to copy."""
    tokens[:] = join(tokens, pair)
    return tokens


def join_twice(tokens: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """Go on inside the pair."""
    joined = []
    for at in range(len(tokens)):
        if tuple(tokens[at : at + 2]) == pair:
            joined.append(b"".join(pair))
        else:
            joined.append(tokens[at])
    return joined


def join_once(tokens: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """Stop after the first."""
    for at in range(len(tokens)):
        if tuple(tokens[at : at + 2]) == pair:
            return [*tokens[:at], b"".join(pair), *tokens[at + 2 :]]
    return tokens


def join_short(tokens: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """Lose the last token when it is not joined."""
    joined, at = [], 0
    while at < len(tokens) - 1:
        n = 2 if tuple(tokens[at : at + 2]) == pair else 1
        joined.append(b"".join(tokens[at : at + n]))
        at += n
    return joined


def join_from_the_right(
    tokens: list[bytes], pair: tuple[bytes, bytes]
) -> list[bytes]:
    """Go from right to left."""
    joined, at = [], len(tokens)
    while at > 0:
        n = 2 if tuple(tokens[max(at - 2, 0) : at]) == pair else 1
        joined.append(b"".join(tokens[at - n : at]))
        at -= n
    return joined[::-1]


def learn(data: bytes, n_merges: int, order: object = None) -> list[object]:
    """Learn pairs; `order` gives the key of a pair and its count."""
    key: Any = order or (lambda pair, n: (-n, pair))
    tokens, merges = [data[i : i + 1] for i in range(len(data))], []
    for _ in range(n_merges):
        counts = Counter(pairwise(tokens))
        pair = min(counts, key=lambda pair: key(pair, counts[pair]))
        merges.append(pair)
        tokens = join(tokens, pair)
    return merges


def learn_at_once(data: bytes, n_merges: int) -> list[object]:
    """Count only at the start."""
    tokens = [data[i : i + 1] for i in range(len(data))]
    counts = Counter(pairwise(tokens))
    order = sorted(counts, key=lambda pair: (-counts[pair], pair))
    return list(order[:n_merges])


def backwards(pair: tuple[bytes, bytes]) -> tuple[int, ...]:
    """Turn the order of bytes around."""
    return tuple(-byte for token in pair for byte in (*token, 0))


def apply(piece: bytes, merges: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Make the merges."""
    tokens = [piece[i : i + 1] for i in range(len(piece))]
    for pair in merges:
        tokens = join(tokens, pair)
    return tokens


def apply_by_rank(
    piece: bytes, merges: list[tuple[bytes, bytes]]
) -> list[bytes]:
    """Look for the lowest rank, as the package does."""
    tokens = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        found = [pair for pair in merges if pair in pairwise(tokens)]
        if not found:
            return tokens
        tokens = join(tokens, found[0])


def longest_first(
    piece: bytes, merges: list[tuple[bytes, bytes]]
) -> list[bytes]:
    """Take the longest token that fits."""
    known, tokens = {a + b for a, b in merges}, []
    while piece:
        n = max([n for n in range(2, 9) if piece[:n] in known] or [1])
        tokens.append(piece[:n])
        piece = piece[n:]
    return tokens


PIECES = ["it", "'s", "  ", " 3", "pm", ",", " isn", "'t", " it", "?"]

ANSWERS: dict[str, Answers] = {
    "join-pair": (
        join,
        {
            "it changes the list": join_in_place,
            "a token is joined twice": join_twice,
            "only the first occurrence": join_once,
            "the last token is lost": join_short,
            "not the last two": join_from_the_right,
            "it joins nothing": lambda tokens, pair: list(tokens),
            "a list of tokens": lambda tokens, pair: b"".join(tokens),
            "returns None": lambda tokens, pair: None,
        },
    ),
    "learn-pairs": (
        learn,
        {
            "count again": learn_at_once,
            "the one seen first": lambda d, n: learn(d, n, lambda p, c: -c),
            "yours is the last": lambda d, n: learn(
                d, n, lambda p, c: (-c, backwards(p))
            ),
            "the rarest": lambda d, n: learn(d, n, lambda p, c: (c, p)),
            "a list of pairs": lambda d, n: d,
            "should be bytes": lambda d, n: [(d[0], d[1])] * n,
        },
    ),
    "apply-merges": (
        apply_by_rank,
        {
            "the first first": lambda p, m: apply(p, m[::-1]),
            "the longest token": longest_first,
            "no merge is made": lambda p, m: apply(p, []),
            "wherever its pair": lambda p, m: (
                [b"ab", b"a", b"b"] if p == b"abab" else apply(p, m)
            ),
            "should be bytes": lambda p, m: list(p),
            "a list of tokens": lambda p, m: p,
            "leave it as it was": lambda p, m: (m.sort(), apply(p, m))[1],
        },
    ),
    "pieces": (
        PIECES,
        {
            "rules of their own": ["it", "'s", "  ", " 3pm", *PIECES[5:]],
            "count the spaces": ["it", "'s", " ", "3", *PIECES[4:]],
            "the last goes with": ["it", "'s", "   ", "3", *PIECES[4:]],
            "an ending": ["it's", *PIECES[2:]],
            "stays with its ending": ["it", "'", "s", *PIECES[2:]],
            "is not a piece": [*PIECES[:-2], " it?"],
            "a list of strings": "it's   3pm, isn't it?",
        },
    ),
    "shouting": (
        3.3,
        {
            "other words": 1,
            "two capitals": 2,
            "fewer": 10,
            "expected a number": "many",
        },
    ),
    "longest-token": (
        lambda m: (2**m, "a" * 2**m),
        {
            "one byte for each": lambda m: (m + 1, "a" * 2**m),
            "two bytes for each": lambda m: (2 * m, "a" * 2**m),
            "one doubling too many": lambda m: (2 ** (m + 1), "a" * 2**m),
            "one doubling too few": lambda m: (2 ** (m - 1), "a" * 2**m),
            "there is room for": lambda m: (2**m, "a" * 2 ** (m - 1)),
            "should double the last": lambda m: (
                2**m,
                "abcdefghijklmnopqrstuvwxyz"[: m + 1] * 2,
            ),
            "has cut it": lambda m: (2**m, " a" * 2**m),
            "should be a str": lambda m: (2**m, b"a" * 2**m),
            "expected two things": lambda m: 2**m,
        },
    ),
    "single-digits": (
        ENDINGS + REST,
        {
            "still the old pattern": SPLIT_PATTERN,
            "'1001' is still one piece": ENDINGS
            + REST.replace(r"\p{N}|", r"\p{N}+|"),
            "case-insensitive": OLD_ENDINGS + REST,
            "remains": ENDINGS + REST.replace(r"|\s+(?!\S)|\s+", ""),
            "every character": ENDINGS + REST.replace(r" ?\p{N}|", r" ?\d|"),
            "becomes": ENDINGS + REST.replace(r"|\s+(?!\S)", ""),
            "does not compile": "(" + ENDINGS + REST,
            "expected a pattern": ["ELLA", "'S"],
        },
    ),
}

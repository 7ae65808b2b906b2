"""Right and wrong answers to the exercises of chapter 2."""

from __future__ import annotations

from gpt2.tokenizer.bpe import SPLIT_PATTERN

Answers = tuple[object, dict[str, object]]

ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
OLD_ENDINGS = SPLIT_PATTERN.partition("| ?")[0]
REST = r"| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

ANSWERS: dict[str, Answers] = {
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

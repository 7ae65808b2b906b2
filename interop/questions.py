"""What the samplers are asked: models whose logits are known, and settings.

A model gives the same logits after every text: its last norm has weight 0 and
the unit vector as its bias, so that the logits are the first column of `wte`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

IMPOSSIBLE = -10000.0
"""The logit of all other tokens; its exponential is 0 in every program."""


def _shares(**probabilities: float) -> dict[str, float]:
    return {name: math.log(share) for name, share in probabilities.items()}


PLANTS: dict[str, Mapping[str, float]] = {
    "falling": _shares(A=0.4, B=0.25, C=0.2, D=0.1, E=0.05),
    "tied": {"A": 2.0, "B": 1.0, "C": 1.0, "D": 1.0, "E": 0.0},
    "equal": {"A": 0.0, "B": 0.0, "C": 0.0, "D": 0.0},
    "signed": {"A": 4.0, "B": -2.0, "C": 0.0, "D": 2.0},
    # All 256 bytes, by their ids.
    "nearly equal": {str(i): -i / 4096 for i in range(256)},
    "all falling": {str(i): (256 - i) / 16 for i in range(256)},
}
"""The logits of each model, by the names or the ids of tokens."""


@dataclass(frozen=True)
class Question:
    """One row of a table."""

    words: str
    """The first column."""
    plant: str
    settings: Mapping[str, float] = field(default_factory=dict)
    prompt: str = "Z"
    generated: str = ""
    defaults: bool = False
    greedy: int | None = None
    in_result: bool = True
    """CTranslate2's `include_prompt_in_result`; only it is asked if false."""
    show: str = "kept"
    """How the answer is put into a cell: a key of `tables.SHOWN`."""


TEMPERATURE = (
    Question(
        "nothing set, 256 tokens almost equally likely",
        "nearly equal",
        defaults=True,
        show="number",
    ),
    Question(
        "temperature 0.5", "falling", {"temperature": 0.5}, show="likeliest"
    ),
    Question("temperature 0", "falling", {"temperature": 0.0}),
    Question(
        "no sampling, four tokens equally likely",
        "equal",
        greedy=1,
        show="written",
    ),
    Question(
        "temperature -1", "falling", {"temperature": -1.0}, show="likeliest"
    ),
    Question(
        "temperature -1, top-k 2",
        "falling",
        {"temperature": -1.0, "top_k": 2},
    ),
)
FILTERS = (
    Question(
        "top-k 2, three tokens tied for the second place", "tied", {"top_k": 2}
    ),
    Question("top-k 300, of 257 tokens", "falling", {"top_k": 300}),
    Question("top-k 0", "falling", {"top_k": 0}),
    Question("top-k -1", "falling", {"top_k": -1}),
    Question("top-p 0.6, crossed by B", "falling", {"top_p": 0.6}),
    Question(
        "top-p 0.5, reached by two of four equal tokens",
        "equal",
        {"top_p": 0.5},
    ),
    Question("top-p 1", "falling", {"top_p": 1.0}),
    Question("top-p 0", "falling", {"top_p": 0.0}),
    Question("top-p 1.5", "falling", {"top_p": 1.5}),
    Question("min-p 0.3", "falling", {"min_p": 0.3}),
    Question("min-p 1, four tokens equally likely", "equal", {"min_p": 1.0}),
    Question("min-p 0", "falling", {"min_p": 0.0}),
    Question("min-p 1.5", "falling", {"min_p": 1.5}),
)
PENALTY = (
    Question(
        "penalty 2, on A, B and C",
        "signed",
        {"repetition_penalty": 2.0},
        generated="ABC",
        show="logits",
    ),
    Question(
        "penalty 2, on A, which occurred twice",
        "signed",
        {"repetition_penalty": 2.0},
        generated="AA",
        show="logits",
    ),
    Question(
        "penalty 2, A within the prompt",
        "signed",
        {"repetition_penalty": 2.0},
        prompt="ZAZ",
        show="logits",
    ),
    Question(
        "penalty 2, A at the start of the prompt",
        "signed",
        {"repetition_penalty": 2.0},
        prompt="AZ",
        show="logits",
    ),
    Question(
        "penalty 2, A within the prompt, `include_prompt_in_result` false",
        "signed",
        {"repetition_penalty": 2.0},
        prompt="ZAZ",
        in_result=False,
        show="logits",
    ),
    Question(
        "penalty 0.5, on A, B and C",
        "signed",
        {"repetition_penalty": 0.5},
        generated="ABC",
        show="logits",
    ),
    Question(
        "penalty 1000, no sampling: the first token returns",
        "all falling",
        {"repetition_penalty": 1000.0},
        greedy=100,
        show="returns",
    ),
)
PAIRS: dict[tuple[str, str], Question] = {
    (first, second): Question(words, "falling", settings, generated=generated)
    for first, second, words, settings, generated in (
        (
            *("penalty", "top-k"),
            "penalty 3 on A, top-k 2",
            {"repetition_penalty": 3.0, "top_k": 2},
            "A",
        ),
        (
            *("penalty", "top-p"),
            "penalty 3 on A, top-p 0.6",
            {"repetition_penalty": 3.0, "top_p": 0.6},
            "A",
        ),
        (
            *("penalty", "min-p"),
            "penalty 3 on A, min-p 0.45",
            {"repetition_penalty": 3.0, "min_p": 0.45},
            "A",
        ),
        (
            *("temperature", "top-p"),
            "temperature 2, top-p 0.6",
            {"temperature": 2.0, "top_p": 0.6},
            "",
        ),
        (
            *("temperature", "min-p"),
            "temperature 2, min-p 0.4",
            {"temperature": 2.0, "min_p": 0.4},
            "",
        ),
        (
            *("top-k", "top-p"),
            "top-k 3, top-p 0.7",
            {"top_k": 3, "top_p": 0.7},
            "",
        ),
        (
            *("top-p", "min-p"),
            "top-p 0.7, min-p 0.45",
            {"top_p": 0.7, "min_p": 0.45},
            "",
        ),
    )
}
"""Questions whose answer depends on which of two filters comes first."""

QUESTIONS: dict[str, tuple[Question, ...]] = {
    "temperature": TEMPERATURE,
    "filter": FILTERS,
    "order": tuple(PAIRS.values()),
    "penalty": PENALTY,
}

# --- what the filters do to probabilities, by their definitions ---

Shares = dict[str, float]
"""The exponential of each logit, which need not sum to 1."""


def _penalty(shares: Shares, question: Question) -> Shares:
    # All logits of the plant `falling` are negative, so they are multiplied.
    penalty = question.settings["repetition_penalty"]
    return {
        name: share**penalty if name in question.generated else share
        for name, share in shares.items()
    }


def _temperature(shares: Shares, question: Question) -> Shares:
    power = 1 / question.settings["temperature"]
    return {name: share**power for name, share in shares.items()}


def _top_k(shares: Shares, question: Question) -> Shares:
    order = sorted(shares, key=lambda name: -shares[name])
    return {
        name: shares[name] for name in order[: int(question.settings["top_k"])]
    }


def _top_p(shares: Shares, question: Question) -> Shares:
    enough = question.settings["top_p"] * sum(shares.values())
    kept: Shares = {}
    for name in sorted(shares, key=lambda name: -shares[name]):
        if sum(kept.values()) < enough:
            kept[name] = shares[name]
    return kept


def _min_p(shares: Shares, question: Question) -> Shares:
    least = question.settings["min_p"] * max(shares.values())
    return {name: share for name, share in shares.items() if share >= least}


STEPS: dict[str, Callable[[Shares, Question], Shares]] = {
    "penalty": _penalty,
    "temperature": _temperature,
    "top-k": _top_k,
    "top-p": _top_p,
    "min-p": _min_p,
}


def expected(question: Question, *order: str) -> Shares:
    """Return the probabilities when two filters come in this order."""
    shares = {n: math.exp(x) for n, x in PLANTS[question.plant].items()}
    for name in order:
        shares = STEPS[name](shares, question)
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def earlier(
    question: Question, pair: tuple[str, str], came: Any
) -> str | None:
    """Say which of two filters came first, by the tokens that are left."""
    for order in (pair, pair[::-1]):
        if set(expected(question, *order)) == set(came):
            return order[0]
    return None

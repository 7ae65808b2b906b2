"""Exercises that check themselves: `check("the-name", your_answer)`.

One module for each chapter holds the checkers of its exercises. A checker
says what is wrong, not only that it is, and knows the mistakes that people
make there. `checking` is what checkers are made of.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import torch

from gpt2_book.exercises import (
    ch01_what_gpt2_does,
    ch02_text_to_tokens,
    ch03_embeddings,
    ch04_attention,
    ch05_many_heads,
    ch06_feed_forward,
    ch07_the_model,
    ch08_loading_weights,
    ch09_sampling,
    ch10_fast_generation,
    ch11_loss_and_gradients,
    ch12_training,
    ch13_how_good_is_it,
    ch14_why_every_part,
    ch15_looking_inside,
    ch16_a_museum_of_bugs,
    ch17_scaling_out,
)
from gpt2_book.exercises.checking import CHECKERS, NotYet

__all__ = ["Verdict", "check"]

CHAPTERS = (
    ch01_what_gpt2_does,
    ch02_text_to_tokens,
    ch03_embeddings,
    ch04_attention,
    ch05_many_heads,
    ch06_feed_forward,
    ch07_the_model,
    ch08_loading_weights,
    ch09_sampling,
    ch10_fast_generation,
    ch11_loss_and_gradients,
    ch12_training,
    ch13_how_good_is_it,
    ch14_why_every_part,
    ch15_looking_inside,
    ch16_a_museum_of_bugs,
    ch17_scaling_out,
)
"""Imported so that their checkers are registered."""


@dataclass(frozen=True)
class Verdict:
    """What a checker found; a notebook shows it as a sentence."""

    name: str
    right: bool
    message: str

    def __bool__(self) -> bool:
        """Say whether the answer is right."""
        return self.right

    def __repr__(self) -> str:
        """Say what the checker said."""
        return f"{self.name}: {self.message}"


def check(name: str, answer: Any) -> Verdict:
    """Check an answer to an exercise of the book.

    Args:
        name: The exercise's, as the book gives it.
        answer: The reader's function, class, model or number.

    Returns:
        True where it is right; shown in a notebook, it says what is wrong.

    Raises:
        ValueError: There is no exercise of this name.
    """
    if name not in CHECKERS:
        near = difflib.get_close_matches(name, CHECKERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no exercise named {name!r}{hint}")
    try:
        with torch.random.fork_rng(devices=[]):  # the reader's draws stay
            found = CHECKERS[name](answer)
    except NotYet as problem:
        return Verdict(name, False, f"not yet: {problem}.")
    return Verdict(name, True, f"right{f': {found}' if found else ''}.")

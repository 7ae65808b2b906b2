"""Generate, parse and score texts with one program that has a memory.

The program calls `choose` at every fork, and the chosen option is told at
once. No option of a fork is a prefix of another, so at every fork at most one
option fits a given text: the text has one derivation or none, and its
probability is the product of the probabilities along it. The same program
serves several purposes, depending on who answers `choose`:

    Writer    draws an option, so the program generates a text;
    Reader    takes the option that a given text continues with, so the program
              checks and scores the text;
    Explorer  takes the option on a given path, so that all texts of a small
              language can be listed.

Words that the text before them already decides are marked as `[kind
answer|wrong|wrong@source]`. The answer is told; the wrong words are what a
teller without memory might have told instead; the source is the word that
decides the answer (by default the last mention of the answer itself).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

_MARK = re.compile(r"\[(\w+) ([^|\]]+)\|([^\]@]+)(?:@([^\]]+))?\]")


@dataclass(frozen=True)
class Fork:
    """One choice in a text.

    Attributes:
        start: The offset in the text where the options begin.
        kind: What is chosen: a name, a place, a turn of phrase.
        texts: The options.
        probabilities: Their probabilities, given the text before.
        taken: The index of the option that was taken.
    """

    start: int
    kind: str
    texts: tuple[str, ...]
    probabilities: tuple[float, ...]
    taken: int

    @property
    def log_probability(self) -> float:
        """The log-probability of the option that was taken, in nats."""
        return math.log(self.probabilities[self.taken])

    @property
    def entropy(self) -> float:
        """The entropy of the choice, `-sum p ln p`, in nats."""
        return -sum(p * math.log(p) for p in self.probabilities)


@dataclass(frozen=True)
class Recall:
    """Words that the text before them decides.

    Attributes:
        start: Their offset in the text.
        kind: The kind of memory that they need.
        answer: The words.
        alternatives: Words of the same kind that would be wrong here.
        source: The offset in the text of the last words that decide the
            answer.
    """

    start: int
    kind: str
    answer: str
    alternatives: tuple[str, ...]
    source: int


@dataclass(frozen=True)
class Verdict:
    """Whether a text belongs to a language, and if not, where it leaves it.

    The text up to `offset` is a prefix of some text of the language; with one
    more character it is not.

    Attributes:
        offset: The offset of the first wrong character; None if the text
            belongs to the language.
        line: Its line, counted from 1.
        found: The text from the beginning of that word on, shortened.
        expected: What could have come instead; empty if the text should have
            ended.
    """

    offset: int | None = None
    line: int = 0
    found: str = ""
    expected: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether the text belongs to the language."""
        return self.offset is None

    def __str__(self) -> str:
        """Return the verdict as a sentence."""
        if self:
            return "the text is a story"
        shown = [repr(text) for text in self.expected[:6]] or ["the end"]
        more = (
            f" (or {len(self.expected) - 6} others)"
            if len(self.expected) > 6
            else ""
        )
        came = repr(self.found) if self.found else "the end"
        return (
            f"line {self.line}, offset {self.offset}: expected "
            f"{' or '.join(shown)}{more}, got {came}"
        )


class NotAStory(ValueError):
    """A text does not belong to the language; its `verdict` has the position."""

    def __init__(self, verdict: Verdict) -> None:
        """Take the verdict, whose sentence is the message."""
        super().__init__(str(verdict))
        self.verdict = verdict


class Teller(Protocol):
    """What answers the choices of the program."""

    def choose(
        self, texts: Sequence[str], weights: Sequence[float] | None, kind: str
    ) -> int:
        """Tell one of the texts and return its index.

        Args:
            texts: The options; none is a prefix of another.
            weights: A positive weight for each option; None: all equally
                likely.
            kind: What is chosen.
        """

    def say(self, text: str) -> None:
        """Tell a text without alternatives."""


class Writer:
    """Generate a text by drawing every choice."""

    def __init__(self, draw: Callable[[], float]) -> None:
        """Start with an empty text.

        Args:
            draw: Returns random numbers in [0, 1), as `random.Random.random`
                does.
        """
        self._draw = draw
        self._pieces: list[str] = []
        self.log_probability = 0.0

    @property
    def text(self) -> str:
        """The text so far."""
        return _MARK.sub(lambda mark: mark[2], "".join(self._pieces))

    def choose(
        self, texts: Sequence[str], weights: Sequence[float] | None, kind: str
    ) -> int:
        """Tell a random option and return its index."""
        index = 0
        if weights is None:
            index = int(self._draw() * len(texts))
            self.log_probability -= math.log(len(texts))
        else:
            total = sum(weights)
            left = self._draw() * total
            for index, weight in enumerate(weights):  # noqa: B007 (the last one, if rounding errs)
                left -= weight
                if left < 0:
                    break
            self.log_probability += math.log(weights[index] / total)
        self._pieces.append(texts[index])
        return index

    def say(self, text: str) -> None:
        """Tell a text without alternatives."""
        self._pieces.append(text)


class Reader:
    """Parse a given text: take the options that it takes, and record them."""

    def __init__(self, text: str) -> None:
        """Start at the beginning of `text`."""
        self._text = text
        self._told = 0
        self.forks: list[Fork] = []
        self.recalls: list[Recall] = []

    def choose(
        self, texts: Sequence[str], weights: Sequence[float] | None, kind: str
    ) -> int:
        """Take the option that the text continues with and return its index.

        Raises:
            NotAStory: The text continues with none of the options.
            ValueError: The options are ambiguous or the weights invalid.
        """
        options = tuple(plain(text) for text in texts)
        _check_fork(options, weights)
        fitting = [
            i
            for i, text in enumerate(options)
            if self._text.startswith(text, self._told)
        ]
        if not fitting:
            raise NotAStory(self._stray(options))
        (taken,) = fitting
        if len(options) > 1:
            given = weights or [1.0] * len(options)
            total = sum(given)
            shares = tuple(weight / total for weight in given)
            self.forks.append(Fork(self._told, kind, options, shares, taken))
        for recall in _recalls(texts[taken], self._text, self._told):
            before = self._text[self._told : recall.start]
            # If another option also fits up to the answer and continues
            # differently, the answer is not certain.
            if all(
                o.startswith(before + recall.answer)
                for o in options
                if o.startswith(before)
            ):
                self.recalls.append(recall)
        self._told += len(options[taken])
        return taken

    def say(self, text: str) -> None:
        """Parse a text without alternatives."""
        self.choose((text,), None, "")

    def finish(self) -> None:
        """Check that the text ends where the program ends.

        Raises:
            NotAStory: The text goes on.
        """
        if self._told < len(self._text):
            raise NotAStory(self._stray(()))

    def _stray(self, options: Sequence[str]) -> Verdict:
        """Return the verdict on the first character that fits no option."""
        shared = [
            _shared(option, self._text, self._told) for option in options
        ]
        offset = self._told + max(shared, default=0)
        word = max(self._told, self._text.rfind(" ", 0, offset) + 1)
        nearest = [
            o
            for o, n in zip(options, shared, strict=True)
            if self._told + n == offset
        ]
        expected = dict.fromkeys(
            option[word - self._told :] for option in nearest
        )
        return Verdict(
            offset=offset,
            line=self._text.count("\n", 0, offset) + 1,
            found=self._text[word : offset + 20],
            expected=tuple(expected),
        )


class Explorer:
    """Take the choices of a path, and after its end always the first option."""

    def __init__(self, path: Sequence[int]) -> None:
        """Start with an empty text."""
        self.path = list(path)
        self.widths: list[int] = []
        self.text = ""
        self.log_probability = 0.0

    def choose(
        self, texts: Sequence[str], weights: Sequence[float] | None, kind: str
    ) -> int:
        """Tell the option on the path and return its index.

        Raises:
            ValueError: The options are ambiguous or the weights invalid.
        """
        options = tuple(plain(text) for text in texts)
        _check_fork(options, weights)
        if len(self.widths) == len(self.path):
            self.path.append(0)
        index = self.path[len(self.widths)]
        self.widths.append(len(texts))
        given = weights or [1.0] * len(texts)
        self.log_probability += math.log(given[index] / sum(given))
        self.text += options[index]
        return index

    def say(self, text: str) -> None:
        """Tell a text without alternatives."""
        self.text += plain(text)


def every_text(
    program: Callable[[Teller], object],
) -> Iterator[tuple[str, float]]:
    """Yield every text of a small language, with its log-probability in nats.

    From these, the exact entropy can be computed.

    Args:
        program: Tells one text with the teller that it gets.

    Raises:
        ValueError: A fork of the program is ambiguous or has invalid weights.
    """
    path: list[int] = []
    while True:
        explorer = Explorer(path)
        program(explorer)
        yield explorer.text, explorer.log_probability
        path = explorer.path
        while path and path[-1] == explorer.widths[len(path) - 1] - 1:
            path.pop()
        if not path:
            return
        path[-1] += 1


@lru_cache(maxsize=1 << 16)
def plain(text: str) -> str:
    """Replace the marks in a text by their answers."""
    return _MARK.sub(lambda mark: mark[2], text) if "[" in text else text


def _recalls(marked: str, text: str, told: int) -> Iterator[Recall]:
    """Yield the marked words of an option at offset `told` of `text`."""
    behind = 0  # how many characters the marks have that the text has not
    for mark in _MARK.finditer(marked):
        kind, answer, wrong, source = mark.groups()
        start = told + mark.start() - behind
        behind += len(mark.group()) - len(answer)
        found = text.lower().rfind((source or answer).lower(), 0, start)
        yield Recall(
            start, kind, answer, tuple(wrong.split("|")), max(found, 0)
        )


def _check_fork(
    options: Sequence[str], weights: Sequence[float] | None
) -> None:
    """Refuse a fork without options, with invalid weights, or ambiguous."""
    if not options:
        raise ValueError("expected at least one option, got none")
    if weights is not None and (
        len(weights) != len(options) or min(weights) <= 0
    ):
        raise ValueError(
            f"expected {len(options)} positive weights, got {list(weights)}"
        )
    # In sorted order, whatever comes between a prefix and a text that starts
    # with it starts with it too. So comparing neighbours is enough.
    ordered = sorted(options)
    for shorter, longer in pairwise(ordered):
        if longer.startswith(shorter):
            raise ValueError(
                f"the option {shorter!r} is a prefix of the option {longer!r}"
            )


def _shared(option: str, text: str, start: int) -> int:
    """Return the length of the common prefix of `option` and `text[start:]`."""
    count = 0
    for ours, theirs in zip(
        option, text[start : start + len(option)], strict=False
    ):
        if ours != theirs:
            break
        count += 1
    return count

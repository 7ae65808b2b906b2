"""Tell, follow and weigh texts that an ordinary program with a memory tells from left to right.

The program asks `choose` at every fork, and the fork is told at the moment it
is decided. No option of a fork may be the beginning of another one, so a text
fits at most one option at every fork: it has one derivation or none, and its
probability is the product of the probabilities along it. The program itself is
never changed. Who answers decides what happens:

    Writer    draws an option, so the program writes a text;
    Reader    takes the option the text goes on with, so the program checks
              and weighs the text;
    Explorer  takes a given path, so that a small language can be listed from
              end to end.

Words that the text so far already decides are told with a mark, `[kind
answer|wrong|wrong@source]`: the answer is told, the wrong ones are what a
forgetful teller might have said instead, and the source is the word that
decides it (where it is left out, the last telling of the answer itself).
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
    """One choice, as it was told.

    Attributes:
        start: Offset in the text where the options part.
        kind: What was chosen: a name, a place, a turn of phrase.
        texts: The options.
        probabilities: Their probabilities, given everything told before.
        taken: Which one was told.
    """

    start: int
    kind: str
    texts: tuple[str, ...]
    probabilities: tuple[float, ...]
    taken: int

    @property
    def log_probability(self) -> float:
        """The log-probability of what was told, in nats."""
        return math.log(self.probabilities[self.taken])

    @property
    def entropy(self) -> float:
        """The entropy of the choice, `-sum p ln p`, in nats."""
        return -sum(p * math.log(p) for p in self.probabilities)


@dataclass(frozen=True)
class Recall:
    """Words that follow with certainty from what was told before.

    Attributes:
        start: Offset in the text where they stand.
        kind: Which sort of memory they need.
        answer: The words.
        alternatives: Words of the same sort that would be wrong here.
        source: Offset in the text of the last words that decide the answer.
    """

    start: int
    kind: str
    answer: str
    alternatives: tuple[str, ...]
    source: int


@dataclass(frozen=True)
class Verdict:
    """Say whether a text belongs to a language, and if not, where it leaves it.

    Everything before `offset` begins some text of the language, and with one
    more character it no longer does.

    Attributes:
        offset: The first character that cannot stand where it stands; None if
            all is well.
        line: Its line, counted from one.
        found: A little of what came, from the beginning of the word.
        expected: What could have come instead. Empty if the text should have
            ended.
    """

    offset: int | None = None
    line: int = 0
    found: str = ""
    expected: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether the text belongs to the language."""
        return self.offset is None

    def __str__(self) -> str:
        """Say the same in a sentence."""
        if self:
            return "this is a story"
        shown = [repr(text) for text in self.expected[:6]] or ["the end"]
        more = (
            f" (or {len(self.expected) - 6} others)"
            if len(self.expected) > 6
            else ""
        )
        came = repr(self.found) if self.found else "the end"
        return (
            f"line {self.line}, offset {self.offset}: "
            f"{came} came where {' or '.join(shown)} was expected{more}"
        )


class NotAStory(ValueError):
    """The text does not belong to the language; `verdict` says where it leaves it."""

    def __init__(self, verdict: Verdict) -> None:
        """Keep the verdict and show its sentence."""
        super().__init__(str(verdict))
        self.verdict = verdict


class Teller(Protocol):
    """Whoever answers the program's questions."""

    def choose(
        self, texts: Sequence[str], weights: Sequence[float] | None, kind: str
    ) -> int:
        """Tell one of the texts and return its index.

        Args:
            texts: The options; none may be the beginning of another.
            weights: Positive, one for each option; None where all are alike.
            kind: What is being chosen.
        """

    def say(self, text: str) -> None:
        """Tell a text that has no alternative."""


class Writer:
    """Draw every choice, and so write a text."""

    def __init__(self, draw: Callable[[], float]) -> None:
        """Start with nothing told.

        Args:
            draw: Returns a number from 0 up to but not 1, such as
                `random.Random(0).random`.
        """
        self._draw = draw
        self._pieces: list[str] = []
        self.log_probability = 0.0

    @property
    def text(self) -> str:
        """What has been told so far."""
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
        """Tell a text that has no alternative."""
        self._pieces.append(text)


class Reader:
    """Take every choice as a given text takes it, and keep a record.

    Raises `NotAStory` from the call at which no option fits.
    """

    def __init__(self, text: str) -> None:
        """Start at the beginning of `text`."""
        self._text = text
        self._told = 0
        self.forks: list[Fork] = []
        self.recalls: list[Recall] = []

    def choose(
        self, texts: Sequence[str], weights: Sequence[float] | None, kind: str
    ) -> int:
        """Tell the option that the text goes on with and return its index."""
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
            # A fork may still be open where the answer stands; then it is no
            # certain answer.
            if all(
                o.startswith(before + recall.answer)
                for o in options
                if o.startswith(before)
            ):
                self.recalls.append(recall)
        self._told += len(options[taken])
        return taken

    def say(self, text: str) -> None:
        """Follow a text that has no alternative."""
        self.choose((text,), None, "")

    def finish(self) -> None:
        """Make sure that nothing is left of the text once the program has ended."""
        if self._told < len(self._text):
            raise NotAStory(self._stray(()))

    def _stray(self, options: Sequence[str]) -> Verdict:
        """Find the first character that fits no option."""
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
    """Take the first choices from a path, and the first option everywhere after it."""

    def __init__(self, path: Sequence[int]) -> None:
        """Start with nothing told."""
        self.path = list(path)
        self.widths: list[int] = []
        self.text = ""
        self.log_probability = 0.0

    def choose(
        self, texts: Sequence[str], weights: Sequence[float] | None, kind: str
    ) -> int:
        """Tell the option on the path and return its index."""
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
        """Tell a text that has no alternative."""
        self.text += plain(text)


def every_text(
    program: Callable[[Teller], object],
) -> Iterator[tuple[str, float]]:
    """List a whole language, each text with its log-probability in nats.

    Only for languages small enough to be listed: for them it gives the exact
    entropy.

    Args:
        program: Tells one text through the teller it is given.
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
    """Take the marks out of a text and leave the answers."""
    return _MARK.sub(lambda mark: mark[2], text) if "[" in text else text


def _recalls(marked: str, text: str, told: int) -> Iterator[Recall]:
    """Read the marks of an option that stands in `text` at offset `told`."""
    behind = 0  # how many characters of mark the plain text does not have
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
    """Refuse a fork that could be taken in two ways, or not at all."""
    if not options:
        raise ValueError("a fork needs at least one option, got none")
    if weights is not None and (
        len(weights) != len(options) or min(weights) <= 0
    ):
        raise ValueError(
            f"expected {len(options)} positive weights, got {list(weights)}"
        )
    # Whatever sorts between a word and its continuation begins with that word
    # too.
    ordered = sorted(options)
    for shorter, longer in pairwise(ordered):
        if longer.startswith(shorter):
            raise ValueError(
                f"the option {shorter!r} is the beginning of the option "
                f"{longer!r}"
            )


def _shared(option: str, text: str, start: int) -> int:
    """Count the characters that `option` and the text from `start` on have in common."""
    count = 0
    for ours, theirs in zip(
        option, text[start : start + len(option)], strict=False
    ):
        if ours != theirs:
            break
        count += 1
    return count

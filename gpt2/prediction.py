"""A prediction of the next token, and how it is shown as text and as HTML."""

from __future__ import annotations

import html
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A token that may come next."""

    id: int
    text: str
    logit: float
    """The model's score, before softmax."""
    probability: float
    """The softmax of the logits of all tokens, before any filter. Rows of a
    padded table, which have no token, do not count."""
    chance: float
    """The probability of being drawn, after all filters."""


@dataclass(frozen=True, repr=False)
class Prediction:
    """What a model predicts after a prompt; prints as tables."""

    ids: tuple[int, ...]
    """The token ids of the prompt."""
    texts: tuple[str, ...]
    """The text of each; a token that is part of a character is U+FFFD."""
    candidates: tuple[Candidate, ...]
    """The likeliest next tokens, the likeliest first."""
    sampled: Candidate
    """The token that was drawn."""

    def __repr__(self) -> str:
        prompt = [
            (position, token_id, quoted(text))
            for position, (token_id, text) in enumerate(
                zip(self.ids, self.texts, strict=True)
            )
        ]
        ranked = [
            (rank, each.id, quoted(each.text), *_numbers(each))
            for rank, each in enumerate(self.candidates, 1)
        ]
        columns = ("rank", "id", "token", "logit", "probability", "chance")
        drawn = self.sampled
        _, probability, chance = _numbers(drawn)
        return (
            "The prompt as tokens:\n\n"
            + table([("position", "id", "token"), *prompt], right={0, 1})
            + "\n\nThe likeliest next tokens; chance is the probability of "
            "being drawn:\n\n"
            + table([columns, *ranked], right={0, 1, 3, 4, 5})
            + f"\n\nDrawn: {quoted(drawn.text)} (id {drawn.id}, "
            f"probability {probability}, chance {chance})"
        )

    def _repr_html_(self) -> str:
        """Return the same as HTML, which notebooks show instead."""
        prompt = "".join(map(_chip, self.texts, self.ids))
        names = ("token", "logit", "probability", "chance")
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        largest = max((c.probability for c in self.candidates), default=1)
        rows = "".join(_row(each, largest) for each in self.candidates)
        drawn = _chip(self.sampled.text, self.sampled.id)
        return (
            f"<p>{prompt}</p>"
            f'<table style="margin-left: 0"><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table><p>Drawn: {drawn}</p>"
        )


def _numbers(candidate: Candidate) -> tuple[str, str, str]:
    """Format logit, probability and chance."""
    return (
        f"{candidate.logit:.2f}",
        percent(candidate.probability),
        percent(candidate.chance),
    )


def _row(candidate: Candidate, largest: float) -> str:
    """Return a row of the table, with a bar of up to 2 em."""
    logit, probability, chance = _numbers(candidate)
    width = 2 * candidate.probability / largest
    bar = (
        '<span style="display:inline-block;height:0.7em;'
        f'background:#059669;width:{width:.1f}em"></span>'
    )
    cells = (
        _cell(_chip(candidate.text, candidate.id), "left"),
        _cell(logit),
        _cell(f"{bar} {probability}", "left"),
        _cell(chance),
    )
    return f"<tr>{''.join(cells)}</tr>"


def _cell(content: str, side: str = "right") -> str:
    return f'<td style="text-align:{side};padding:0 3px">{content}</td>'


def _chip(text: str, token_id: int) -> str:
    """Return a token as a frame that holds its text and its id."""
    # Text and border inherit the page's colour, so both themes are legible.
    return (
        '<span style="display:inline-block;border:1px solid currentColor;'
        "border-radius:4px;margin:1px;padding:0 4px;white-space:pre;"
        f'font:0.85em monospace">{html.escape(visible(text))} '
        f"<small>{token_id}</small></span>"
    )


def visible(text: str) -> str:
    """Make spaces, line breaks and unprintable characters visible."""
    marked = text.replace(" ", "␣").replace("\n", "↵")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in marked
    )


def quoted(text: str) -> str:
    """Quote a token, so that its spaces and line breaks are visible."""
    return json.dumps(text, ensure_ascii=False)


def percent(share: float) -> str:
    """Format a share of 1 with three significant digits, however small."""
    return f"{100 * share:#.3g}".rstrip(".") + "%" if share else "0%"


def table(
    rows: Sequence[Sequence[object]], right: Collection[int] = ()
) -> str:
    """Lay out rows in columns, separated by two spaces.

    Args:
        rows: Of equal length; the first may be the heading.
        right: The columns to align right; the others are aligned left.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)

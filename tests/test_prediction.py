"""How a prediction shows itself, in a terminal and in a notebook."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from gpt2.prediction import Candidate, Prediction, percent, table, visible

KITE = Candidate(3, " kite", 1.234, 0.5, 0.75)
HAT = Candidate(14, '<b>&"', -12.0, 0.25, 0.25)
RARE = Candidate(159, "\n", -30.0, 1.5e-9, 0.0)
FOUND = Prediction((7, 21), ("Ella", " <i>"), (KITE, HAT, RARE), HAT)

SHOWN = """\
The prompt as tokens:

position  id  token
       0   7  "Ella"
       1  21  " <i>"

The likeliest next tokens; chance is the probability of being drawn:

rank   id  token      logit  probability  chance
   1    3  " kite"     1.23        50.0%   75.0%
   2   14  "<b>&\\""  -12.00        25.0%   25.0%
   3  159  "\\n"      -30.00    1.50e-07%      0%

Drawn: "<b>&\\"" (id 14, probability 25.0%, chance 25.0%)"""


def test_in_a_terminal() -> None:
    assert repr(FOUND) == str(FOUND) == SHOWN


class Reader(HTMLParser):
    """Reads what must be well-formed: the texts, tags and styles in it."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.styles: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.tags.append(tag)
        self.styles += [value for name, value in attrs if name == "style"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_in_a_notebook() -> None:
    found = Reader(FOUND._repr_html_())
    assert found.texts == [
        *("Ella", "7", "␣<i>", "21"),
        *("token", "logit", "probability", "chance"),
        *("␣kite", "3", "1.23", "50.0%", "75.0%"),
        *('<b>&"', "14", "-12.00", "25.0%", "25.0%"),
        *("↵", "159", "-30.00", "1.50e-07%", "0%"),
        *("Drawn:", '<b>&"', "14"),
    ]
    assert set(found.tags) == {
        *("p", "span", "small"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    styles = ";".join(found.styles)
    assert re.findall(r"width:([\d.]+)em", styles) == ["2.0", "1.0", "0.0"]
    # Whatever the page's colours are: text has them too, on no background.
    assert not re.search(r"(^|;)color:", styles)
    assert set(re.findall(r"background:([^;]+)", styles)) == {"#059669"}


def test_a_notebook_without_candidates() -> None:
    found = Reader(Prediction((7,), ("Ella",), (), KITE)._repr_html_())
    assert found.texts[-3:] == ["Drawn:", "␣kite", "3"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a  b", "␣a␣␣b"),
        ("\n", "↵"),
        ("\t\r\x00", r"\t\r\x00"),
        ("\u200b\u2028\ud800", r"\u200b\u2028\ud800"),
        ("é日😀\ufffd", "é日😀\ufffd"),
    ],
)
def test_what_cannot_be_seen_is_marked(text: str, expected: str) -> None:
    assert visible(text) == expected


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (1, "100%"),
        (0.99999, "100%"),
        (0.1714, "17.1%"),
        (0.001, "0.100%"),
        (3.21e-9, "3.21e-07%"),
        (0, "0%"),
    ],
)
def test_shares_have_three_digits(share: float, expected: str) -> None:
    assert percent(share) == expected


def test_tables() -> None:
    rows = [("a", "bcd", "e"), (10, 2, ""), ("", "x", "long")]
    assert table(rows, right={0}) == " a  bcd  e\n10  2\n    x    long"

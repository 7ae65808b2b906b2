"""The API reference and the page with the model card."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from book_rules import BOOK, pages_of_the_toc
from docstrings import translate

import gpt2

API = (BOOK / "api.md").read_text(encoding="utf-8")
CARD = Path(gpt2.__file__).parent / "pretrained" / "story" / "README.md"


@pytest.mark.parametrize(
    "docstring, markup",
    [
        ("Look up `ids`.", "Look up ``ids``."),
        ("A span, `a\nb`, of two lines.", "A span, ``a\nb``, of two lines."),
        (
            r"$x \Phi(x)$, with $\Phi$.",
            r":math:`x \Phi(x)`, with :math:`\Phi`.",
        ),
        ("The *last* of **all**.", "The *last* of **all**."),
        ("One more: (*shape, width).", r"One more: (\*shape, width)."),
        ("Or (*so*): `f(*x)`.", "Or (*so*): ``f(*x)``."),
        (
            "As in:\n\n    f(`x`)\n\n    $y$\n\nEnd.",
            "As in:\n\n::\n\n    f(`x`)\n\n    $y$\n\nEnd.",
        ),
        ("As in::\n\n    +--+", "As in::\n\n    +--+"),
        ("- one:\n  more\n- two", "- one:\n  more\n- two"),
        (
            "Args:\n    x: (B, T): as `y`.\n        Or: none.\n    **z: All.",
            ":param x: (B, T): as ``y``.\n        Or: none.\n"
            r":param \*\*z: All.",
        ),
        ("Attributes:\n    text: A story.", ":ivar text: A story."),
        (
            "Returns:\n    (L, H), to 1: a mean.",
            ":returns:\n    (L, H), to 1: a mean.",
        ),
        ("Raises:\n    ValueError: No.", ":raises ValueError: No."),
    ],
)
def test_a_docstring_is_translated(docstring: str, markup: str) -> None:
    assert translate(docstring) == f"{markup}\n"


def test_the_public_names_are_those_of_the_package() -> None:
    listed = re.findall(r"^   ~(gpt2[\w.]+)$", API, flags=re.MULTILINE)
    homes = [f"{getattr(gpt2, n).__module__}.{n}" for n in gpt2.__all__]
    assert sorted(listed) == sorted(homes)


def test_the_code_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", API, re.DOTALL)
    exec(block, {})
    first, *told = capsys.readouterr().out.rstrip("\n").split("\n")
    assert first.startswith(" her ")
    assert sum(line.startswith("Tom lost") for line in told) == 3


def test_the_modules_of_the_chapters_are_listed() -> None:
    there = set(re.findall(r"^\.\. automodule:: ([\w.]+)$", API, re.MULTILINE))
    shown = {
        name.partition(":")[0]
        for page in pages_of_the_toc()
        if page.suffix == ".ipynb"
        for cell in nbformat.read(page, as_version=4).cells
        for name in cell.metadata.get("sync", "").split(", ")
        if name.startswith("gpt2.")
    }
    assert len(shown) > 15
    assert shown <= there, "add these to book/api.md"


def test_modules_are_listed_under_their_names() -> None:
    pairs = re.findall(r"^### (gpt2\S+)\n\n\S+\n(.+)$", API, re.MULTILINE)
    assert len(pairs) > 30
    for heading, directive in pairs:
        assert directive == f".. automodule:: {heading}"


def test_the_card_is_shown_without_its_title() -> None:
    page = (BOOK / "model-card.md").read_text(encoding="utf-8")
    (file,) = re.findall(r"\{include\} (\S+)\n:start-line: 2\n", page)
    assert (BOOK / file).resolve() == CARD
    title, blank, text, *_ = CARD.read_text(encoding="utf-8").split("\n")
    assert title.startswith("# ")
    assert not blank
    assert text

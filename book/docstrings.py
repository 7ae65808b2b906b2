"""Show the package's docstrings in the book: a small extension of Sphinx.

They are written to be read in the source. There `x` is code, $x$ a formula,
and what is indented a listing, as in Markdown, and `Args:` begins a section.
Sphinx's autodoc, which fetches them, wants to see its own language.

(Sphinx has an extension for the sections, Napoleon. It takes for a type what
stands before a colon, and descriptions here are free to have one.)
"""

from __future__ import annotations

import re
from typing import Any

FIELDS = {"Args": "param", "Attributes": "ivar", "Raises": "raises"}
WHOLE = {"Returns": "returns", "Yields": "yields"}
SPAN = re.compile(
    r"`([^`]+)`|\$([^$]+)\$"
    # Stars that emphasise nothing, as in (*ids.shape, width) and in *shape.
    r"|(?<=\()\*(?![^)]*\*)|(?<=^    )\*+(?=\w+:)",
    re.MULTILINE,
)


def translate(docstring: str) -> str:
    """Turn a docstring into Sphinx's markup."""
    translated: list[str] = []
    in_listing = announced = False
    for block in re.split(r"\n\n+", docstring.strip("\n")):
        if block.startswith("    "):
            if not in_listing and not announced:
                translated.append("::")
            translated.append(block)
            in_listing = True
        else:
            translated.append(_paragraph(block))
            in_listing, announced = False, block.endswith("::")
    return "\n\n".join(translated) + "\n"


def _paragraph(text: str) -> str:
    """Translate a paragraph, or a section: a paragraph with a head."""
    head, _, rest = SPAN.sub(_span, text).partition(":\n")
    if head in WHOLE:
        return f":{WHOLE[head]}:\n{rest}"
    if head in FIELDS:
        entry = rf":{FIELDS[head]} \1:"
        return re.sub(r"^    ([\\*]*\w+):", entry, rest, flags=re.MULTILINE)
    return SPAN.sub(_span, text)


def _span(span: re.Match[str]) -> str:
    code, formula = span.groups()
    if code:
        return f"``{code}``"
    return f":math:`{formula}`" if formula else span[0].replace("*", r"\*")


def setup(app: Any) -> dict[str, bool]:
    """Be called by Sphinx for every docstring that autodoc fetches."""

    def process(*about: Any) -> None:
        lines = about[-1]  # to be changed in place
        lines[:] = translate("\n".join(lines)).split("\n")

    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}

"""A small Sphinx extension that translates the package's docstrings.

The docstrings are written for readers of the source: `x` is code, $x$ is a
formula, an indented block is a listing, and `Args:` begins a section. Sphinx's
autodoc expects reStructuredText.

Napoleon, Sphinx's own extension for such sections, would not do: it takes the
text before a colon for a type, and our descriptions may contain colons.
"""

from __future__ import annotations

import re
from typing import Any

FIELDS = {"Args": "param", "Attributes": "ivar", "Raises": "raises"}
WHOLE = {"Returns": "returns", "Yields": "yields"}
SPAN = re.compile(
    r"`([^`]+)`|\$([^$]+)\$"
    # Stars that do not emphasise, as in (*ids.shape, width) or *shape.
    r"|(?<=\()\*(?![^)]*\*)|(?<=^    )\*+(?=\w+:)",
    re.MULTILINE,
)


def translate(docstring: str) -> str:
    """Return a docstring in reStructuredText."""
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
    """Translate a paragraph, or a section such as `Args:`."""
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
    """Register the translation with Sphinx."""

    def process(*about: Any) -> None:
        lines = about[-1]  # Sphinx expects a change in place
        lines[:] = translate("\n".join(lines)).split("\n")

    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}

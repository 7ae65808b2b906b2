"""A small Sphinx extension that puts pictures in SVG into the page itself.

As a file of its own, a picture knows neither the page's fonts nor its dark
mode, and nobody can search its text or copy from it.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

# An id, and what refers to one. A colour is no reference: ids are named n0,
# or by hand.
NAME = re.compile(r'(\bid="|url\(#|href="#)')


def inlined(svg: str, alt: str, number: int) -> str:
    """Return a picture as a part of a page.

    Args:
        svg: The text of the picture's file.
        alt: The text that stands for it.
        number: Which picture of the page it is; two may use the same ids.
    """
    _, _, rest = NAME.sub(rf"\g<1>p{number}-", svg.rstrip()).partition("<svg")
    label = f'role="img" aria-label="{escape(alt)}"'
    figure = f'<svg class="figure" {label}{rest}'
    if "min-width" in figure:  # it scrolls where the page is narrower
        return f'<span class="wide" tabindex="0">{figure}</span>'
    return figure


class InlinePictures(SphinxPostTransform):
    """Replaces each image that is an SVG file by the file's text."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Do so on one page."""
        images = list(self.document.findall(nodes.image))
        for number, image in enumerate(images):
            path = Path(self.env.srcdir, image["uri"])
            if path.suffix == ".svg":
                svg = path.read_text(encoding="utf-8")
                text = inlined(svg, image.get("alt", ""), number)
                image.replace_self(nodes.raw("", text, format="html"))


def setup(app: Any) -> dict[str, bool]:
    """Register the transformation with Sphinx."""
    app.add_post_transform(InlinePictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

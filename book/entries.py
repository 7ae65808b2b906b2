"""A small Sphinx extension for the pages on which one looks things up.

A paragraph of the glossary, or of the page on troubleshooting, that begins
with bold words is an entry: it gets an anchor, and a link to itself. What the
glossary explains is found by the search where the chapters explain it, and
`{places}` lists, for each term, the sections that speak of it. None of this is
written by hand, so it stays right when a chapter is rewritten.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

GLOSSARY = "book/glossary"
PREFIXES = {GLOSSARY: "term-", "book/troubleshooting": ""}
# An entry of the glossary: its names in bold, the explanation, the chapters.
ENTRY = re.compile(r"^\*\*(.+?)\.\*\* (.+)$", re.MULTILINE)
CHAPTER = re.compile(r"\[Chapter \d+\]\((\d\d-[\w-]+)\.ipynb\)")
WITHOUT = ("Exercise", "Summary", "Further reading", "Check it against")
WORDS_OF_AN_ANCHOR = 8
PLACES = 6
FEW = 3  # mentions that make a section a place, if it does not define the term


class Term(NamedTuple):
    """An entry of the glossary."""

    names: list[str]
    """The term and its other names."""
    chapters: list[str]
    """The documents that explain it, the most important one first."""


class Place(NamedTuple):
    """A section of a chapter."""

    anchor: str
    title: str
    text: str
    bold: tuple[str, ...]
    """What it has in bold, which is where the book defines a term."""


def terms(glossary: str) -> list[Term]:
    """Return the entries of a glossary in Markdown."""
    return [
        Term(names.split(", "), [f"book/{c}" for c in CHAPTER.findall(text)])
        for names, text in ENTRY.findall(glossary)
    ]


def anchor(words: str, prefix: str = "") -> str:
    """Return the anchor of an entry."""
    parts = re.findall(r"[^\W_]+", words.lower().replace("'", ""))
    return prefix + "-".join(parts[:WORDS_OF_AN_ANCHOR])


def mentions(names: list[str], text: str) -> int:
    """Count how often a text uses a term, in the singular or the plural."""
    either = "|".join(re.escape(name) for name in names)
    return len(re.findall(rf"(?<!\w)(?:{either})s?(?!\w)", text, re.I))


def places(term: Term, chapter: list[Place], few: int = FEW) -> list[Place]:
    """Return the sections of a chapter that speak of a term.

    Args:
        term: An entry of the glossary.
        chapter: The sections of a chapter; the first is its beginning.
        few: The mentions from which on a section counts.

    Returns:
        What has the term as its title comes first, then what defines it, then
        what has it in its title, then the rest by how often they use it.
    """
    count: Counter[Place] = Counter()
    titles = {name.lower() for name in term.names}
    for place in chapter:
        found = mentions(term.names, place.text)
        if place.title.lower() in titles:
            count[place] = found + 10_000
        elif any(mentions(term.names, bold) for bold in place.bold):
            count[place] = found + 1_000
        elif mentions(term.names, place.title):
            count[place] = found + 100
        elif found >= few:
            count[place] = found
    return [place for place, _ in count.most_common()]


class Entries(SphinxTransform):
    """Gives anchors to entries, and finds where chapters explain terms."""

    default_priority = 830  # before Sphinx and MyST collect anchors

    def apply(self, **_: Any) -> None:
        """Do so on one page."""
        name = self.env.docname
        if name in PREFIXES:
            self._add_anchors(PREFIXES[name])
        elif re.match(r"book/\d\d-", name):
            self._add_places(name)

    def _add_anchors(self, prefix: str) -> None:
        slugs = self.env.metadata[self.env.docname].setdefault(
            "myst_slugs", getattr(self.document, "myst_slugs", {})
        )
        for paragraph in list(self.document.findall(nodes.paragraph)):
            parts = [p for p in paragraph.children if p.astext()]
            strong = next(iter(parts), None)
            if not isinstance(strong, nodes.strong):
                continue
            words = strong.astext().rstrip(".")
            names = words.split(", ") if prefix else [words]
            for name in names:
                own = anchor(name, prefix)
                if own in slugs:
                    raise ValueError(f"two entries have the anchor {own}")
                slugs[own] = (paragraph.line or 0, own, name)
                paragraph["ids"].append(own)
                self.document.ids[own] = paragraph
            title = escape(f"Link to this entry: {names[0]}")
            link = f'<a class="headerlink" href="#{own}" title="{title}">#</a>'
            paragraph += nodes.raw("", link, format="html")
            if prefix:
                self._add_index(paragraph.parent, names, own, paragraph)

    def _add_places(self, name: str) -> None:
        found = []
        for section in self.document.findall(nodes.section):
            title = section[0].astext()
            if title.startswith(WITHOUT):
                continue
            own = [n for n in section if not isinstance(n, nodes.section)]
            prose = [p for n in own for p in n.findall(nodes.paragraph)]
            bold = [s.astext() for p in prose for s in p.findall(nodes.strong)]
            text = "\n".join(p.astext() for p in prose)
            found.append(Place(section["ids"][0], title, text, tuple(bold)))
        self.env.places_of_terms[name] = found
        for term in self.env.terms_of_glossary:
            if name in term.chapters[:1]:
                for place in places(term, found, few=1)[:1]:
                    section = self.document.ids[place.anchor]
                    self._add_index(section, term.names, place.anchor)

    def _add_index(
        self,
        parent: Any,
        names: list[str],
        target: str,
        before: Any = None,
    ) -> None:
        entries = [("single", n, target, "main", None) for n in names]
        index = addnodes.index("", entries=entries)
        parent.insert(parent.index(before) if before else 1, index)


class PlacesOfTerms(nodes.General, nodes.Element):
    """Stands for the list until all chapters have been read."""


class Places(SphinxDirective):
    """The directive `places`, the list of terms with their sections."""

    def run(self) -> list[Any]:
        """Put a mark where the list will stand."""
        return [PlacesOfTerms()]


def fill(app: Any, doctree: Any, docname: str) -> None:
    """Put the list in the place of its mark."""
    env, link = app.env, partial(_link, app.builder, docname)
    for mark in list(doctree.findall(PlacesOfTerms)):
        items = nodes.bullet_list(classes=["places"])
        for term in sorted(env.terms_of_glossary, key=_by_name):
            own, names = anchor(term.names[0], "term-"), ", ".join(term.names)
            line = nodes.paragraph()
            line += link(GLOSSARY, own, names)
            for chapter, place in _best(env, term):
                number = _number(env, chapter, place)
                if number:
                    line += nodes.Text(" · ")
                    line += link(chapter, place.anchor, number, place.title)
            items += nodes.list_item("", line)
        mark.replace_self(items)


def _number(env: Any, chapter: str, place: Place) -> str:
    numbers = env.toc_secnumbers.get(chapter, {})
    is_first = place == env.places_of_terms[chapter][0]
    number = numbers.get("" if is_first else f"#{place.anchor}")
    return ".".join(map(str, number or ()))  # what is folded has none


def _by_name(term: Term) -> str:
    return term.names[0].lower()


def _best(env: Any, term: Term) -> list[tuple[str, Place]]:
    """Return the places of a term, in the order of the book."""
    found = []
    for chapter, sections in env.places_of_terms.items():
        explains = chapter in term.chapters
        there = places(term, sections)
        if explains and not there:
            there = places(term, sections, few=1)[:1]
        for rank, place in enumerate(there):
            found.append((not explains or rank, rank, chapter, place))
    best = sorted(found, key=lambda f: f[:3])[:PLACES]
    order = {
        (chapter, place): (chapter, n)
        for chapter, sections in env.places_of_terms.items()
        for n, place in enumerate(sections)
    }
    return sorted(((f[2], f[3]) for f in best), key=lambda p: order[p])


def _link(
    builder: Any, here: str, page: str, target: str, text: str, title: str = ""
) -> Any:
    inner = nodes.inline("", text)
    return make_refnode(builder, here, page, target, inner, title or None)


def begin(app: Any, env: Any, *_: Any) -> None:
    """Read the glossary before the chapters are read."""
    page = Path(env.srcdir, f"{GLOSSARY}.md").read_text(encoding="utf-8")
    env.terms_of_glossary = terms(page)
    if not hasattr(env, "places_of_terms"):
        env.places_of_terms = {}


def setup(app: Any) -> dict[str, bool]:
    """Register the transformation and the directive with Sphinx."""
    app.add_node(PlacesOfTerms)
    app.add_transform(Entries)
    app.add_directive("places", Places)
    app.connect("env-before-read-docs", begin)
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": False, "parallel_write_safe": True}

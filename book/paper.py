"""Make a PDF or an EPUB of the built book.

    python book/paper.py pdf --paper A4
    python book/paper.py epub

Both are made from one page, which is assembled from the pages of the site:
parts and chapters in order, what is folded laid open, the code of figures left
out, and hints and solutions at the end. Chromium prints it, or pandoc converts
it. What comes out is checked before it is put in its place.
"""

from __future__ import annotations

import argparse
import html
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import yaml
from address import pages_address
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "_build"
SITE = BUILD / "html"
PAPERS = ("A4", "Letter")
MOST_BYTES = 10_000_000
SHOWING = {"Tj", "TJ", "Do", "f", "f*", "S", "B", "sh"}  # steps of a PDF page
FEWEST = 4  # steps of a page that has more than its ground and its number
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--log-level=3"),
    *("--no-pdf-header-footer", "--generate-pdf-document-outline"),
    "--virtual-time-budget=120000",
]
NOT_ON_PAPER = "script, button, .headerlink, .toctree-wrapper, #searchbox"
# Classes of the words of code that have the colour of the text. Unmarked, they
# halve the PDF.
PLAIN = {"n", "o", "p", "pre", "w"}
# An untrained model may write them. XML allows none; Unicode pictures each.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
HEADING = re.compile(r"^h\d$")
# The parser makes these names small, which HTML allows and SVG files do not.
SVG_NAMES = (
    *("viewBox", "clipPath", "preserveAspectRatio", "patternUnits"),
    *(
        "patternTransform",
        "linearGradient",
        "gradientUnits",
        "gradientTransform",
    ),
    *("markerWidth", "markerHeight", "markerUnits", "refX", "refY"),
    "textLength",
)
PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta name="author" content="{author}">
{head}
</head>
<body><article class="bd-article">{body}</article></body>
</html>
"""
PRINTED_HEAD = """<link rel="stylesheet" href="../html/_static/styles/all.css">
<style>@page {{ size: {paper}; }} {style}</style>
<script>window.MathJax = {{options: {{processHtmlClass: "math"}}}}</script>
<script src="../html/_static/mathjax/tex-svg.js"></script>"""


class Book:
    """One page that holds the whole book."""

    def __init__(self, root: Path, site: Path) -> None:
        """Assemble it.

        Args:
            root: The folder of `_config.yml` and `_toc.yml`.
            site: The folder of the built site.
        """
        self.site = site
        self.config = yaml.safe_load((root / "_config.yml").read_text("utf-8"))
        toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
        self.parts = [
            (part["caption"], [c["file"] for c in part["chapters"]])
            for part in toc["parts"]
        ]
        self.names = [toc["root"], *(n for _, ns in self.parts for n in ns)]
        self.soup = BeautifulSoup("", "html.parser")
        self.body = self.soup.new_tag("div")
        self.solutions: list[Tag] = []
        self._add(toc["root"])
        for caption, names in self.parts:
            self.body.append(self._heading("h1", caption))
            for name in names:
                self._add(name)
        if self.solutions:
            self.body.append(self._heading("h1", "Hints and solutions"))
            self.body.extend(self.solutions)
        for number, heading in enumerate(self.body.find_all(HEADING)):
            heading["id"] = heading.get("id", f"heading-{number}")

    @property
    def title(self) -> str:
        """The title of the book."""
        return str(self.config["title"])

    def page(self, head: str = "") -> str:
        """Return the page, with this in its head."""
        author = html.escape(self.config["author"])
        title = html.escape(self.title)
        body = self.body.decode_contents()
        return PAGE.format(title=title, author=author, head=head, body=body)

    def _heading(self, level: str, text: str) -> Tag:
        heading = self.soup.new_tag(level)
        heading.string = text
        return heading

    def _add(self, name: str) -> None:
        text = (self.site / f"{name}.html").read_text("utf-8")
        page = BeautifulSoup(text, "html.parser")
        chapter = page.select_one("article.bd-article > section")
        if chapter is None:
            raise ValueError(f"{name}.html has no text; build the book again")
        for part in chapter.select(NOT_ON_PAPER):
            part.decompose()
        for word in chapter.select("pre span, code span"):
            if set(word.get("class", [])) <= PLAIN:
                word.unwrap()
        for level in (5, 4, 3, 2, 1):
            for heading in chapter.find_all(f"h{level}"):
                heading.name = f"h{level + 1}"
        self._bind(chapter, name)
        chapter.h2["id"] = anchor(name)
        lay_open(chapter)
        self._collect_solutions(chapter)
        self.body.append(chapter)

    def _bind(self, chapter: Tag, name: str) -> None:
        """Make ids unique in the book, and let links and images find them."""
        own = anchor(name)
        for tag in [chapter, *chapter.find_all(True)]:
            for key, value in list(tag.attrs.items()):
                if key == "id":
                    tag[key] = f"{own}--{value}"
                elif key == "src":
                    tag[key] = f"../html/{posixpath.dirname(name)}/{value}"
                elif key == "href" and tag.name == "a":
                    tag[key] = self._target(name, value)
                elif key.endswith("href"):
                    tag[key] = re.sub("^#", f"#{own}--", value)
                elif isinstance(value, str):
                    tag[key] = value.replace("url(#", f"url(#{own}--")

    def _target(self, name: str, link: str) -> str:
        """Return where a link of a page leads in the book."""
        if re.match(r"[a-z]+:", link):
            return link
        file, fragment = urldefrag(link)
        folder = posixpath.dirname(name)
        path = posixpath.normpath(posixpath.join(folder, file))
        goal = path.removesuffix(".html") if file else name
        if goal in self.names:
            end = f"--{fragment}" if fragment else ""
            return f"#{anchor(goal)}{end}"
        return pages_address(self.config["repository"]["url"]) + path

    def _collect_solutions(self, chapter: Tag) -> None:
        """Move hints and solutions of exercises to the end of the book."""
        title = self._heading("h2", chapter.h2.get_text())
        moved = []
        for exercise in chapter.find_all("section"):
            heading = exercise.find(HEADING, recursive=False)
            found = exercise.find_all(class_="solution", recursive=False)
            if heading is None or not found:
                continue
            answer = self.soup.new_tag("section")
            answer["id"] = f"{exercise['id']}--solution"
            answer.append(self._heading("h3", heading.get_text()))
            where = self._link(exercise["id"], "Back to the exercise")
            answer.extend([*found, where])
            exercise.append(self._link(answer["id"], "Hint and solution"))
            moved.append(answer)
        if moved:
            self.solutions += [title, *moved]

    def _link(self, target: str, text: str) -> Tag:
        line, link = self.soup.new_tag("p"), self.soup.new_tag("a")
        line["class"], link["href"], link.string = "turn", f"#{target}", text
        line.append(link)
        return line


def anchor(name: str) -> str:
    """Return the id of a page in the book."""
    return f"page-{posixpath.basename(name)}"


def lay_open(chapter: Tag) -> None:
    """Unfold what is folded, leave out the code of figures, mark solutions.

    In what is folded in words, the line that says what it is stays.
    """
    for cell in chapter.select("div.cell:has(> details.hide)"):
        if "tag_solution" in cell["class"]:
            cell["class"] = "solution"
        elif cell.select_one(".cell_output :is(svg, img)"):
            cell.details.decompose()
            continue
        cell.details.summary.decompose()
    for fold in chapter.find_all("details"):
        fold["class"] = "unfolded"
        if what := fold.summary:
            what.name, what["class"] = "p", "what"
            if what.get_text(strip=True) in ("Hint", "Solution"):
                fold["class"] = "solution"
        fold.name = "div"


def printed(book: Book, paper: str, target: Path) -> None:
    """Write the PDF.

    Args:
        book: What to print.
        paper: The size, one of `PAPERS`.
        target: Where to put it.

    Raises:
        ValueError: There is no browser, or something is wrong with the PDF.
    """
    import pikepdf

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ValueError("make pdf needs Chromium or Chrome")
    style = Path(__file__).with_name("paper.css").read_text("utf-8")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        page = Path(folder, "whole.html")
        head = PRINTED_HEAD.format(paper=paper, style=style)
        page.write_text(book.page(head), "utf-8")
        draft = Path(folder, "draft.pdf")
        command = [browser, *FLAGS, f"--print-to-pdf={draft}", page.as_uri()]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False
        )
        if not draft.is_file():
            raise ValueError(f"{browser} printed nothing:\n{done.stderr}")
        small = Path(folder, "small.pdf")
        with pikepdf.open(draft) as pdf:
            check_printed(pdf)
            # Chromium leaves most of the file uncompressed.
            pikepdf.settings.set_flate_compression_level(9)
            streams = pikepdf.ObjectStreamMode.generate
            pdf.save(small, object_stream_mode=streams, recompress_flate=True)
        if (size := small.stat().st_size) >= MOST_BYTES:
            raise ValueError(
                f"the PDF has {size} bytes, expected fewer than {MOST_BYTES}"
            )
        small.replace(target)


def check_printed(pdf: Any) -> None:
    """Check a PDF.

    Args:
        pdf: As pikepdf opened it.

    Raises:
        ValueError: It has no outline, or a page has nothing but its number.
    """
    with pdf.open_outline() as outline:
        if not outline.root:
            raise ValueError(
                "the PDF has no outline; Chromium or Chrome from version 131 "
                "on is needed"
            )
    for number, page in enumerate(pdf.pages, start=1):
        if is_empty(page):
            raise ValueError(f"page {number} of the PDF is empty")


def is_empty(page: Any) -> bool:
    """Say whether a page of a PDF shows nothing, or only its number."""
    import pikepdf

    steps = pikepdf.parse_content_stream(page)
    return sum(str(step.operator) in SHOWING for step in steps) < FEWEST


def converted(book: Book, target: Path) -> None:
    """Write the EPUB."""
    import pypandoc

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        take_out_pictures(book, Path(folder))
        draft = Path(folder, "draft.epub")
        style = Path(__file__).with_name("epub.css")
        pypandoc.convert_text(
            CONTROL.sub(lambda c: chr(0x2400 + ord(c[0])), book.page()),
            "epub3",
            format="html+tex_math_single_backslash-auto_identifiers",
            outputfile=str(draft),
            extra_args=[
                *("--mathml", "--toc", "--toc-depth=3", "--split-level=2"),
                *("--resource-path", folder, "--css", str(style)),
                *("--metadata", "lang=en"),
            ],
        )
        draft.replace(target)


def take_out_pictures(book: Book, folder: Path) -> None:
    """Make files of the pictures, and leave to pandoc what it understands."""
    for number, picture in enumerate(book.body.find_all("svg")):
        path = folder / f"picture-{number}.svg"
        picture["xmlns"] = "http://www.w3.org/2000/svg"
        path.write_text(spelled(str(picture)), "utf-8")
        image = book.soup.new_tag("img")
        image["src"], image["alt"] = path.name, picture.get("aria-label", "")
        picture.replace_with(image)
    unwrap_sections(book)
    for tag in book.body.select(":is(p, li, dt, dd, td, figure)[id]"):
        target = book.soup.new_tag("span", id=tag["id"])  # pandoc keeps these
        del tag["id"]
        tag.insert(0, target)
    for listing in book.body.select(".highlight-python pre"):
        listing["class"] = "python"
        listing.string = listing.get_text()


def unwrap_sections(book: Book) -> None:
    """Leave the headings alone: pandoc splits the book at no other.

    What is in a heading gets the ids by which links find the section.
    """
    for section in book.body.find_all("section"):
        heading = section.find(HEADING, recursive=False)
        names = [section, *heading.find_previous_siblings("span", id=True)]
        for name in names:
            target = book.soup.new_tag("span", id=name["id"])
            target.extend([*heading.contents])
            heading.append(target)
            del name["id"]
        section.unwrap()


def spelled(svg: str) -> str:
    """Return a picture with the names of its parts as SVG spells them."""
    for name in SVG_NAMES:
        svg = re.sub(rf"(?<=[<\s/]){name.lower()}(?=[\s=>])", name, svg)
    return svg


def main() -> None:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["pdf", "epub"])
    parser.add_argument("--paper", choices=PAPERS, default=PAPERS[0])
    arguments = parser.parse_args()
    target = BUILD / f"gpt2.{arguments.kind}"
    try:
        book = Book(ROOT, SITE)
        if arguments.kind == "pdf":
            printed(book, arguments.paper, target)
        else:
            converted(book, target)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(f"The book is in {target}")


if __name__ == "__main__":
    main()

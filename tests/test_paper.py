"""The book as PDF and EPUB, made from a site of three small pages."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import paper
import pikepdf
import pytest

CONFIG = """title: A book
author: Nobody
repository: {url: https://github.com/someone/book}
"""
TOC = """root: b/intro
parts:
- caption: One part
  chapters: [{file: b/1-one}, {file: b/2-two}]
"""
PAGE = """<html><body><p>Around it</p><article class="bd-article">
<section id="top"><h1>{title}<a class="headerlink" href="#top">#</a></h1>
{body}</section></article></body></html>"""
ONE = """<p>See <a href="2-two.html#again">two</a>, <a href="#again">here</a>,
<a href="2-two.html">all of it</a>, <a href="2-two.html#older">as before</a>,
<a href="https://a.org/">there</a> and <a href="../search.html">search</a>.</p>
<section id="again"><h2>Again</h2>
<div class="cell tag_hide-input"><details class="hide"><summary>Show</summary>
<pre>draw()</pre></details><div class="cell_output">
<svg class="figure" aria-label="A square" viewBox="0 0 9 9">
<defs><clipPath id="c"><rect width="9" height="9"/></clipPath></defs>
<rect clip-path="url(#c)" fill="#ff0000" width="9" height="9"/></svg>
</div></div>
<div class="cell tag_hide-input"><details class="hide"><summary>Show</summary>
<pre>longer() \x18</pre></details></div></section>
<section id="exercise"><h2>Exercise 1</h2><p>What is 1 + 1?</p>
<details><summary>Hint</summary><p>Not 3.</p></details>
<div class="cell tag_solution"><details class="hide"><summary>Show</summary>
<pre>two = 2</pre></details></div></section>"""
TWO = r"""<section id="again"><span id="older"></span><h2>More</h2>
<p>A formula: <span class="math">\(a^2\)</span></p></section>"""


@pytest.fixture
def book(tmp_path: Path) -> paper.Book:
    """An introduction and two chapters."""
    (tmp_path / "_config.yml").write_text(CONFIG)
    (tmp_path / "_toc.yml").write_text(TOC)
    site = tmp_path / "_build" / "html"
    (site / "b").mkdir(parents=True)
    pages = {"intro": "<p>Hello.</p>", "1-one": ONE, "2-two": TWO}
    for name, body in pages.items():
        text = PAGE.format(title=f"Page {name}", body=body)
        (site / "b" / f"{name}.html").write_text(text)
    return paper.Book(tmp_path, site)


def test_parts_and_chapters_are_in_order(book: paper.Book) -> None:
    headings = book.body.find_all(["h1", "h2"])
    assert [(h.name, h.get_text()) for h in headings] == [
        ("h2", "Page intro"),
        ("h1", "One part"),
        ("h2", "Page 1-one"),
        ("h2", "Page 2-two"),
        ("h1", "Hints and solutions"),
        ("h2", "Page 1-one"),
    ]
    assert "Around it" not in book.page()


def test_links_lead_to_where_they_led(book: paper.Book) -> None:
    ids = [tag["id"] for tag in book.body.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert all(re.match("[a-z]", own) for own in ids)
    links = {a.get_text(): a["href"] for a in book.body.find_all("a")}
    at = {text: book.body.find(id=link[1:]) for text, link in links.items()}
    assert at["two"].h3.get_text() == "More"
    assert at["here"].h3.get_text() == "Again"
    assert links["there"] == "https://a.org/"
    assert links["search"] == "https://someone.github.io/book/search.html"


def test_solutions_are_at_the_end(book: paper.Book) -> None:
    exercise = book.body.find(id="page-1-one--exercise")
    assert "1 + 1" in exercise.get_text()
    assert "Not 3" not in exercise.get_text()
    there = book.body.find(id=exercise.a["href"][1:])
    assert "Not 3" in there.get_text()
    assert "two = 2" in there.get_text()
    assert book.body.find(id=there.find_all("a")[-1]["href"][1:]) is exercise


def test_only_the_code_of_figures_is_left_out(book: paper.Book) -> None:
    assert book.body.find("details") is None
    assert "draw()" not in book.page()
    assert "longer()" in book.page()


def test_a_picture_keeps_its_colours_and_finds_its_parts(
    book: paper.Book,
) -> None:
    rect = book.body.svg.find("rect", fill=True)
    assert rect["fill"] == "#ff0000"
    clip = re.fullmatch(r"url\(#(.*)\)", rect["clip-path"])
    assert clip is not None
    assert book.body.find(id=clip[1]).name == "clippath"
    assert '<clipPath id="' in paper.spelled(str(book.body.svg))


def has_browser() -> bool:
    return any(map(shutil.which, paper.BROWSERS))


@pytest.mark.skipif(not has_browser(), reason="no browser is installed")
@pytest.mark.parametrize(
    "size, points", [("A4", (595, 842)), ("Letter", (612, 792))]
)
def test_the_printed_book(
    size: str, points: tuple[int, int], book: paper.Book, tmp_path: Path
) -> None:
    target = tmp_path / "book.pdf"
    paper.printed(book, size, target)
    with pikepdf.open(target) as pdf:
        assert [round(float(x)) for x in pdf.pages[0].mediabox[2:]] == [
            *points
        ]
        with pdf.open_outline() as outline:
            top = [str(item.title) for item in outline.root]
        assert top[-2:] == ["One part", "Hints and solutions"]
        assert "/StructTreeRoot" in pdf.Root  # for those who listen
    assert {p.name for p in tmp_path.iterdir() if p.suffix} <= {
        *("book.pdf", "_config.yml", "_toc.yml")
    }


@pytest.mark.skipif(not has_browser(), reason="no browser is installed")
def test_an_empty_page_is_noticed(book: paper.Book, tmp_path: Path) -> None:
    empty = book.soup.new_tag("div", style="break-after: page")
    book.body.insert(0, empty)
    with pytest.raises(ValueError, match="page 1 of the PDF is empty"):
        paper.printed(book, "A4", tmp_path / "book.pdf")
    assert not (tmp_path / "book.pdf").exists()


@pytest.fixture
def electronic(book: paper.Book, tmp_path: Path) -> dict[str, str]:
    """The files of the EPUB that hold text, in order."""
    pytest.importorskip("pypandoc", reason="make epub installs pandoc")
    paper.converted(book, tmp_path / "book.epub")
    with zipfile.ZipFile(tmp_path / "book.epub") as epub:
        assert any(name.endswith(".svg") for name in epub.namelist())
        return {
            Path(name).name: epub.read(name).decode()
            for name in epub.namelist()
            if name.endswith(".xhtml")
        }


def test_the_electronic_book(electronic: dict[str, str]) -> None:
    text = "".join(electronic.values())
    assert "<math" in text
    assert "\x18" not in text and "\u2418" in text
    assert 'alt="A square"' in text
    # The standard forbids them in the table of contents.
    assert not re.search(r"<span[^>]*></span>", electronic["nav.xhtml"])


def test_each_chapter_is_a_file(electronic: dict[str, str]) -> None:
    titles = [re.findall("Page [^<]*", text) for text in electronic.values()]
    chapters = [found for found in titles if len(found) == 1]
    assert chapters == [
        ["Page intro"],
        ["Page 1-one"],
        ["Page 2-two"],
        ["Page 1-one"],  # its solutions
    ]


def test_links_lead_from_file_to_file(electronic: dict[str, str]) -> None:
    followed = set()
    for name, text in electronic.items():
        for file, target, words in re.findall(
            r'<a href="([^":#]*)#([^"]*)"[^>]*>([^<]*)</a>', text
        ):
            goal = electronic[Path(file).name or name]
            assert f'id="{target}"' in goal
            followed.add(words)
    assert followed > {"two", "all of it", "as before"}

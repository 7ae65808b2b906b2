"""The book's pictures as files: how they are written, and how compared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import nbformat
import numpy as np
import pytest
import sync
from book_rules import BOOK, ROOT
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook

from gpt2_book import drawing
from gpt2_book.pictures import FONTS, look_the_same, plain

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with drawing.plt.rc_context():
        drawing.use_style()
        yield


def draw(*heights: float, color: str = "token", label: str = "") -> str:
    figure = Figure()
    axes = figure.subplots()
    axes.plot(heights, "o-", color=drawing.COLORS.get(color, color))
    axes.set(title=label, ylim=(0, 10), yticks=[0, 5, 10])
    return drawing.svg(figure)


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_picture_is_the_same_every_time() -> None:
    one, other = draw(1, 2, 4), draw(1, 2, 4)
    assert one == other
    assert "matplotlib" not in one.lower()
    assert not re.search(r"\d{4}-\d\d-\d\d", one)  # no date


def test_text_stays_text_in_the_fonts_of_the_page() -> None:
    svg = draw(1, 2, label="two  and three ")
    assert "two\xa0\xa0and three\xa0" in texts(svg)  # else they would shrink
    assert ET.fromstring(svg).get("font-family") == FONTS
    assert "DejaVu" not in svg
    css = (BOOK / "_static" / "style.css").read_text("utf-8")
    assert "svg.figure" in css


def test_a_logarithmic_axis_has_its_powers_in_the_size_of_text() -> None:
    figure = Figure()
    figure.subplots().set(yscale="log", ylim=(1e-4, 1e4))
    svg = drawing.svg(figure)
    assert {"10⁻⁴", "10⁰", "10⁴"} <= set(texts(svg))
    assert set(re.findall(r'font-size="(.*?)"', svg)) == {str(drawing.SIZE)}


def test_only_names_that_are_used_are_kept() -> None:
    svg = draw(1, 2, 4)
    used = set(re.findall(r'(?:url\(|href=")#(\w+)', svg))
    assert set(re.findall(r' id="(\w+)"', svg)) == used
    assert used == {f"n{i}" for i in range(len(used))} != set()


def test_a_matrix_is_a_raster_of_flat_cells() -> None:
    figure = Figure()
    drawing.matrix(figure.subplots(), [[0, 1], [2, 3]], digits=None)
    (image,) = ET.fromstring(drawing.svg(figure)).iter(f"{SVG}image")
    assert image.get("style") == "image-rendering: pixelated"
    assert len(str(image.attrib)) < 1000


def test_a_picture_is_light() -> None:
    assert len(draw(*range(10))) < 6000
    assert len(draw(*range(10, 0, -1), *range(1000))) < 90_000


def test_a_saved_picture_is_that_of_a_notebook(tmp_path: Path) -> None:
    figure = Figure()
    figure.subplots()
    drawing.save(figure, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text("utf-8") == drawing.svg(figure)


def test_rounding_makes_no_difference() -> None:
    shift = 0.09 / 216 * 10  # less than a tenth of a point
    assert look_the_same(draw(1, 2, 4), draw(1, 2 + shift / 2, 4))
    near = draw(1, 2, 4).replace("#2563eb", "#2663ee")
    assert look_the_same(draw(1, 2, 4), near)


@pytest.mark.parametrize(
    "other",
    [
        lambda: draw(1, 2.1, 4),
        lambda: draw(1, 2, 4, 4),
        lambda: draw(1, 2, 4, color="stream"),
        lambda: draw(1, 2, 4, color="#2563f5"),
        lambda: draw(1, 2, 4, label="a"),
        lambda: draw(1, 2, 4).replace('stroke-width="1.8"', ""),
    ],
    ids=["a point", "a length", "a color", "a shade", "a label", "a width"],
)
def test_what_can_be_seen_makes_a_difference(other: object) -> None:
    assert callable(other)
    assert not look_the_same(draw(1, 2, 4), other())


@pytest.mark.parametrize("change, same", [(0.001, True), (0.2, False)])
def test_cells_are_compared_by_colour(change: float, same: bool) -> None:
    def cells(values: list[list[float]]) -> str:
        figure = Figure()
        drawing.matrix(figure.subplots(), values, digits=None, limit=1)
        return drawing.svg(figure)

    one, other = cells([[0.3, 0.5]]), cells([[0.3, 0.5 + change]])
    assert one != other or change < 1 / 256
    assert look_the_same(one, other) == same
    assert not look_the_same(one, cells([[0.3, 0.5], [0.3, 0.5]]))


def test_every_length_is_rounded_but_no_text() -> None:
    svg = plain(
        f'<svg xmlns="{SVG[1:-1]}"><metadata/><g id="a"><g>'
        '<path d="M 1.23456 -0.0001 \nL 2e-05 7 \nz" style="fill: #123456"/>'
        '<text x="3.14159" style="font-size: 9px">1.23456</text>'
        "</g></g></svg>"
    )
    assert 'd="M1.23 0L0 7z" fill="#123456"' in svg
    assert 'x="3.14" font-size="9">1.23456<' in svg
    assert "<g" not in svg


DRAW = """from matplotlib import pyplot as plt
from gpt2_book import drawing
drawing.use_style()
plt.plot({}); plt.title("a line"); plt.show()"""


def stored(change: object, folder: Path) -> list[str]:
    """Run a notebook, change its stored outputs, and let nbval check them.

    Returns:
        PASSED or FAILED, for each cell.
    """
    assert callable(change)
    path = folder / "a.ipynb"
    sources = [DRAW.format("[1, 2, 4]")] * 6 + [DRAW.format("[1, 3, 2]")]
    cells = [new_code_cell(source) for source in [*sources, "6 * 7"]]
    nbformat.write(new_notebook(cells=cells), path)
    sync.sync(path)
    notebook = nbformat.read(path, as_version=4)
    change(notebook.cells)
    nbformat.write(notebook, path)
    shutil.copy(BOOK / "conftest.py", folder)
    places = [str(BOOK), str(ROOT), os.environ.get("PYTHONPATH", "")]
    command = "-m pytest -v --nbval --nbval-current-env -p no:cacheprovider"
    done = subprocess.run(
        [sys.executable, *command.split(), path.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=False,
    )
    return re.findall(r"Cell \d+ (PASSED|FAILED)", done.stdout)


def test_nbval_compares_pictures(tmp_path: Path) -> None:
    def change(cells: list[nbformat.NotebookNode]) -> None:
        pictures = [c.outputs[0].data for c in cells[:-1]]
        (first,) = {picture[sync.SVG] for picture in pictures[:6]}
        assert "a line" in texts(first)
        (point,) = re.findall(r'd="(M[\d.]+ [\d.]+L).*1\.8', first)
        x, y = map(float, re.findall(r"[\d.]+", point))
        for picture, dx in ((pictures[1], 0.05), (pictures[2], 1.0)):
            moved = f"M{x + dx:g} {y:g}L"
            picture[sync.SVG] = first.replace(point, moved)
        pictures[3][sync.SVG] = pictures[6][sync.SVG]  # another figure
        pictures[4][sync.SVG] = first.replace("#2563eb", "#d97706")
        cells[5].outputs = []
        del pictures[6][sync.SVG]
        cells[7].outputs[0].data[sync.SVG] = first

    passed = [True, True, False, False, False, False, False, False]
    expected = ["PASSED" if right else "FAILED" for right in passed]
    assert stored(change, tmp_path) == expected


def test_notebooks_hold_no_other_pictures() -> None:
    for path in sorted(BOOK.glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                svg = output.get("data", {}).get(sync.SVG)
                if svg and "image/png" not in output.data:
                    assert ET.fromstring(svg).get("font-family") == FONTS
                assert "image/png" not in output.get("data", {}), path.name


def test_numbers_of_two_shapes_differ() -> None:
    one, other = np.zeros((2, 2)), np.zeros((2, 3))
    pictures = []
    for values in (one, other):
        figure = Figure()
        drawing.shade(figure.subplots(), values, drawing.shades("key"))
        pictures.append(drawing.svg(figure))
    assert not look_the_same(*pictures)

"""The book's figures in a real browser: on a phone, in light and dark."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import figures
import numpy as np
import pytest
import test_site
from book_rules import Chapter, figure_names, pages_of_the_toc
from matplotlib.colors import to_rgb
from PIL import Image
from playwright.sync_api import Page
from test_drawing import contrast

from gpt2_book import drawing

# The worker, the browser and the build of the other tests of the site.
pytestmark = pytest.mark.xdist_group("site")
address = test_site.address
browser = test_site.browser
page = test_site.page
site = test_site.site

SMALLEST = 11.0  # pixels
# What is wrong with the text in the figures of a page.
FAULTS = """smallest => [...document.querySelectorAll("svg.figure")].flatMap(
    figure => {
        const frame = figure.getBoundingClientRect(), found = [];
        const name = figure.getAttribute("aria-label").slice(0, 40) + "... ";
        const texts = [...figure.querySelectorAll("text")]
            .filter(text => text.textContent.trim())
            .map(text => ({
                words: text.textContent,
                box: text.getBoundingClientRect(),
                turned: Math.abs(text.getScreenCTM().b) > 0.01,
                size: parseFloat(getComputedStyle(text).fontSize)
                    * Math.hypot(text.getScreenCTM().a,
                                 text.getScreenCTM().b)}));
        for (const [i, {words, box, turned, size}] of texts.entries()) {
            if (size < smallest - 0.02)
                found.push(`${name}${words} has ${size.toFixed(1)} px`);
            if (box.left < frame.left - 2 || box.right > frame.right + 2
                || box.top < frame.top - 2 || box.bottom > frame.bottom + 2)
                found.push(`${name}${words} is cut off`);
            for (const other of texts.slice(i + 1)) {
                const wide = Math.min(box.right, other.box.right)
                    - Math.max(box.left, other.box.left);
                const high = Math.min(box.bottom, other.box.bottom)
                    - Math.max(box.top, other.box.top);
                if (wide > 1 && high > 4 && !(turned && other.turned))
                    found.push(`${name}${words} lies on ${other.words}`);
            }
        }
        return found;
    })"""
LABELS = """() => [...document.querySelectorAll("svg.figure")]
    .map(figure => figure.getAttribute("aria-label"))"""
CAPTIONS = """() => [...document.querySelectorAll("figcaption, figcaption *")]
    .map(part => getComputedStyle(part).fontWeight)"""
SWATCHES = """colors => {
    const figure = document.querySelector("svg.figure");
    figure.setAttribute("viewBox", `0 0 ${10 * colors.length} 10`);
    figure.innerHTML = colors.map((color, i) =>
        `<rect x="${10 * i}" width="10" height="10" fill="${color}"/>`
    ).join("");
}"""


@pytest.mark.parametrize("name", test_site.PAGES)
def test_figures_are_legible_on_a_phone(
    name: str, page: Page, address: str
) -> None:
    page.set_viewport_size(test_site.PHONE)
    page.goto(f"{address}/{name}", wait_until="load")
    page.evaluate(test_site.SETTLE)
    found = page.evaluate(FAULTS, SMALLEST)
    assert not found, "\n".join(found)
    assert set(page.evaluate(CAPTIONS)) <= {"400"}


def test_what_is_not_legible_is_noticed(page: Page) -> None:
    page.set_content(
        '<svg class="figure" aria-label="bad" viewBox="0 0 100 50" '
        'width="200">'
        '<text x="5" y="12" font-size="5">small</text>'
        '<text x="5" y="30" font-size="9">one</text>'
        '<text x="7" y="31" font-size="9">two</text>'
        '<text x="80" y="45" font-size="9">beyond</text>'
        '<text x="50" y="20" font-size="9">good</text></svg>'
    )
    found = "\n".join(page.evaluate(FAULTS, SMALLEST))
    assert "small has 10.0 px" in found
    assert "one lies on two" in found
    assert "beyond is cut off" in found
    assert "good" not in found


def test_every_picture_is_a_part_of_its_page(
    page: Page, address: str, site: Path
) -> None:
    for notebook in pages_of_the_toc():
        if notebook.suffix == ".ipynb":
            page.goto(f"{address}/book/{notebook.stem}.html")
            labels = page.evaluate(LABELS)
            assert len(labels) >= len(figure_names(Chapter(notebook)))
            assert all(len(label) >= 20 for label in labels)
            ids = "[...document.querySelectorAll('svg.figure [id]')]"
            named = page.evaluate(f"{ids}.map(element => element.id)")
            assert len(named) == len(set(named))


def pixels(page: Page) -> np.ndarray[Any, Any]:
    """Return the first figure's pixels, (height, width, 3)."""
    shot = page.locator("svg.figure").first.screenshot()
    return np.array(Image.open(io.BytesIO(shot)).convert("RGB"))


def test_the_dark_variant_has_the_page_as_its_ground(
    page: Page, address: str
) -> None:
    url = f"{address}/book/04-attention.html"
    names = [*drawing.COLORS]
    for mode, ground in (("light", "#ffffff"), ("dark", "#121212")):
        page.emulate_media(color_scheme=mode)
        page.goto(url, wait_until="load")
        white = pixels(page)[0, 0]
        assert np.abs(white - [*bytes.fromhex(ground[1:])]).max() <= 1
        page.evaluate(SWATCHES, [drawing.COLORS[name] for name in names])
        shown = pixels(page)
        row = shown[len(shown) // 2]
        for i, name in enumerate(names):
            shade = row[int((i + 0.5) * len(row) / len(names))]
            color = f"#{bytes(shade.tolist()).hex()}"
            assert contrast(color, ground) > 3, (mode, name, color)
            expected = to_rgb(drawing.COLORS[name])
            if mode == "dark":
                expected = drawing.dark(expected)
            assert np.abs(shade - 255 * np.array(expected)).max() < 3


def test_a_wide_picture_scrolls_in_its_box(page: Page, address: str) -> None:
    page.set_viewport_size(test_site.PHONE)
    page.goto(f"{address}/book/intro.html", wait_until="load")
    box = page.locator(".wide").first
    assert box.evaluate("e => e.scrollWidth - e.clientWidth") > 100
    assert box.evaluate("e => e.tabIndex") == 0


def test_the_names_in_two_pictures_do_not_clash() -> None:
    svg = (
        '<?xml version="1.0"?>\n<svg viewBox="0 0 1 1"><g id="n0"/><use '
        'xlink:href="#n0" clip-path="url(#n1)" fill="#facade"/></svg>\n'
    )
    assert figures.inlined(svg, 'a "b"', 7) == (
        '<svg class="figure" role="img" aria-label="a &quot;b&quot;" '
        'viewBox="0 0 1 1"><g id="p7-n0"/><use '
        'xlink:href="#p7-n0" clip-path="url(#p7-n1)" fill="#facade"/></svg>'
    )

"""The built book in a real browser, on a wide screen and on a phone.

The site is built first, by the command of `make book`, where it is missing or
older than its sources.
"""

from __future__ import annotations

import functools
import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urldefrag

import axe_playwright_python
import nbformat
import pytest
from book_rules import ROOT, pages_of_the_toc
from playwright.sync_api import Page, sync_playwright

import gpt2

# One worker, one browser, one build.
pytestmark = pytest.mark.xdist_group("site")

SITE = ROOT / "_build" / "html"
PACKAGE = Path(gpt2.__file__).parent
BUILD = ["build", ".", "--quiet", "-W", "-n", "--keep-going"]
PAGES = [f"book/{page.stem}.html" for page in pages_of_the_toc()]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")

SETTLE = """async () => {
    document.querySelectorAll("article details").forEach(d => d.open = true);
    if (window.MathJax) await MathJax.startup.promise;
}"""
BROKEN = """() => [
    ...[...document.images]
        .filter(image => !image.complete || !image.naturalWidth)
        .map(image => "an image is missing: " + image.src),
    ...[...document.querySelectorAll("img:not([alt]), article img[alt='']")]
        .map(image => "an image has no alt text: " + image.src),
    ...[...document.querySelectorAll(".math")]
        .filter(formula => !formula.querySelector("mjx-container svg"))
        .map(formula => "not typeset: " + formula.textContent),
    ...[...document.querySelectorAll("[data-mjx-error]")]
        .map(formula => "wrong: " + formula.dataset.mjxError),
    ...[...document.querySelectorAll("[class*='fa-']:not(svg)")]
        .map(icon => "an icon is not drawn: " + icon.className),
]"""
# The page and one style sheet are all that the first paint needs.
HEAVY = """() => [
    ...performance.getEntriesByType("resource")
        .filter(entry => entry.renderBlockingStatus === "blocking"
            && !entry.name.includes("/styles/all.css"))
        .map(entry => "the first paint waits for " + entry.name),
    ...performance.getEntriesByType("resource")
        .filter(entry => /\\.(woff2?|ttf)/.test(entry.name))
        .map(entry => "asks for the font " + entry.name),
    ...(window.MathJax && !document.querySelector(".math")
        ? ["loads MathJax for no formula"] : []),
]"""
NEXT_FRAME = """() => new Promise(done => requestAnimationFrame(
    () => requestAnimationFrame(done)))"""
# The text of the page without code and formulas.
PROSE = """() => {
    const copy = document.querySelector("article")?.cloneNode(true);
    copy?.querySelectorAll("pre, code, .math").forEach(e => e.remove());
    return copy?.textContent ?? "";
}"""
TOO_WIDE = "document.documentElement.scrollWidth - window.innerWidth"
# Thousands of coloured words of code would take axe most of the time: one of
# each kind and place is left.
THIN_OUT = """() => {
    const seen = new Set();
    for (const word of document.querySelectorAll(":is(pre, .sig) span")) {
        const within = [".cell_output", "details", ".sig"];
        const places = within.map(place => word.closest(place));
        const kind = word.className + places.map(Boolean);
        if (seen.has(kind)) word.replaceWith(...word.childNodes);
        seen.add(kind);
    }
}"""
# Preloading would ask the server for style sheets once more.
AXE_RUN = """async () => {
    const options = {resultTypes: ["violations"], preload: false};
    const {violations} = await axe.run(options);
    return violations.flatMap(v => v.nodes.map(n => v.id + ": " + n.html));
}"""


def is_current() -> bool:
    """Say whether the built site is there and newer than its sources."""
    sources = [ROOT / "_config.yml", ROOT / "_toc.yml"]
    sources += [
        path
        for path in (ROOT / "book").rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    ]
    sources += [
        ROOT / "book" / f"{name}.py"
        for name in (
            *("address", "live_scripts", "figures", "docstrings", "entries"),
            "light",
        )
    ]
    sources += [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("README.md")]
    start = SITE / "index.html"
    return start.is_file() and start.stat().st_mtime > max(
        source.stat().st_mtime for source in sources
    )


@pytest.fixture(scope="module")
def site() -> Path:
    """The folder of the built book."""
    if not is_current():
        shutil.rmtree(ROOT / "_build", ignore_errors=True)
        command = [str(Path(sys.executable).with_name("jupyter-book")), *BUILD]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return SITE


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and does not write down which."""

    def log_message(self, *args: object) -> None:
        pass


def serve(folder: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the built book is served."""
    yield from serve(site)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next((path for c in CHROMIUM if (path := shutil.which(c))), None)
    if found is None:
        reason = f"no browser: none of {', '.join(CHROMIUM)} is installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    """A page as a wide screen shows it, that remembers what went wrong."""
    page = browser.new_page(viewport=WIDE, reduced_motion="reduce")
    page.set_default_timeout(120_000)  # a machine may be busy with the rest
    yield page
    page.close()


def listen(page: Page, url: str) -> list[str]:
    """Return a list to which all is added that goes wrong on a page."""
    found: list[str] = []
    scheme, _, rest = url.partition("://")
    own = (f"{scheme}://{rest.split('/')[0]}/", "data:", "blob:")

    def on_console(message: Any) -> None:
        if message.type == "error":
            found.append(f"console: {message.text}")

    def on_request(request: Any) -> None:
        if not request.url.startswith(own):
            found.append(f"asks {request.url}")

    def on_response(response: Any) -> None:
        if response.status >= 400:
            found.append(f"{response.status}: {response.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("request", on_request)
    page.on("response", on_response)
    return found


def problems(page: Page, url: str) -> list[str]:
    """Look at a page on a wide screen, then on a phone in the dark."""
    found = listen(page, url)
    page.goto(url, wait_until="load")
    page.evaluate(SETTLE)
    found += page.evaluate(BROKEN) + page.evaluate(HEAVY)
    raw = re.findall(r"\$\$|\\[(\[]|\$[^$\s]+\$", page.evaluate(PROSE))
    found += [f"raw formula: {formula}" for formula in raw]
    page.evaluate(THIN_OUT)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    for size, mode in ((WIDE, "light"), (PHONE, "dark")):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=mode)
        page.evaluate(NEXT_FRAME)
        where = f"{size['width']} px, {mode}: "
        if (beyond := page.evaluate(TOO_WIDE)) > 0:
            found.append(f"{where}scrolls sideways, by {beyond} px")
        found += [where + violation for violation in page.evaluate(AXE_RUN)]
    return found


@pytest.mark.parametrize("name", [*PAGES, "search.html", "genindex.html"])
def test_every_page_is_sound(name: str, page: Page, address: str) -> None:
    found = problems(page, f"{address}/{name}")
    assert not found, "\n".join(found)
    theme = page.evaluate("document.documentElement.dataset.theme")
    assert theme == "dark"  # the second look was one in the dark


def test_a_page_opens_without_a_server(page: Page, site: Path) -> None:
    found = problems(page, (site / PAGES[1]).as_uri())
    assert not found, "\n".join(found)


def test_a_bad_page_is_noticed(page: Page, tmp_path: Path) -> None:
    """Were nothing found here, the tests above would have nothing to say."""
    text = """<!doctype html><html lang="en"><title>Bad</title>
        <link rel="stylesheet" href="none.css">
        <style>@font-face {font-family: F; src: url(none.woff2)}</style>
        <article style="font-family: F"><i class="fa-solid fa-list"></i>
        <img src="none.png"><img alt="" src="data:image/gif;base64,R0lGOD">
        <span class="math">x^2</span> and $$y$$
        <p style="width: 700px; color: #eee">Wide and pale</p></article>
        <script src="http://localhost:1/a.js"></script>
        <script>console.error("oh"); throw Error("no")</script>"""
    (tmp_path / "bad.html").write_text(text, encoding="utf-8")
    server = serve(tmp_path)
    found = "\n".join(problems(page, f"{next(server)}/bad.html"))
    server.close()
    for complaint in (
        "asks http://localhost:1/a.js",
        "404: ",
        "console: oh",
        "error: no",
        "an image is missing: ",
        "an image has no alt text: ",
        "not typeset: x^2",
        "raw formula: $$",
        "an icon is not drawn: fa-solid",
        "the first paint waits for ",
        "asks for the font ",
        "390 px, dark: scrolls sideways",
        "1440 px, light: color-contrast",
        "390 px, dark: color-contrast",
    ):
        assert complaint in found, found


def test_the_style_sheet_is_small(site: Path) -> None:
    styles = (site / "_static" / "styles" / "all.css").read_bytes()
    assert len(gzip.compress(styles)) < 30_000  # 0.15 s at 1.6 Mbit/s


def test_a_figure_is_enlarged_on_a_phone(page: Page, address: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(f"{address}/{PAGES[1]}", wait_until="load")
    opener = page.locator("button.enlarge:visible").first
    opener.focus()
    page.keyboard.press("Enter")
    figure = page.locator("dialog.enlarged svg.figure")
    assert figure.evaluate("f => f.clientWidth") > 1.5 * PHONE["width"]
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert page.evaluate(AXE_RUN) == []
    page.keyboard.press("Escape")
    assert figure.count() == 0
    assert opener.evaluate("o => o === document.activeElement")
    page.locator("article svg.figure").first.click()
    assert figure.count() == 1
    page.get_by_role("button", name="Close").click()
    assert figure.count() == 0


class Anchors(HTMLParser):
    """Collects what a page links to, and what in it can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        named = dict(attrs)
        self.ids.add(named.get("id") or "")
        if tag == "a" and named.get("href"):
            self.links.add(str(named["href"]))


def dead_links(site: Path) -> Iterator[str]:
    pages = {
        path.resolve(): Anchors(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }
    for path, anchors in pages.items():
        for link in sorted(anchors.links):
            if re.match(r"[a-z]+:", link):
                continue
            file, anchor = urldefrag(link)
            goal = (path.parent / unquote(file)).resolve() if file else path
            if not goal.is_file():
                yield f"{path.name}: {link} leads to no file"
            elif anchor and unquote(anchor) not in pages[goal].ids:
                yield f"{path.name}: {link} leads to nothing on that page"


def test_links_inside_the_book(site: Path) -> None:
    found = list(dead_links(site))
    assert not found, "\n".join(found)


def test_the_reference_has_every_public_name(site: Path) -> None:
    html = (site / "book" / "api.html").read_text(encoding="utf-8")
    homes = {f"{getattr(gpt2, n).__module__}.{n}" for n in gpt2.__all__}
    assert homes <= Anchors(html).ids
    assert f"{ROOT}/" not in html  # nor may it differ from build to build
    assert " at 0x" not in html


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html"></a><a href="#c"></a><a href="#d"></a><p id="d">',
        encoding="utf-8",
    )
    found = list(dead_links(tmp_path))
    assert found == [
        "a.html: #c leads to nothing on that page",
        "a.html: b.html leads to no file",
    ]


@pytest.mark.parametrize(
    "start, end",
    [
        ("https://colab.research.google.com/github/", "/blob/notebooks/{}"),
        (
            "https://mybinder.org/v2/",
            "/main?urlpath=lab/tree/notebooks/{}",
        ),
        ("../_sources/book/", "{}"),
    ],
)
def test_the_buttons_open_notebooks_to_work_in(
    start: str, end: str, site: Path
) -> None:
    """In Colab, on Binder, and as a file."""
    for notebook in pages_of_the_toc():
        if notebook.suffix == ".ipynb":
            html = site / "book" / f"{notebook.stem}.html"
            links = Anchors(html.read_text(encoding="utf-8")).links
            (launch,) = (link for link in links if link.startswith(start))
            assert launch.endswith(end.format(notebook.name))


def test_downloads_do_not_give_the_answers_away(site: Path) -> None:
    """Their links lead to the site, wherever the file lies."""
    for notebook in pages_of_the_toc():
        if notebook.suffix != ".ipynb":
            continue
        file = site / "_sources" / "book" / notebook.name
        for cell in nbformat.read(file, as_version=4).cells:
            assert not cell.get("outputs")
            assert "solution" not in cell.metadata.get("tags", [])
            if cell.cell_type == "markdown":
                targets = re.findall(r"\]\((?!http|#)\S+\)", cell.source)
                assert targets == [], file.name


def test_search_finds_and_leads_there(page: Page, address: str) -> None:
    page.goto(f"{address}/search.html?q=attention")
    result = page.locator("#search-results li a").first
    result.click()
    page.wait_for_url(f"{address}/book/**")
    assert "attention" in page.locator("article").inner_text().lower()


def test_what_the_search_quotes_has_no_tex(page: Page, address: str) -> None:
    page.goto(f"{address}/search.html?q=softmax")
    quoted = page.locator("#search-results p.context")
    quoted.first.wait_for()
    page.get_by_text("Search finished").wait_for()
    quotes = quoted.all_inner_texts()
    assert any("…" in quote for quote in quotes)
    tex = re.compile(r"\\[()\[\]]|\\(?:frac|mathrm|sum)")
    assert [quote for quote in quotes if tex.search(quote)] == []


def test_what_the_search_finds_fits_a_phone(page: Page, address: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(f"{address}/search.html?q=softmax")  # it finds long names
    page.get_by_text("Search finished").wait_for()
    assert page.evaluate(TOO_WIDE) <= 0
    field = page.locator(".bd-search:visible")
    icon = field.locator(".icon").bounding_box()
    left = field.locator("input").evaluate(
        "i => i.getBoundingClientRect().x +"
        " parseFloat(getComputedStyle(i).paddingLeft)"
    )
    assert icon is not None
    assert icon["x"] + icon["width"] < left  # where its text begins


@pytest.mark.parametrize(
    "words, chapter",
    [
        ("attention", "04"),
        ("temperature", "09"),
        ("layer norm", "06"),
        ("BPE", "02"),
        ("GELU", "06"),
        ("embedding", "03"),
        ("sampling", "09"),
        ("KV cache", "10"),
        ("perplexity", "13"),
        ("MFU", "17"),
        ("induction head", "15"),
    ],
)
def test_search_finds_the_chapter_first(
    words: str, chapter: str, page: Page, address: str
) -> None:
    page.goto(f"{address}/search.html?q={words}")
    first = page.locator("#search-results li a").first
    assert f"book/{chapter}-" in str(first.get_attribute("href"))


@pytest.mark.parametrize(
    "words",
    [
        *("LoRA", "FlashAttention", "Chinchilla", "superposition"),
        *("attention sink", "speculative decoding"),
    ],
)
def test_search_finds_what_the_world_calls_it(
    words: str, page: Page, address: str
) -> None:
    page.goto(f"{address}/search.html?q={words}")
    page.locator("#search-results li a").first.click()
    page.wait_for_url(f"{address}/book/**")
    assert words.lower() in page.locator("article").inner_text().lower()


@pytest.mark.parametrize(
    "name", ["glossary.html#term-lora", "troubleshooting.html#lacks-tensors"]
)
def test_entries_can_be_linked(name: str, page: Page, address: str) -> None:
    page.goto(f"{address}/book/{name}", wait_until="load")
    entry = page.locator(f"[id='{name.partition('#')[2]}']")
    assert entry.count() == 1
    link = page.locator(f"a.headerlink[href$='#{name.partition('#')[2]}']")
    assert link.count() == 1


def test_the_index_leads_to_sections(page: Page, address: str) -> None:
    page.goto(f"{address}/book/terms.html", wait_until="load")
    entry = page.locator("ul.places li", has_text="Temperature").first
    entry.locator("a", has_text=re.compile(r"^9\.\d+$")).first.click()
    page.wait_for_url(f"{address}/book/09-*#*")


def test_the_first_tab_skips_to_the_text(page: Page, address: str) -> None:
    page.goto(f"{address}/{PAGES[0]}", wait_until="load")
    page.keyboard.press("Tab")
    assert "Skip" in page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    assert page.url.endswith("#main-content")


@pytest.mark.parametrize(
    "kind", ["article details:not(.hide)", "article details.hide"]
)
def test_what_is_folded_opens_with_enter(
    kind: str, page: Page, address: str, site: Path
) -> None:
    for name in PAGES:
        page.goto(f"{address}/{name}", wait_until="load")
        folded = page.locator(f"{kind} > summary")
        if folded.count() == 0:
            continue
        summary = folded.first
        assert summary.evaluate("s => s.tabIndex") == 0
        summary.focus()
        page.keyboard.press("Enter")
        assert summary.evaluate("s => s.parentElement.open")
        return
    pytest.fail("nothing is folded anywhere")

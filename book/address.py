"""A small Sphinx extension for a site that has an address.

`repository.url` in `_config.yml` says where the project lives, and GitHub
Pages derives the book's address from that. From the address follow what search
engines and previews of links read (canonical addresses, descriptions, a
picture, a site map) and a page for addresses that do not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from docutils import nodes

PICTURE = ("_static/sharing.png", 1200, 630)
BOOKS = ("PDF", "EPUB")  # the files gpt2.pdf and gpt2.epub of the site
LONGEST = 200  # characters of a description
LOST = "404"
LOST_TEXT = """<h1>There is no such page</h1>
<p>The address may be misspelled, or the page may have been renamed. The
<a href="{start}">introduction</a> leads to every chapter, and the
<a href="search.html">search</a> finds the rest.</p>"""


def pages_address(repository: str) -> str:
    """Return where GitHub Pages shows the site of a repository.

    Args:
        repository: Its address, `https://github.com/OWNER/NAME`.

    Raises:
        ValueError: It is another kind of address.
    """
    host, path = urlsplit(repository)[1:3]
    owner, _, name = path.strip("/").partition("/")
    if host != "github.com" or not name or "/" in name:
        raise ValueError(
            f"repository.url in _config.yml is {repository!r}, expected "
            "https://github.com/OWNER/NAME"
        )
    site = f"https://{owner.lower()}.github.io/"
    return site if site == f"https://{name.lower()}/" else f"{site}{name}/"


def description(page: nodes.Node) -> str:
    """Return the beginning of the first paragraph of a page, or ""."""
    for paragraph in page.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section):
            text = "".join(
                part.astext()
                for part in paragraph.findall(nodes.Text)
                if not isinstance(part.parent, nodes.raw)
            )
            return shortened(" ".join(text.split()))
    return ""


def shortened(text: str) -> str:
    """Cut a text after a word, so that it has at most 200 characters."""
    if len(text) <= LONGEST:
        return text
    words, _, _ = text[: LONGEST - 1].rpartition(" ")
    return words.rstrip(",;:.") + "…"


def meta_tags(site: str, book: str, title: str, url: str, text: str) -> str:
    """Return the tags of one page.

    Args:
        site: The address of the whole.
        book: Its title.
        title: The page's own title.
        url: The page's address.
        text: Its description; without one, there is no such tag.
    """
    path, width, height = PICTURE
    tags = {
        "og:type": "article",
        "og:site_name": book,
        "og:title": title,
        "og:url": url,
        "og:description": text,
        "og:image": site + path,
        "og:image:width": str(width),
        "og:image:height": str(height),
        "og:image:alt": "Causal attention weights, and the title of the book",
    }
    named = {"description": text, "twitter:card": "summary_large_image"}
    lines = [
        f'<meta {kind}="{key}" content="{escape(value)}" />'
        for kind, pairs in (("property", tags), ("name", named))
        for key, value in pairs.items()
        if value
    ]
    return "\n    ".join(["", *lines])


def site_map(addresses: list[str]) -> str:
    """Return the contents of `sitemap.xml`."""
    urls = "".join(
        f"<url><loc>{escape(url)}</loc></url>\n" for url in addresses
    )
    start = '<?xml version="1.0" encoding="UTF-8"?>\n'
    schema = "http://www.sitemaps.org/schemas/sitemap/0.9"
    return f'{start}<urlset xmlns="{schema}">\n{urls}</urlset>\n'


def begin(app: Any, config: Any) -> None:
    """Derive the address of the site from that of the repository."""
    repository = config.html_theme_options["repository_url"]
    config.html_baseurl = pages_address(repository)


def describe(
    app: Any, name: str, template: str, context: Any, page: Any
) -> None:
    """Give a page its tags, and its issue button the form."""
    if app.builder.name != "html":
        return
    site = app.config.html_baseurl
    if name == LOST:
        # It is shown at any address, so its links need a fixed start.
        context["metatags"] = f'\n    <base href="{site}" />'
        context["pageurl"] = None
    elif page is not None:
        title = unescape(re.sub("<[^>]*>", "", context["title"]))
        url, text = context["pageurl"], description(page)
        tags = meta_tags(site, app.config.html_title, title, url, text)
        context["metatags"] += tags
        fill_in_form(context["header_buttons"], url)
        offer_books(context["header_buttons"], site)


def fill_in_form(buttons: list[Any], url: str) -> None:
    """Let the issue button open the form, with the page filled in."""
    for button in buttons:
        fill_in_form(button.get("buttons", []), url)
        if button.get("label") == "source-issues-button":
            start, _, _ = button["url"].partition("?")
            fields = {"template": "page.yml", "page": url}
            button["url"] = f"{start}?{urlencode(fields)}"


def offer_books(buttons: list[Any], site: str) -> None:
    """Add the book in one file to the downloads."""
    for button in buttons:
        if button.get("label") == "download-buttons":
            button["buttons"] += [
                {
                    "type": "link",
                    "text": f"The book as {kind}",
                    "tooltip": f"Download the whole book as {kind}",
                    "icon": "fas fa-book",
                    "url": f"{site}gpt2.{kind.lower()}",
                    "label": f"download-book-{kind.lower()}",
                }
                for kind in BOOKS
            ]


def lost_page(app: Any) -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield the page for addresses that do not exist."""
    start = app.builder.get_target_uri(app.config.root_doc)
    body = LOST_TEXT.format(start=start)
    yield LOST, {"title": "There is no such page", "body": body}, "page.html"


def finish(app: Any, error: Exception | None) -> None:
    """Write the site map."""
    if error is None and app.builder.name == "html":
        uri, site = app.builder.get_target_uri, app.config.html_baseurl
        pages = [site + uri(name) for name in sorted(app.env.found_docs)]
        path = Path(app.outdir, "sitemap.xml")
        path.write_text(site_map(pages), encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register all of this with Sphinx."""
    app.connect("config-inited", begin)
    # The theme makes its buttons at 501.
    app.connect("html-page-context", describe, priority=600)
    app.connect("html-collect-pages", lost_page)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

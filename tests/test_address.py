"""What the site has because it has an address."""

from __future__ import annotations

import re
import struct
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import test_site
from address import (
    LONGEST,
    PICTURE,
    description,
    fill_in_form,
    pages_address,
    shortened,
    site_map,
)
from book_rules import REPOSITORY
from docutils.core import publish_doctree
from test_site import PAGES

pytestmark = pytest.mark.xdist_group("site")
site = test_site.site
SITE = pages_address(REPOSITORY)


@pytest.mark.parametrize(
    ("repository", "address"),
    [
        ("https://github.com/Some-One/a.book", "some-one.github.io/a.book/"),
        ("https://github.com/some-one/book/", "some-one.github.io/book/"),
        ("https://github.com/Me/me.github.io", "me.github.io/"),
    ],
)
def test_the_address_of_a_repositorys_site(
    repository: str, address: str
) -> None:
    assert pages_address(repository) == f"https://{address}"


@pytest.mark.parametrize(
    "repository",
    [
        "https://gitlab.com/me/book",
        "https://github.com/me",
        "https://github.com/me/book/tree/main",
    ],
)
def test_an_address_that_is_none_of_githubs(repository: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repository)):
        pages_address(repository)


def test_a_description_is_the_first_paragraph_in_plain_words() -> None:
    text = """
.. note:: Not this.

.. role:: raw-html(raw)
   :format: html

Two *emphasised*
words.\\ :raw-html:`<a>`

Not this either.
"""
    page = publish_doctree(f"Title\n=====\n{text}\nB\n=\n{text}")
    assert description(page) == "Two emphasised words."
    assert description(publish_doctree("")) == ""


def test_a_long_description_ends_after_a_word() -> None:
    assert shortened("word " * 40) == "word " * 40  # 200 characters
    cut = shortened("word, " * 40)
    assert cut == ("word, " * 33)[:-2] + "…"
    assert len(cut) <= LONGEST


def test_the_issue_button_opens_the_form() -> None:
    old = "https://github.com/a/b/issues/new?title=Issue%20on%20page"
    other = {"label": "source-edit-button", "url": old}
    issue = {"label": "source-issues-button", "url": old}
    buttons: list[Any] = [{"label": "group", "buttons": [other, issue]}]
    fill_in_form(buttons, "https://x.org/p.html?a&b")
    assert other["url"] == old
    assert issue["url"] == (
        "https://github.com/a/b/issues/new?template=page.yml"
        "&page=https%3A%2F%2Fx.org%2Fp.html%3Fa%26b"
    )


def test_a_site_map_is_xml() -> None:
    tree = ElementTree.fromstring(site_map(["https://x.org/a&b", "c"]))
    assert [url.text for url in tree.iter() if url.tag.endswith("loc")] == [
        "https://x.org/a&b",
        "c",
    ]


def meta(html: str) -> dict[str, str]:
    found = re.findall(
        r'<meta (?:property|name)="([\w:]+)" content="([^"]*)" />', html
    )
    return dict(found)


def test_every_page_says_where_it_lives_and_what_it_is(site: Path) -> None:
    descriptions = set()
    for name in PAGES:
        html = (site / name).read_text("utf-8")
        assert f'<link rel="canonical" href="{SITE}{name}" />' in html
        tags = meta(html)
        assert tags["og:url"] == SITE + name
        assert tags["og:title"]
        assert tags["description"] == tags["og:description"]
        assert 20 < len(tags["description"]) < 1.5 * LONGEST  # some escaped
        descriptions.add(tags["description"])
        assert "issues/new?template=page.yml&page=" in unescape(html)
    assert len(descriptions) == len(PAGES)


def test_the_picture_for_sharing_is_there(site: Path) -> None:
    tags = meta((site / PAGES[0]).read_text("utf-8"))
    name, *size = PICTURE
    assert tags["og:image"] == SITE + name
    head = (site / name).read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert list(struct.unpack(">II", head[16:])) == size


def test_the_site_map_has_every_page(site: Path) -> None:
    tree = ElementTree.parse(site / "sitemap.xml")
    found = [url.text for url in tree.iter() if url.tag.endswith("loc")]
    assert sorted(found) == sorted(SITE + name for name in PAGES)


def test_a_lost_page_leads_back_from_anywhere(site: Path) -> None:
    html = (site / "404.html").read_text("utf-8")
    head, _, _ = html.partition("<title>")
    assert f'<base href="{SITE}" />' in head  # before anything that it moves
    assert f'href="{PAGES[0]}"' in html
    assert 'rel="canonical"' not in html
    links = test_site.Anchors(html).links
    assert not [link for link in links if link.startswith(("/", ".."))]

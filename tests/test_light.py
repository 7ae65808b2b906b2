"""What makes the pages light, on small examples; the site is in test_site."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import light
import pytest
import tinycss2

SCRIPT = (
    'var a={github:[496,512,[],"f09b","M1 2"],list:[512,512,[],"f03a","M3"]};'
    'var b={list:[512,500,["list-squares"],"f03a","M5 6"]};'
)


def test_the_filled_icon_counts_and_other_names_are_known() -> None:
    icons = light.drawings(SCRIPT)
    assert icons["list"] == ("512", "500", "M5 6")
    assert icons["list-squares"] == icons["list"]
    assert icons["github"] == ("496", "512", "M1 2")


def test_an_icon_keeps_its_classes_and_is_silent() -> None:
    svg = light.drawn("fa-solid  fa-list", light.drawings(SCRIPT))
    assert 'class="icon fa-solid fa-list"' in svg
    assert 'viewBox="0 0 512 500"' in svg
    assert 'aria-hidden="true"' in svg
    assert 'd="M5 6"' in svg


def test_an_unknown_icon_is_named() -> None:
    with pytest.raises(ValueError, match="fa-unicorn"):
        light.drawn("fa-solid fa-unicorn", light.drawings(SCRIPT))


@pytest.mark.parametrize(
    "rule, kept",
    [
        (".a{x:1}", ".a{x:1}"),
        (".b{x:1}", ""),
        (".a .b,.a>p{x:1}", ".a>p{x:1}"),
        ("p:not(.b){x:1}", "p:not(.b){x:1}"),
        ("p:is(.a,.b) q{x:1}", "p:is(.a,.b) q{x:1}"),
        ("#b{x:1}", ""),
        ("@media print{.b{x:1}}", ""),
        ("@media print{.a{x:1}.b{x:1}}", "@media print{.a{x:1}}"),
        ("@keyframes k{from{x:1}}", "@keyframes k{from{x:1}}"),
        ("@font-face{src:url(a)}", ""),
        (r".a\:b{x:1}", r".a\:b{x:1}"),
    ],
)
def test_only_rules_that_can_apply_are_kept(rule: str, kept: str) -> None:
    rules = tinycss2.parse_stylesheet(rule)
    assert "".join(light.used(rules, {"a", "a:b"})) == kept


def test_imports_are_put_in_and_links_still_lead_there(tmp_path: Path) -> None:
    styles = tmp_path / "_static" / "styles"
    styles.mkdir(parents=True)
    (styles / "theme.css").write_text('@import "../basic.css";\n.b{}')
    (tmp_path / "_static" / "basic.css").write_text(
        ".a{background:url(file.png)} .c{background:url(data:x)}"
    )
    assert light.imported(tmp_path, "_static/styles/theme.css") == (
        ".a{background:url(../file.png)} .c{background:url(data:x)}\n.b{}"
    )


def test_words_are_those_of_pages_and_of_small_scripts(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p class="one two" id="three">four</p>')
    (tmp_path / "a.js").write_text('e.classList.add("five-six")')
    (tmp_path / "b.js").write_text("seven " * light.LARGEST)
    words = light.words_of(tmp_path)
    assert {"one", "two", "three", "five-six"} <= words
    assert not {"four", "seven"} & words


def test_a_second_build_leaves_the_style_sheet_alone(tmp_path: Path) -> None:
    """Nothing is out of date then, and Sphinx writes no page."""
    (tmp_path / "index.md").write_text("# A page\n\nWith a word.\n")
    (tmp_path / "conf.py").write_text(
        "extensions = ['myst_parser', 'light']\n"
        "html_theme = 'sphinx_book_theme'\n"
    )
    site = tmp_path / "site"
    sheets = []
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-m", "sphinx", "-q", str(tmp_path), str(site)],
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(light.__file__).parent)},
        )
        sheets.append((site / light.BUNDLE).read_text(encoding="utf-8"))
    assert sheets[0] == sheets[1]
    assert ".bd-article" in sheets[0]

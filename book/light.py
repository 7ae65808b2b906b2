"""A small Sphinx extension that makes the pages light.

The theme lets every page wait for a script of 1.5 MB that draws its icons,
for eight style sheets, one of which has most of Bootstrap, and for scripts
that are needed later. Here, icons are drawn when the book is built, what the
book uses of the style sheets becomes one, scripts wait until the page is
there, and pages without a formula do not load MathJax.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import tinycss2
from sphinx.jinja2glue import BuiltinTemplateLoader

BUNDLE = "_static/styles/all.css"
OWN = "_static/style.css"  # the book's own, of which nothing is left out
ICONS = "_static/scripts/fontawesome.js"
LARGEST = 200_000  # bytes of a script; larger are MathJax and the models
CREDIT = "/* The icons are those of Font Awesome Free, CC BY 4.0. */\n"

STYLE_SHEET = re.compile(
    r'\s*<link [^>]*?href="([^"]*?)(_static/[^"?]*\.css)([^"]*)"[^>]*>'
)
DROPPED = re.compile(
    r'\s*<link rel="preload" as="script"[^>]*>'
    rf'|\s*<script src="[^"]*{ICONS}[^>]*></script>'
    r"|\s*<script>DOCUMENTATION_OPTIONS.pagename[^<]*</script>"
    r"|\s*<!--[^>]*(?:custom icons|load fully later)[^>]*-->"
)
MATHJAX = re.compile(
    r"\s*<script>window.MathJax = .*?</script>"
    r'|\s*<script [^>]*src="[^"]*/mathjax/[^>]*></script>'
)
FORMULA = re.compile(r'class="(?:\w+ )*math[ "]')
SCRIPT = re.compile(r"<script (?=src=)")
ICON = re.compile(
    r'<(i|span) class="([^"]*\bfa-[^"]*)"((?: data-mode="\w+")?)[^>]*></\1>'
)
DRAWING = re.compile(
    r'[{,]"?([a-z\d-]+)"?:\[(\d+),(\d+),\[([^]]*)\],"\w+","([^"]+)"\]'
)
DROPPED_RULES = ("charset", "font-face")  # the only fonts are those of icons
IMPORT = re.compile(r'@import "([^"]*)";')
URL = re.compile(r'\burl\((?!["\']?data:)["\']?([^"\')]+)["\']?\)')
FUNCTION = re.compile(r":(?:not|is|where|has)\([^)]*\)")
NAME = re.compile(r"[.#](-?[A-Za-z_](?:[\w-]|\\.)*)")


def drawings(script: str) -> dict[str, tuple[str, str, str]]:
    """Return width, height and path of each icon in the theme's script.

    A name that is there twice means the icon that is filled.
    """
    found = {}
    for name, width, height, others, path in DRAWING.findall(script):
        for each in (name, *re.findall(r'"([a-z\d-]+)"', others)):
            found[each] = (width, height, path)
    return found


def drawn(
    classes: str, icons: dict[str, tuple[str, str, str]], mode: str = ""
) -> str:
    """Return an icon as SVG.

    Args:
        classes: The classes that name it, such as `fa-solid fa-list`.
        icons: From `drawings`.
        mode: The attribute that says which mode, light or dark, it stands for.

    Raises:
        ValueError: No icon has one of the names.
    """
    names = [c[3:] for c in classes.split() if c[3:] in icons]
    if not names:
        raise ValueError(f"the theme has no icon {classes!r}")
    width, height, path = icons[names[0]]
    kept = " ".join(classes.split())
    return (
        f'<svg class="icon {kept}"{mode} viewBox="0 0 {width} {height}" '
        f'aria-hidden="true"><path fill="currentColor" d="{path}"/></svg>'
    )


def imported(folder: Path, name: str) -> str:
    """Return a style sheet with what it imports, for the bundle's folder."""
    text = (folder / name).read_text(encoding="utf-8")
    here, there = posixpath.dirname(name), posixpath.dirname(BUNDLE)

    def put_in(found: re.Match[str]) -> str:
        return imported(folder, posixpath.normpath(f"{here}/{found[1]}"))

    def move(found: re.Match[str]) -> str:
        target = posixpath.normpath(f"{here}/{found[1]}")
        return f"url({posixpath.relpath(target, there)})"

    return IMPORT.sub(put_in, URL.sub(move, text))


def used(rules: list[Any], words: set[str]) -> Iterator[str]:
    """Yield the rules that can apply to a page with these classes and ids.

    What stands in `:not(…)`, `:is(…)` and the like is not looked at, so a
    rule too many may be kept.
    """
    for rule in rules:
        if rule.type == "qualified-rule":
            selectors = [
                text
                for text in _parts(rule.prelude)
                if all(
                    name.replace("\\", "") in words
                    for name in NAME.findall(FUNCTION.sub("", text))
                )
            ]
            if selectors:
                body = tinycss2.serialize(rule.content).strip()
                yield f"{','.join(selectors)}{{{body}}}"
        elif getattr(rule, "lower_at_keyword", "") in ("media", "supports"):
            inner = "".join(used(_parsed(rule.content), words))
            if inner:
                head = tinycss2.serialize(rule.prelude)
                yield f"@{rule.at_keyword}{head}{{{inner}}}"
        elif getattr(rule, "lower_at_keyword", "") not in DROPPED_RULES:
            yield rule.serialize()


def _parts(prelude: list[Any]) -> list[str]:
    """Split a list of selectors at its commas."""
    parts: list[list[Any]] = [[]]
    for token in prelude:
        if token == ",":
            parts.append([])
        elif token.type != "comment":
            parts[-1].append(token)
    return [tinycss2.serialize(part).strip() for part in parts]


def _parsed(content: str | list[Any]) -> list[Any]:
    return tinycss2.parse_rule_list(
        content, skip_comments=True, skip_whitespace=True
    )


def words_of(site: Path) -> set[str]:
    """Return the classes and ids of all pages, and the words of scripts.

    A script that gives an element a class has the class's name in it.
    """
    words: set[str] = set()
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for value in re.findall(r'\b(?:class|id)="([^"]*)"', text):
            words.update(value.split())
    for script in site.rglob("*.js"):
        if script.stat().st_size <= LARGEST:
            text = script.read_text(encoding="utf-8")
            words.update(re.findall(r"[\w-]+", text))
    return words


class Templates(BuiltinTemplateLoader):
    """Fills in the theme's templates, and makes the result light."""

    def init(self, builder: Any, *about: Any, **more: Any) -> None:
        """Get ready for a builder."""
        super().init(builder, *about, **more)
        self.builder = builder
        self.styles: dict[str, None] = {}  # in order

    @cached_property
    def icons(self) -> dict[str, tuple[str, str, str]]:
        """What the theme's script can draw."""
        script = Path(self.builder.outdir, ICONS)
        return drawings(script.read_text(encoding="utf-8"))

    def render(self, template: str, context: Any) -> str:
        """Return a page."""
        page = super().render(template, context)
        head, end, rest = page.partition("</head>")
        if self.builder.name != "html" or not end:
            return page  # or a part of one
        found = STYLE_SHEET.findall(head)
        self.styles.update(dict.fromkeys(name for _, name, _ in found))
        # What Sphinx puts after a name changes when the file does.
        version = hashlib.sha256(repr(found).encode()).hexdigest()[:8]
        link = f"{found[0][0]}{BUNDLE}?v={version}"
        head = STYLE_SHEET.sub("", DROPPED.sub("", head))
        if not FORMULA.search(rest):
            head = MATHJAX.sub("", head)
        head += f'<link rel="stylesheet" href="{link}" />\n  '
        return (
            SCRIPT.sub("<script defer ", head)
            + end
            + ICON.sub(
                lambda icon: drawn(icon[2], self.icons, icon[3]),
                SCRIPT.sub("<script defer ", rest),
            )
        )


def finish(app: Any, error: Exception | None) -> None:
    """Write the one style sheet, and remove what no page asks for."""
    if error is not None or app.builder.name != "html":
        return
    if not app.builder.templates.styles:
        return  # no page was out of date, so everything is there already
    site = Path(app.outdir)
    words = words_of(site)
    texts = [CREDIT]
    for name in app.builder.templates.styles:
        text = imported(site, name)
        if name != OWN:
            text = "\n".join(used(_parsed(text), words))
        texts.append(text)
    (site / BUNDLE).write_text("\n".join(texts), encoding="utf-8")
    (site / ICONS).unlink()


def begin(app: Any, config: Any) -> None:
    """Let the pages be rendered here."""
    config.template_bridge = f"{__name__}.{Templates.__name__}"


def setup(app: Any) -> dict[str, bool]:
    """Register all of this with Sphinx."""
    app.connect("config-inited", begin)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

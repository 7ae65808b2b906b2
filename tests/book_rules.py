"""The rules that every notebook of the book follows.

A rule takes a chapter and yields a sentence for every place that breaks it.
`test_book.py` applies the rules to the book, and tests the rules themselves.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import entries
import nbformat
import sync
import yaml
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
LABELS = ("predict", "derive", "modify", "measure")
TAGS = {
    "hide-cell",
    "hide-input",
    "nbval-ignore-output",
    "raises-exception",
    "solution",
}
HIDDEN = {"source_hidden": True, "outputs_hidden": True}  # in JupyterLab
LAST_SECTIONS = [
    "Check it against the package",
    "Summary",
    "Exercises",
    "Further reading",
]
# Only _config.yml names the project's repository.
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
REPOSITORY: str = CONFIG["repository"]["url"]
FIRST_LINES = f"""import sys

if "google.colab" in sys.modules:
    %pip install -q git+{REPOSITORY}

"""
SEEDED = (
    "drawing.use_style()",
    "torch.manual_seed(0)",
    "torch.set_printoptions(precision=4, sci_mode=False)",
)
# Only these may give another output in another run: measurements, downloads,
# and a look into the cache of downloads.
VARYING = (
    r"perf_counter|timeit|tracemalloc|getrusage|max_memory"
    r"|download|hub\.cached|from_cache\("
)
NOT_MARKDOWN = re.compile(
    r"^\s*(```\{|:::|\([\w-]+\)=\s*$)"  # directives and their labels
    r"|(?<!`)\{[\w:.+-]+\}`[^`\s]",  # roles
    re.MULTILINE,
)
LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(<?([^()\s>]+(?:\([^()\s]*\))?)>?\)")
URL = re.compile(r"https?://[^\s<>\")\]]+")
# The kinds of exercises that check themselves, and the call to the checker.
CHECKED = ("derive", "modify")
CHECK = re.compile(r"""\bcheck\("([^"]*)",""")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)


@dataclass
class Chapter:
    """A notebook and its path."""

    path: Path

    @cached_property
    def cells(self) -> list[Any]:
        return list(nbformat.read(self.path, as_version=4).cells)

    @cached_property
    def code(self) -> list[tuple[int, Any]]:
        return [x for x in self.numbered if x[1].cell_type == "code"]

    @property
    def numbered(self) -> list[tuple[int, Any]]:
        return list(enumerate(self.cells, start=1))

    @property
    def is_numbered(self) -> bool:
        """Return whether it is a chapter, and not a notebook to look up."""
        return self.path.name[0].isdigit()

    @property
    def prose(self) -> str:
        return prose(self.path)

    def section(self, title: str) -> str:
        """Return the text under a heading of level 2."""
        parts = re.split(r"^## (.+)$", self.prose, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True)).get(title, "")


def prose(path: Path) -> str:
    """Return the Markdown of a notebook or a page."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(c.source for c in cells if c.cell_type == "markdown")


def tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", []))


def up_to_date(chapter: Chapter) -> Iterator[str]:
    for problem in sync.drift(chapter.path):
        yield f"{problem}; run `make sync`"


def shows_no_accident(chapter: Chapter) -> Iterator[str]:
    """No unintended errors, no warnings, no paths of a machine."""
    for number, cell in chapter.code:
        kinds = {output.output_type for output in cell.outputs}
        meant = "raises-exception" in tags(cell)
        if "error" in kinds and not meant:
            yield f"cell {number} stores an error; tag it if it is meant"
        if meant and "error" not in kinds:
            yield f"cell {number} is tagged raises-exception and raises none"
        for output in cell.outputs:
            if output.get("name") == "stderr":
                yield f"cell {number} stores output to stderr"
            for folder in (ROOT, Path.home()):
                if f"{folder}/" in str(output):
                    yield f"cell {number} shows a path of this machine"


def is_short(chapter: Chapter) -> Iterator[str]:
    in_a_row = 0
    for number, cell in chapter.numbered:
        if cell.cell_type != "code":
            in_a_row = 0
            continue
        lines = cell.source.removeprefix(FIRST_LINES).splitlines()
        if len(lines) > 25 and "sync" not in cell.metadata:
            yield f"cell {number} has {len(lines)} lines, more than 25"
        for line in lines:
            if len(line) > 79:
                yield f"cell {number} is wider than 79 columns: {line}"
        in_a_row += "solution" not in tags(cell)
        if in_a_row > 2:
            yield f"cell {number} is the third of code without prose"


def has_its_parts(chapter: Chapter) -> Iterator[str]:
    first, *_ = chapter.cells
    if not first.source.startswith("# "):
        yield "it does not begin with a title, `# ...`"
    titles = re.findall(r"^# .+$", chapter.prose, flags=re.MULTILINE)
    if len(titles) > 1:
        yield f"it has more than one title: {titles}"
    before, *_ = chapter.prose.partition("\n## ")
    if "**What you need before:**" not in before:
        yield "it does not say what the reader needs before"
    _, start = chapter.code[0]
    if not start.source.startswith(FIRST_LINES):
        yield f"the first cell of code does not begin with {FIRST_LINES}"
    for line in SEEDED:
        if line not in start.source.splitlines():
            yield f"the first cell of code lacks {line}"
    if not chapter.is_numbered:
        return
    sections = re.findall(r"^## (.+)$", chapter.prose, flags=re.MULTILINE)
    if sections[-4:] != LAST_SECTIONS or len(sections) < 5:
        yield f"its last sections are not {LAST_SECTIONS} but {sections[-4:]}"
    bullets = re.findall(r"^[-*] ", chapter.section("Summary"), re.MULTILINE)
    if not 1 <= len(bullets) <= 5:
        yield f"its summary has {len(bullets)} bullets, not one to five"


def has_exercises(chapter: Chapter) -> Iterator[str]:
    """At least four exercises, numbered, each with a hint and a solution."""
    if not chapter.is_numbered and not chapter.section("Exercises"):
        return
    own = f"{int(chapter.path.name[:2])}." if chapter.is_numbered else ""
    parts: list[tuple[str, list[Any]]] = []
    for cell in chapter.cells:
        headings = re.findall(r"^#{2,3} (.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and headings:
            parts.append((headings[-1], [cell]))
        elif parts:
            parts[-1][1].append(cell)
    exercises = [part for part in parts if part[0].startswith("Exercise ")]
    if len(exercises) < 4:
        yield f"it has {len(exercises)} exercises, fewer than four"
    for n, (heading, cells) in enumerate(exercises, start=1):
        number = f"{own}{n}"
        label = "|".join(LABELS)
        form = rf"Exercise {re.escape(number)} \(({label})\): \S.*"
        match = re.fullmatch(form, heading)
        if not match:
            yield f"{heading!r} is not `Exercise {number} (predict): ...`"
        elif match[1] in CHECKED:
            yield from checks_itself(heading, cells)
        if not any(folded(cell, "Hint") for cell in cells):
            yield f"{heading!r} has no hint in a cell of its own"
        solutions = [c for c in cells if "solution" in tags(c)]
        if not solutions and not any(folded(c, "Solution") for c in cells):
            yield f"{heading!r} has no solution"
        for cell in solutions:
            shown = cell.metadata.get("mystnb", {}).get("code_prompt_show")
            hidden = cell.metadata.get("jupyter", {}) == HIDDEN
            if "hide-cell" not in tags(cell) or not shown or not hidden:
                yield f"the solution of {heading!r} is not hidden everywhere"
            if "assert" not in cell.source and not may_vary(cell):
                yield f"the solution of {heading!r} asserts nothing"


def checks_itself(heading: str, cells: list[Any]) -> Iterator[str]:
    """The text names the checker, and the solution passes it."""
    _, _, text = cells[0].source.partition(f"### {heading}")
    named = CHECK.findall(text)
    called = [
        (name, cell)
        for cell in cells
        if cell.cell_type == "code" and "solution" in tags(cell)
        for name in CHECK.findall(cell.source)
    ]
    if len(named) != 1:
        yield f'the text of {heading!r} does not name one `check("...", ...)`'
    elif [name for name, _ in called] != named:
        yield f'the solution of {heading!r} does not call `check("{named[0]}"'
    for name, cell in called:
        last = cell.source.splitlines()[-1]
        if not last.startswith(f'check("{name}", '):
            yield f"the solution of {heading!r} does not end with its check"
        if f"{name}: right" not in str(cell.outputs):
            yield f"the solution of {heading!r} does not show that it is right"


def folded(cell: Any, title: str) -> bool:
    """Return whether a cell is one `<details>`, with its blank lines."""
    start, end = f"<details><summary>{title}</summary>\n\n", "\n\n</details>"
    return bool(cell.source.startswith(start) and cell.source.endswith(end))


def has_figures(chapter: Chapter) -> Iterator[str]:
    """Figures are described, named, and next to an assertion.

    A chapter has at least two; on a page to look things up, none may be best.
    """
    n_figures = 0
    code = [cell for _, cell in chapter.code]
    for position, (number, cell) in enumerate(chapter.code):
        kinds = {kind for o in cell.outputs for kind in o.get("data", {})}
        for kind in kinds & {"image/png", "image/jpeg"}:
            yield f"cell {number} shows {kind}, not {sync.SVG}"
        drawn = sync.SVG in kinds
        about = cell.metadata.get("mystnb", {})
        if not drawn:
            if "figure" in about:
                yield f"cell {number} names a figure and shows none"
            continue
        n_figures += 1
        figure, image = about.get("figure", {}), about.get("image", {})
        if not re.fullmatch(r"fig-[a-z0-9-]+", figure.get("name", "")):
            yield f"the figure of cell {number} has no name like fig-chapter-x"
        if len(figure.get("caption", "")) < 10:
            yield f"the figure of cell {number} has no caption"
        if len(image.get("alt", "")) < 20:
            yield f"the figure of cell {number} has no proper alt text"
        if "plt.show()" not in cell.source:
            yield f"the figure of cell {number} does not call plt.show()"
        around = code[max(position - 1, 0) : position + 2]
        if not any("assert" in neighbour.source for neighbour in around):
            yield f"no assertion is next to the figure of cell {number}"
    if n_figures < 2 and chapter.is_numbered:
        yield f"it has {n_figures} figures, fewer than two"


def figure_names(chapter: Chapter) -> list[str]:
    about = [cell.metadata.get("mystnb", {}) for _, cell in chapter.code]
    return [a["figure"]["name"] for a in about if "figure" in a]


def may_vary(cell: Any) -> bool:
    return "nbval-ignore-output" in tags(cell)


def is_compared(chapter: Chapter) -> Iterator[str]:
    """All outputs are compared, except measurements and downloads."""
    varying, measured = VARYING, set[str]()
    for number, cell in chapter.code:
        used, assigned = names_in(cell.source)
        if unknown := tags(cell) - TAGS:
            yield f"cell {number} has unknown tags: {unknown}"
        if re.search("nbval", cell.source, flags=re.IGNORECASE):
            yield f"cell {number} addresses nbval in its source; use tags"
        if re.search(varying, cell.source):
            # A cell that calls a function that measures, measures too.
            for name in re.findall(r"^def (\w+)", cell.source, re.MULTILINE):
                varying += rf"|\b{name}\("
        elif may_vary(cell) and not used & measured:
            yield f"cell {number} is not compared, but measures nothing"
        if may_vary(cell):  # what is drawn from its numbers varies too
            measured |= assigned


def names_in(source: str) -> tuple[set[str], set[str]]:
    """Return the names that a cell uses, and those that it assigns."""
    tree = ast.parse(TransformerManager().transform_cell(source))  # `%pip`
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    assigned = {n.id for n in found if isinstance(n.ctx, ast.Store)}
    return {n.id for n in found} - assigned, assigned


def is_plain_markdown(chapter: Chapter) -> Iterator[str]:
    """No directives or roles: Colab, GitHub and Jupyter do not render them."""
    for number, cell in chapter.numbered:
        found = NOT_MARKDOWN.search(cell.source)
        if cell.cell_type == "markdown" and found:
            yield f"cell {number} has a directive or role: {found[0].strip()}"


def has_good_links(path: Path) -> Iterator[str]:
    """No broken links, and no external links missing from references.md."""
    text = CODE.sub("", prose(path))
    for url in URL.findall((path.parent / "references.md").read_text("utf-8")):
        text = re.sub(re.escape(url) + r"(?=[\s<>\")\]])", "", text)
    for url in URL.findall(text):
        if not url.startswith(REPOSITORY):
            yield f"{url} is not in references.md"
    for image, words, target in LINK.findall(text):
        if not target or target.startswith(("http", "mailto:")):
            continue
        if image and not words:
            yield f"the image {target} has no alt text"
        file, _, anchor = target.partition("#")
        goal = path.parent / file if file else path
        if not goal.is_file():
            yield f"{target} points to no file"
        elif anchor and anchor not in anchors(goal):
            yield f"{target} points to no heading or figure"


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page: headings, figures, and entries."""
    headings = re.findall(r"^#{1,3} (.+)$", prose(path), flags=re.MULTILINE)
    found = {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        for heading in headings
    }
    if path.suffix == ".ipynb":
        found.update(figure_names(Chapter(path)))
    elif (prefix := entries.PREFIXES.get(f"book/{path.stem}")) is not None:
        for names in re.findall(r"^\*\*(.+?)\*\*", prose(path), re.MULTILINE):
            own = names.rstrip(".").split(", ") if prefix else [names]
            found.update(entries.anchor(name, prefix) for name in own)
    return found


RULES: list[Callable[[Chapter], Iterator[str]]] = [
    up_to_date,
    shows_no_accident,
    is_short,
    has_its_parts,
    has_exercises,
    has_figures,
    is_compared,
    is_plain_markdown,
]


def pages_of_the_toc() -> list[Path]:
    """Return the pages and notebooks in the order of the contents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = toc.get("parts", [toc])
    chapters = [c for part in parts for c in part.get("chapters", [])]
    pages = []
    for name in [toc["root"], *(chapter["file"] for chapter in chapters)]:
        notebook = ROOT / f"{name}.ipynb"
        pages.append(notebook if notebook.is_file() else ROOT / f"{name}.md")
    return pages

"""The stored book: its order, its sources, its form and its links.

nbval compares the outputs of the cells, but only those of cells that were run;
these tests ensure that every cell was.
"""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import sync
from book_rules import (
    BOOK,
    CHECKED,
    FIRST_LINES,
    HIDDEN,
    LABELS,
    ROOT,
    RULES,
    SEEDED,
    Chapter,
    figure_names,
    has_good_links,
    pages_of_the_toc,
)
from nbformat import NotebookNode
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
)

import gpt2
from gpt2_book.exercises.checking import CHECKERS

PAGES = pages_of_the_toc()
NOTEBOOKS = [page for page in PAGES if page.suffix == ".ipynb"]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
every_notebook = pytest.mark.parametrize(
    "notebook", NOTEBOOKS, ids=lambda p: p.name
)
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda r: r.__name__)


@every_page
def test_the_contents_are_there(page: Path) -> None:
    assert page.is_file(), f"_toc.yml names {page.stem}, which does not exist"


def test_the_contents_are_complete() -> None:
    files = {p for p in BOOK.iterdir() if p.suffix in {".ipynb", ".md"}}
    assert files <= set(PAGES), "add these to _toc.yml, or remove them"
    assert len(PAGES) == len(set(PAGES))


@every_notebook
@every_rule
def test_the_rules(rule: Callable[..., Any], notebook: Path) -> None:
    problems = list(rule(Chapter(notebook)))
    assert not problems, "\n".join(problems)


@every_page
def test_links(page: Path) -> None:
    problems = list(has_good_links(page))
    assert not problems, "\n".join(problems)


def test_every_checker_is_called_somewhere() -> None:
    """Nobody would find a checker that no exercise names."""
    text = "\n".join(
        cell.source for book in NOTEBOOKS for cell in Chapter(book).cells
    )
    for name in CHECKERS:
        if not name.startswith("specimen-"):  # five, called in a loop
            assert f'check("{name}", ' in text, name
    assert 'check("specimen-a", ' in text


def test_figures_have_names_of_their_own() -> None:
    names = [n for book in NOTEBOOKS for n in figure_names(Chapter(book))]
    assert len(names) == len(set(names)), sorted(names)


@pytest.mark.parametrize("name", gpt2.__all__)
def test_every_public_name_is_shown(name: str) -> None:
    """A synced cell has its source, or the source of its methods."""
    home = getattr(gpt2, name).__module__
    assert any(
        re.search(rf"{home}:{name}\b", cell.metadata.get("sync", ""))
        for notebook in NOTEBOOKS
        for cell in Chapter(notebook).cells
    ), f'no cell shows it: add metadata {{"sync": "{home}:{name}"}} to one'


# The tests below show that the rules can fail: they break a correct chapter in
# one place each.

CAPTION = {
    "image": {"alt": "A line that rises from zero to one."},
    "figure": {"name": "fig-small-line", "caption": "A line that rises."},
}
SOLUTION = {
    "tags": ["hide-cell", "solution"],
    "jupyter": HIDDEN,
    "mystnb": {"code_prompt_show": "Show", "code_prompt_hide": "Hide"},
}
PACKAGE = '"""A package."""\n\n\ndef double(x):\n    return 2 * x\n'


def small_chapter() -> NotebookNode:
    """Return a chapter that follows all rules, as if it had been run."""
    picture = new_output("display_data", data={sync.SVG: "<svg/>"})
    figure = "assert True\nplt.show()"
    caption_2 = {**CAPTION, "figure": {**CAPTION["figure"], "name": "fig-b"}}
    cells = [
        new_markdown_cell("# Small\n\n**What you need before:** nothing."),
        new_code_cell(FIRST_LINES + "\n".join(SEEDED)),
        new_markdown_cell("## Doubling\n\nAs [they](https://a.org/b) do."),
        new_code_cell(
            "def double(x):\n    return 2 * x", metadata={"sync": "p.m:double"}
        ),
        new_code_cell(
            "print(double(21))",
            outputs=[new_output("stream", name="stdout", text="42\n")],
        ),
        new_markdown_cell("See [above](#doubling), [it](#fig-small-line)."),
        new_code_cell(figure, outputs=[picture], metadata={"mystnb": CAPTION}),
        new_code_cell(
            figure + " ", outputs=[picture], metadata={"mystnb": caption_2}
        ),
        new_markdown_cell("## Check it against the package\n\nIt is."),
        new_code_cell(
            "1 / 0",
            metadata={"tags": ["raises-exception"]},
            outputs=[new_output("error", ename="E", evalue="e", traceback=[])],
        ),
        new_markdown_cell("## Summary\n\n- It doubles.\n\n## Exercises"),
    ]
    for n, label in enumerate(LABELS, start=1):
        cells += small_exercise(n, label)
    cells.append(new_markdown_cell("## Further reading\n\n- nothing"))
    notebook = new_notebook(cells=cells)
    code = [cell for cell in cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    sync.normalise(notebook)
    return notebook


def small_exercise(n: int, label: str) -> list[NotebookNode]:
    """Return the cells of an exercise: its text, its hint and its solution."""
    text, solution, outputs = "Do.", f"assert double({n})", []
    if label in CHECKED:
        call = f'check("{label}-it", double)'
        text, solution = f"Do. Then call `{call}`.", f"{solution}\n{call}"
        data = {"text/plain": f"{label}-it: right."}
        outputs = [new_output("execute_result", data=data)]
    return [
        new_markdown_cell(f"### Exercise 7.{n} ({label}): some\n\n{text}"),
        new_markdown_cell(
            f"<details><summary>Hint</summary>\n\n{n}\n\n</details>"
        ),
        new_code_cell(
            solution, metadata=copy.deepcopy(SOLUTION), outputs=outputs
        ),
    ]


def problems(notebook: NotebookNode, folder: Path) -> list[str]:
    """Store a chapter next to a package, and apply every rule to it."""
    (folder / "p").mkdir(exist_ok=True)
    (folder / "p" / "m.py").write_text(PACKAGE)
    (folder / "references.md").write_text("<https://a.org/b>\n")
    path = folder / "07-small.ipynb"
    path.write_text(sync.written(notebook), encoding="utf-8")
    found = [p for rule in RULES[1:] for p in rule(Chapter(path))]
    return [*sync.drift(path, folder), *found, *has_good_links(path)]


def test_the_small_chapter_follows_the_rules(tmp_path: Path) -> None:
    assert problems(small_chapter(), tmp_path) == []


def set_source(index: int, source: str) -> Callable[[NotebookNode], None]:
    def change(notebook: NotebookNode) -> None:
        notebook.cells[index].source = source
        sync.normalise(notebook)

    return change


def add(index: int, text: str) -> Callable[[NotebookNode], None]:
    def change(notebook: NotebookNode) -> None:
        notebook.cells[index].source += text
        sync.normalise(notebook)

    return change


def set_tags(index: int, *tags: str) -> Callable[[NotebookNode], None]:
    def change(notebook: NotebookNode) -> None:
        notebook.cells[index].metadata["tags"] = list(tags)

    return change


def clear(notebook: NotebookNode) -> None:
    notebook.cells[4].outputs = []
    notebook.cells[4].execution_count = None


def drop(index: int) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells.pop(index)


def run_twice(notebook: NotebookNode) -> None:
    notebook.cells[4].execution_count = 7


def colab(notebook: NotebookNode) -> None:
    notebook.metadata["colab"] = {}


def stderr(notebook: NotebookNode) -> None:
    notebook.cells[4].outputs[0].name = "stderr"


def machine(notebook: NotebookNode) -> None:
    notebook.cells[4].outputs[0].text = f"{ROOT}/gpt2\n"


def undescribed(notebook: NotebookNode) -> None:
    notebook.cells[6].metadata["mystnb"]["image"] = {"alt": "line"}


def unnamed(notebook: NotebookNode) -> None:
    del notebook.cells[6].metadata["mystnb"]["figure"]


def in_pixels(notebook: NotebookNode) -> None:
    data = notebook.cells[6].outputs[0].data
    data["image/png"] = data.pop(sync.SVG)


def unhidden(notebook: NotebookNode) -> None:
    del notebook.cells[13].metadata["jupyter"]["outputs_hidden"]


def not_yet(notebook: NotebookNode) -> None:
    notebook.cells[16].outputs[0].data["text/plain"] = "derive-it: not yet: x."


LINE = "\nx = 1"
BITES: list[tuple[Callable[[NotebookNode], Any], str]] = [
    (clear, "not run from top to bottom"),
    (run_twice, "not run from top to bottom"),
    (colab, "not in normal form"),
    (add(3, " + 0"), "cell 4 differs from the package"),
    (set_tags(9), "cell 10 stores an error"),
    (set_tags(4, "raises-exception"), "cell 5 is tagged raises-exception"),
    (stderr, "cell 5 stores output to stderr"),
    (machine, "cell 5 shows a path of this machine"),
    (add(4, LINE * 25), "cell 5 has 26 lines"),
    (add(4, f"  # {'x' * 70}"), "cell 5 is wider than 79 columns"),
    (drop(5), "is the third of code without prose"),
    (set_source(0, "Hello"), "does not begin with a title"),
    (add(2, "\n\n# Another"), "more than one title"),
    (set_source(0, "# Small"), "does not say what the reader needs before"),
    (set_source(1, "\n".join(SEEDED)), "does not begin with import sys"),
    (set_source(1, FIRST_LINES), "lacks torch.manual_seed(0)"),
    (drop(8), "its last sections are not"),
    (
        add(10, "\n\n## Summary\n" + "\n- x" * 6 + "\n\n## Exercises"),
        "its summary has 6 bullets",
    ),
    (drop(11), "fewer than four"),
    (set_source(11, "### Exercise 7.1 (guess): x"), "is not `Exercise 7.1"),
    (drop(12), "has no hint"),
    (drop(13), "has no solution"),
    (unhidden, "is not hidden everywhere"),
    (set_source(13, "double(1)"), "asserts nothing"),
    (
        set_source(14, "### Exercise 7.2 (derive): x"),
        "does not name one `check",
    ),
    (add(14, '\n\nOr `check("x", 1)`.'), "does not name one `check"),
    (set_source(16, "assert 1"), 'does not call `check("derive-it"'),
    (
        set_source(16, 'assert 1\ncheck("modify-it", double)'),
        'does not call `check("derive-it"',
    ),
    (add(16, LINE), "does not end with its check"),
    (not_yet, "does not show that it is right"),
    (undescribed, "cell 7 has no proper alt text"),
    (unnamed, "cell 7 has no name"),
    (set_source(6, "assert True"), "cell 7 does not call plt.show()"),
    (drop(6), "it has 1 figures, fewer than two"),
    (in_pixels, "cell 7 shows image/png, not image/svg+xml"),
    (set_tags(4, "nbval-skip"), "cell 5 has unknown tags"),
    (add(4, "  # NBVAL_SKIP"), "cell 5 addresses nbval"),
    (set_tags(4, "nbval-ignore-output"), "cell 5 is not compared"),
    (add(2, "\n\n```{note}\nx\n```"), "cell 3 has a directive or role"),
    (add(2, " {cite}`x`"), "cell 3 has a directive or role"),
    (add(2, " https://a.org/c"), "https://a.org/c is not in references.md"),
    (add(2, " [a](https://a.org/bc)"), "https://a.org/bc is not in"),
    (add(2, " [x](08-none.ipynb)"), "08-none.ipynb points to no file"),
    (add(2, " [x](#none)"), "#none points to no heading or figure"),
    (add(2, " ![](references.md)"), "the image references.md has no alt"),
]


@pytest.mark.parametrize("change, complaint", BITES, ids=[b[1] for b in BITES])
def test_the_rules_bite(
    change: Callable[[NotebookNode], Any], complaint: str, tmp_path: Path
) -> None:
    notebook = small_chapter()
    change(notebook)
    assert any(complaint in p for p in problems(notebook, tmp_path))


def test_functions_that_measure_are_known(tmp_path: Path) -> None:
    notebook = small_chapter()
    add(1, "\ndef seconds(f):\n    start = perf_counter()")(notebook)
    set_tags(4, "nbval-ignore-output")(notebook)
    assert len(problems(notebook, tmp_path)) == 1  # it measures nothing yet
    add(4, "; seconds(double)")(notebook)
    assert problems(notebook, tmp_path) == []


def test_a_changed_package_is_caught(tmp_path: Path) -> None:
    problems(small_chapter(), tmp_path)
    (tmp_path / "p" / "m.py").write_text(PACKAGE.replace("2 * x", "x + x"))
    found = list(sync.drift(tmp_path / "07-small.ipynb", tmp_path))
    assert found == ["cell 4 differs from the package: p.m:double"]


def nbval(folder: Path, outputs: str) -> tuple[int, str]:
    """Let nbval run a notebook with one cell that stores this output."""
    cell = new_code_cell(
        "print(6 * 7)",
        execution_count=1,
        outputs=[new_output("stream", name="stdout", text=outputs)],
    )
    nbformat.write(new_notebook(cells=[cell]), folder / "a.ipynb")
    command = "-m pytest --nbval --nbval-current-env -p no:cacheprovider"
    done = subprocess.run(
        [sys.executable, *command.split(), "a.ipynb"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_nbval_catches_a_changed_digit(tmp_path: Path) -> None:
    code, output = nbval(tmp_path, "42\n")
    assert code == pytest.ExitCode.OK, output
    code, output = nbval(tmp_path, "43\n")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "43" in output

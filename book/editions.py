"""Make the notebooks that are worked in, from those that the book shows.

    python book/editions.py          # notebooks/, which `make lab` opens
    python book/editions.py --class  # class/students and class/teacher

The book's notebooks have been run, and they show every solution. In these,
each exercise has an empty cell and each *Try it yourself* a cell to fill in.
The solutions are in notebooks of their own, `solutions-NN-name.ipynb`, which
run alone. No outputs are kept: a cell shows something when it is run. Code
that only draws is folded, and captions stand below their figures.

Notebooks that are there already are left alone: somebody may have worked in
them.
"""

from __future__ import annotations

import argparse
import copy
import re
import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import nbformat
import sync
import yaml
from address import pages_address
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = sync.BOOK.parent
PLACE, CLASS = ROOT / "notebooks", ROOT / "class"
EXERCISE = re.compile(r"^### (Exercise [\d.]+)", re.MULTILINE)
HEADING = re.compile(r"^##+ ", re.MULTILINE)
CALL = re.compile(r"""`(check\("[^`]*\))`""")
TRY = re.compile(
    r"<details><summary>(Try it yourself[^<]*)</summary>\n\n"
    r"(.*?)```python\n(.*?)\n```\n\n</details>\s*",
    re.DOTALL,
)
WITH_SOLUTIONS = (
    "Each exercise has a cell for your answer. The solutions are in "
    "[a notebook of their own](solutions-{name}.ipynb)."
)
WITHOUT_SOLUTIONS = "Each exercise has a cell for your answer."
HOW_TO_SOLVE = """# {title}: solutions

These are the solutions to the exercises of [this chapter]({name}.ipynb), with
what they print. To run them, first run the next cell: it is all the code of
the chapter, and prints nothing."""

FOR_TEACHERS = "teaching"
# What students read in place of what the book says about solutions and about
# other ways to the notebooks, and of links out of their folder.
FOR_STUDENTS = (
    (
        r"Every exercise has a hint and a solution, folded away, and every "
        r"solution has been run\.",
        "Every exercise has a hint, folded away.",
    ),
    (
        r"(?s)(?<=## How to run it\n\n).*?(?=The \[notation\])",
        "Each chapter is a notebook; open it in JupyterLab. Nothing has been "
        "run yet: every exercise has an empty cell for your answer, and "
        "every *Try it yourself* a cell to fill in. ",
    ),
    (rf"\]\({FOR_TEACHERS}\.md\)", f"]({{site}}book/{FOR_TEACHERS}.html)"),
    (r"\]\(\.\./", "]({repository}/raw/main/"),
)


def for_students(text: str) -> str:
    """Return a text without what is not in the students' folder."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    repository = config["repository"]["url"]
    site = pages_address(repository)
    for old, new in FOR_STUDENTS:
        new = new.format(site=site, repository=repository)
        text = re.sub(old, new, text)
    return text


def reader(
    source: NotebookNode, name: str, solutions: bool = True
) -> NotebookNode:
    """Make the notebook to work in.

    Args:
        source: A notebook of the book; it is not changed.
        name: The name of its file, without `.ipynb`.
        solutions: Whether it says where the solutions are.
    """
    about = WITH_SOLUTIONS if solutions else WITHOUT_SOLUTIONS
    cells: list[NotebookNode] = []
    answered = ""
    for exercise, solving, cell in _parts(source):
        if not solving:
            cells += _to_work_in(cell, about.format(name=name))
        elif exercise != answered:
            answered = exercise
            cells.append(_answer(exercise))
    for before, cell in pairwise(cells):
        if "try" in _tags(before) and cell.cell_type == "code":
            _fold(cell)  # it is an answer
    return _finished(cells)


def solutions(source: NotebookNode, name: str) -> NotebookNode | None:
    """Make the notebook of the solutions, or None if there are none.

    Args:
        source: A notebook of the book; it is not changed.
        name: The name of its file, without `.ipynb`.
    """
    title, *_ = source.cells[0].source.removeprefix("# ").splitlines()
    code, cells = [], []
    for exercise, _, cell in _parts(source):
        if not exercise:
            fails = "raises-exception" in _tags(cell)
            if cell.cell_type == "code" and not fails:
                code.append(cell.source)
        elif EXERCISE.search(cell.source):
            cells.append(new_markdown_cell(exercise))
        elif not cell.source.startswith("<details>"):  # a hint
            cells += _with_caption(cell)
    if not cells:
        return None
    start = new_code_cell("%%capture\n" + "\n\n\n".join(code))
    _fold(start)
    about = HOW_TO_SOLVE.format(title=title, name=name)
    return _finished([new_markdown_cell(about), start, *cells])


def _parts(source: NotebookNode) -> Iterator[tuple[str, bool, NotebookNode]]:
    """Yield a copy of each cell, and what it belongs to.

    The text of the exercise, which is "" elsewhere, and whether the cell
    belongs to its solution: so does all that comes after it.
    """
    exercise, solving = "", False
    for cell in copy.deepcopy(source.cells):
        if cell.cell_type == "markdown" and HEADING.search(cell.source):
            found = EXERCISE.search(cell.source)
            exercise = cell.source[found.start() :] if found else ""
            solving = False
        solving = solving or "solution" in _tags(cell)
        yield exercise, solving, cell


def _tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def _fold(cell: NotebookNode) -> None:
    """Hide the source, in JupyterLab and in Colab."""
    cell.metadata["jupyter"] = {"source_hidden": True}
    cell.metadata["cellView"] = "form"


def _to_work_in(cell: NotebookNode, about: str) -> list[NotebookNode]:
    """Return the cells that stand for one of the book's."""
    if cell.cell_type == "markdown":
        text = cell.source.replace("## Exercises", f"## Exercises\n\n{about}")
        found = TRY.search(text)
        if not found:
            return [new_markdown_cell(text)]
        title, task, code = found.groups()
        before = f"{text[: found.start()]}**{title}.** {task}"
        after = text[found.end() :]
        to_fill = new_code_cell(code, metadata={"tags": ["try"]})
        rest = [new_markdown_cell(after)] if after else []
        return [new_markdown_cell(before.rstrip()), to_fill, *rest]
    cell.outputs = []
    return _with_caption(cell)


def _with_caption(cell: NotebookNode) -> list[NotebookNode]:
    """Return a cell, folded as in the book, and the caption of its figure."""
    tags = _tags(cell)
    figure = cell.metadata.get("mystnb", {}).get("figure", {})
    kept = [tag for tag in tags if tag == "raises-exception"]
    cell.metadata = NotebookNode({"tags": kept} if kept else {})
    if {"hide-input", "hide-cell"} & {*tags} and "solution" not in tags:
        _fold(cell)
    caption = figure.get("caption")
    return (
        [cell, new_markdown_cell(f"*Figure.* {caption}")]
        if caption
        else [cell]
    )


def _answer(exercise: str) -> NotebookNode:
    """Return the cell for an answer; it names the check, if there is one."""
    found, call = EXERCISE.search(exercise), CALL.search(exercise)
    assert found is not None
    text = f"# {found[1]}: write your answer here"
    text += f", and check it with\n# {call[1]}" if call else "."
    return new_code_cell(text, metadata={"tags": ["answer"]})


def _finished(cells: list[NotebookNode]) -> NotebookNode:
    """Return a notebook of these cells, which have not been run."""
    for cell in cells:
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
    notebook = new_notebook(cells=cells)
    folded = [cell.metadata.pop("cellView", None) for cell in cells]
    sync.normalise(notebook)
    for cell, view in zip(cells, folded, strict=True):
        if view:
            cell.metadata["cellView"] = view
    return notebook


def edition(with_solutions: bool) -> Iterator[tuple[str, NotebookNode]]:
    """Yield every notebook with the name of its file, without `.ipynb`.

    Args:
        with_solutions: Whether solutions are among them.
    """
    for path in sorted(sync.BOOK.glob("*.ipynb")):
        source, name = nbformat.read(path, as_version=4), path.stem
        notebook = reader(source, name, with_solutions)
        if not with_solutions:
            for cell in notebook.cells:
                if cell.cell_type == "markdown":
                    cell.source = for_students(cell.source)
        yield name, notebook
        if with_solutions and (solved := solutions(source, name)):
            yield f"solutions-{name}", solved


def write(folder: Path, with_solutions: bool) -> int:
    """Write an edition to a folder, with the pages that it links to.

    Returns:
        How many notebooks were there already, and were left alone.
    """
    (folder / "_static").mkdir(parents=True, exist_ok=True)
    for picture in sync.BOOK.glob("_static/*.svg"):
        shutil.copy(picture, folder / "_static")
    for page in sync.BOOK.glob("*.md"):
        if with_solutions:
            shutil.copy(page, folder)
        elif page.stem != FOR_TEACHERS:
            text = for_students(page.read_text("utf-8"))
            (folder / page.name).write_text(text, "utf-8")
    n_there = 0
    for name, notebook in edition(with_solutions):
        path = folder / f"{name}.ipynb"
        n_there += path.exists()
        if not path.exists():
            sync.store(notebook, path)
    return n_there


def main() -> int:
    """Write what the command line asks for, and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--class",
        action="store_true",
        dest="for_class",
        help="one edition for students, and one for the teacher",
    )
    places = {PLACE: True}
    if parser.parse_args().for_class:
        places = {CLASS / "students": False, CLASS / "teacher": True}
    for folder, with_solutions in places.items():
        n_there = write(folder, with_solutions)
        which = "with the solutions" if with_solutions else "without solutions"
        print(f"{folder.relative_to(ROOT)}: the notebooks, {which}")
        if n_there:
            print(
                f"  {n_there} were there already, and were left alone; "
                "remove one, and it is made anew"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())

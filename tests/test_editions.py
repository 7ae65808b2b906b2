"""The notebooks that are worked in: what they hide, and what they keep."""

from __future__ import annotations

import ast
import copy
import re
import subprocess
import sys
from pathlib import Path

import alone
import downloads
import editions
import nbformat
import pytest
import sync
from book_rules import ROOT, figure_names, has_good_links
from book_rules import Chapter as Source
from nbformat import NotebookNode
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
)

PATHS = sorted(sync.BOOK.glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
FOLDED = {"source_hidden": True}


def tagged(cells: list[NotebookNode], tag: str) -> list[NotebookNode]:
    return [cell for cell in cells if tag in cell.metadata.get("tags", [])]


def code(cells: list[NotebookNode]) -> list[NotebookNode]:
    return [cell for cell in cells if cell.cell_type == "code"]


def to_work_in(path: Path) -> list[NotebookNode]:
    source = nbformat.read(path, as_version=4)
    return list(editions.reader(source, path.stem).cells)


@every_notebook
def test_every_exercise_has_an_empty_cell(path: Path) -> None:
    source = Source(path)
    exercises = re.findall(r"^### Exercise ([\d.]+)", source.prose, re.M)
    answers = tagged(to_work_in(path), "answer")
    assert len(answers) == len(exercises)
    for number, cell in zip(exercises, answers, strict=True):
        assert cell.source.startswith(f"# Exercise {number}: write")
        assert not ast.parse(cell.source).body
    checks = {
        c for a in answers for c in re.findall(r'check\("[^"]+"', a.source)
    }
    _, _, asked = source.prose.partition("\n## Exercises")
    assert checks == set(re.findall(r'check\("[^"]+"', asked))


@every_notebook
def test_nothing_is_given_away(path: Path) -> None:
    cells = to_work_in(path)
    sources = {cell.source for cell in cells}
    for cell in tagged(Source(path).cells, "solution"):
        assert cell.source not in sources
    for cell in code(cells):
        assert not cell.outputs
        assert cell.execution_count is None


@every_notebook
def test_the_chapter_is_whole(path: Path) -> None:
    cells = code(to_work_in(path))
    added = {id(c) for tag in ("try", "answer") for c in tagged(cells, tag)}
    kept = [cell.source for cell in cells if id(cell) not in added]
    source = code(Source(path).cells)
    solutions = {id(cell) for cell in tagged(source, "solution")}
    assert kept == [c.source for c in source if id(c) not in solutions]


@every_notebook
def test_every_try_is_a_cell_to_fill_in(path: Path) -> None:
    cells = to_work_in(path)
    tries = tagged(cells, "try")
    prose = "\n".join(cell.source for cell in cells)
    assert "<summary>Try it" not in prose
    assert len(tries) == Source(path).prose.count("<summary>Try it")
    for cell in tries:
        *_, last = ast.parse(cell.source).body
        assert ast.unparse(last).startswith("check(")
        following = cells[cells.index(cell) + 1]
        if following.cell_type == "code":
            assert following.metadata["jupyter"] == FOLDED


@every_notebook
def test_what_only_draws_is_folded_and_has_a_caption(path: Path) -> None:
    source, cells = Source(path), to_work_in(path)
    by_source = {cell.source: n for n, cell in enumerate(cells)}
    for cell in tagged(source.cells, "hide-input"):
        folded = cells[by_source[cell.source]]
        assert folded.metadata["jupyter"] == FOLDED
        assert folded.metadata["cellView"] == "form"  # in Colab
    captions = [c for c in cells if c.source.startswith("*Figure.* ")]
    drawn = tagged(source.cells, "solution")
    in_solutions = [c for c in drawn if "figure" in c.metadata["mystnb"]]
    n_figures = len(figure_names(source))
    assert len(captions) == n_figures - len(in_solutions)


@every_notebook
def test_solutions_are_in_a_notebook_of_their_own(path: Path) -> None:
    source = nbformat.read(path, as_version=4)
    made = editions.solutions(source, path.stem)
    expected = tagged(source.cells, "solution")
    if made is None:
        assert expected == []
        return
    shown = {cell.source: cell for cell in code(made.cells)}
    for cell in expected:
        same = shown[cell.source]
        assert "jupyter" not in same.metadata
        assert len(same.outputs) == len(cell.outputs)
    for title in re.findall(r"^### (Exercise .+)", Source(path).prose, re.M):
        assert title in "\n".join(cell.source for cell in made.cells)
    assert "<summary>Hint" not in str(made)


def shown(cell: NotebookNode) -> list[str]:
    """What a cell shows as text."""
    outputs = cell.get("outputs", [])
    data = [output.get("data", {}) for output in outputs]
    values = [bundle.get("text/plain", "") for bundle in data]
    return [*(output.get("text", "") for output in outputs), *values]


def small() -> NotebookNode:
    """A chapter in which something is drawn, fails, and is asked."""
    solution = {"tags": ["solution", "hide-cell"], "mystnb": {}}
    shown = new_output("stream", name="stdout", text="42\n")
    return new_notebook(
        cells=[
            new_markdown_cell("# Small"),
            new_code_cell('number = 21\nprint("before")'),
            new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]}),
            new_markdown_cell(
                "Before.\n\n"
                "<details><summary>Try it yourself: it</summary>\n\n"
                "Do.\n\n```python\ndef twice(x):\n    ...\n```\n\n</details>"
            ),
            new_code_cell("def twice(x):\n    return 2 * x"),
            new_markdown_cell(
                "## Summary\n\n- It.\n\n## Exercises\n\n"
                '### Exercise 1.1 (modify): it\n\nCall `check("it", it)`.'
            ),
            new_code_cell("given = number"),
            new_markdown_cell(
                "<details><summary>Hint</summary>\n\n</details>"
            ),
            new_code_cell(
                "print(twice(given))", metadata=solution, outputs=[shown]
            ),
            new_markdown_cell("So it is."),
            new_markdown_cell("## Further reading\n\n- [it](02-b.ipynb#c)"),
        ]
    )


def test_a_small_chapter_in_its_order() -> None:
    cells = editions.reader(small(), "01-small").cells
    link = "[a notebook of their own](solutions-01-small.ipynb)"
    about = (
        "Each exercise has a cell for your answer. "
        f"The solutions are in {link}."
    )
    assert [cell.source for cell in cells] == [
        "# Small",
        'number = 21\nprint("before")',
        "1 / 0",
        "Before.\n\n**Try it yourself: it.** Do.",
        "def twice(x):\n    ...",
        "def twice(x):\n    return 2 * x",
        f"## Summary\n\n- It.\n\n## Exercises\n\n{about}\n\n"
        '### Exercise 1.1 (modify): it\n\nCall `check("it", it)`.',
        "given = number",
        "<details><summary>Hint</summary>\n\n</details>",
        "# Exercise 1.1: write your answer here, and check it with\n"
        '# check("it", it)',
        "## Further reading\n\n- [it](02-b.ipynb#c)",
    ]
    without = editions.reader(small(), "01-small", solutions=False).cells
    assert "solutions" not in str(without)


def test_both_notebooks_run_from_start_to_end(tmp_path: Path) -> None:
    own = editions.reader(small(), "01-small")
    solved = editions.solutions(small(), "01-small")
    assert solved is not None
    stored = copy.deepcopy(solved.cells)
    for notebook in (own, solved):
        sync.execute(notebook, tmp_path)
    for before, after in zip(stored[2:], solved.cells[2:], strict=True):
        assert before.get("outputs") == after.get("outputs")
    assert not solved.cells[1].outputs
    assert solved.cells[-1].source == "So it is."


def test_what_is_there_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editions, "edition", lambda _: [("a", small())])
    assert editions.write(tmp_path, True) == 0
    (tmp_path / "a.ipynb").write_text("my answers")
    assert editions.write(tmp_path, True) == 1
    assert (tmp_path / "a.ipynb").read_text() == "my answers"


def test_links_lead_to_pages_beside_them(tmp_path: Path) -> None:
    assert editions.write(tmp_path, with_solutions=True) == 0
    names = {path.name for path in tmp_path.glob("*.ipynb")}
    # The page on the real GPT-2 has no exercises.
    assert len(names) == 2 * len(PATHS) - 1
    problems = [p for n in sorted(names) for p in has_good_links(tmp_path / n)]
    assert problems == []


def test_solutions_use_no_name_that_only_the_chapter_defines(
    tmp_path: Path,
) -> None:
    """They lack cells that the chapter has; running all takes minutes."""
    editions.write(tmp_path, with_solutions=True)
    paths = sorted(tmp_path.glob("solutions-*.ipynb"))
    rules = ("--isolated", "--select=F821", "--output-format=concise")

    def undefined() -> str:
        command = [sys.executable, "-m", "ruff", "check", *rules, *paths]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr
        return "" if done.returncode == 0 else done.stdout

    assert undefined() == ""
    notebook = nbformat.read(paths[0], as_version=4)
    notebook.cells[1].source = "%%capture"  # the code of the chapter
    sync.store(notebook, paths[0])
    assert "F821" in undefined()


def test_a_chapter_and_its_solutions_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing but the wheel; one chapter stands for all."""
    monkeypatch.setenv("PYTHONPATH", str(alone.unpacked_wheel()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    name = "02-text-to-tokens"
    source = nbformat.read(sync.BOOK / f"{name}.ipynb", as_version=4)
    sync.execute(editions.reader(source, name), tmp_path)
    solved = editions.solutions(source, name)
    assert solved is not None
    stored = copy.deepcopy(solved.cells)
    sync.execute(solved, tmp_path)
    for before, after in zip(stored[2:], solved.cells[2:], strict=True):
        assert shown(before) == shown(after)
    assert list(tmp_path.iterdir()) == []


def test_students_have_no_solutions(tmp_path: Path) -> None:
    editions.write(tmp_path, with_solutions=False)
    names = {path.name for path in tmp_path.glob("*.ipynb")}
    assert names == {path.name for path in PATHS}
    pages = {path.name for path in tmp_path.glob("*.md")}
    assert pages == {p.name for p in sync.BOOK.glob("*.md")} - {"teaching.md"}
    problems = [
        problem
        for path in [*tmp_path.glob("*.ipynb"), *tmp_path.glob("*.md")]
        for problem in has_good_links(path)
        if "points to no" in problem
    ]
    assert problems == []


def test_students_read_of_nothing_that_they_do_not_have(
    tmp_path: Path,
) -> None:
    editions.write(tmp_path, with_solutions=False)
    intro = (tmp_path / "intro.md").read_text("utf-8")
    for absent in ("solution", "rocket", "make ", "git "):
        assert absent not in intro
    assert "has a hint, folded away." in intro
    assert "## How to run it\n\nEach chapter is a notebook; open" in intro
    last = (tmp_path / "18-a-scaling-law.ipynb").read_text("utf-8")
    assert ".io/gpt2-from-scratch/book/teaching.html)" in last


@pytest.mark.parametrize("folder", [editions.PLACE, editions.CLASS])
def test_git_ignores_them(folder: Path) -> None:
    command = ["git", "-C", str(ROOT), "check-ignore", f"{folder}/a.ipynb"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode == 128:
        pytest.skip("this is no clone of the repository")
    assert done.returncode == 0


def test_published_links_lead_to_the_site() -> None:
    notebook = editions.reader(small(), "01-small")
    notebook.cells[0].source += " [b](b.md) [w](https://a.org/b.md) [c](#c)"
    address = "https://github.com/o/r"
    downloads.lead_to_the_site(notebook, "https://o.github.io/r/", address)
    text = "\n".join(cell.source for cell in notebook.cells)
    for link in (
        "[b](https://o.github.io/r/book/b.html)",
        "[w](https://a.org/b.md)",
        "[c](#c)",
        "[it](https://o.github.io/r/book/02-b.html#c)",
        f"({address}/blob/notebooks/solutions-01-small.ipynb)",
    ):
        assert link in text

"""What book/conftest.py asks of pytest when it runs notebooks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from book_rules import ROOT
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

NBVAL = ("--nbval", "--nbval-current-env")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A folder with a notebook whose later cells need the first."""
    cells = [
        new_code_cell("a = 1", execution_count=1),
        new_code_cell(
            "print(a)",
            execution_count=2,
            outputs=[new_output("stream", name="stdout", text="1\n")],
        ),
        new_code_cell("assert a == 1", execution_count=3),
    ]
    made(tmp_path, cells)
    return tmp_path


def made(folder: Path, cells: list[NotebookNode]) -> None:
    nbformat.write(new_notebook(cells=cells), folder / "01-a.ipynb")
    shutil.copy(ROOT / "book" / "conftest.py", folder)
    (folder / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {ROOT / 'book'}\naddopts = -q\n"
    )


def run(folder: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *NBVAL, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_notebook_in_part_is_refused(book: Path) -> None:
    path = book / "01-a.ipynb"
    path.write_text(path.read_text("utf-8").replace("a == 1", "a == 2"))
    code, output = run(book)
    assert code == pytest.ExitCode.TESTS_FAILED, output
    for option in ("--lf", "--ff"):
        code, output = run(book, option)
        assert code == pytest.ExitCode.USAGE_ERROR, output
        assert "01-a.ipynb" in output
        assert option in output
        assert "NameError" not in output


def test_a_single_cell_is_refused(book: Path) -> None:
    code, output = run(book, "01-a.ipynb::Cell 1")
    assert code == pytest.ExitCode.USAGE_ERROR, output
    assert "its cells would run as 1," in output


def test_workers_do_not_share_a_notebook(book: Path) -> None:
    code, output = run(book, "-n", "2")
    assert code == pytest.ExitCode.OK, output
    assert "3 passed" in output


def test_a_notebook_is_alone_with_the_wheel(tmp_path: Path) -> None:
    """It cannot read what lies beside it, nor the package's source."""
    source = (
        "from pathlib import Path\n\nimport gpt2\n\n"
        f"assert not Path(gpt2.__file__).is_relative_to({str(ROOT)!r})\n"
        "print(list(Path().iterdir()))"
    )
    output = new_output("stream", name="stdout", text="[]\n")
    cell = new_code_cell(source, execution_count=1, outputs=[output])
    made(tmp_path, [cell])
    code, output = run(tmp_path)
    assert code == pytest.ExitCode.OK, output

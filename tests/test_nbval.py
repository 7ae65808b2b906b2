"""What book/conftest.py asks of pytest when it runs notebooks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from book_rules import ROOT
from nbformat.v4 import new_code_cell, new_notebook, new_output

NBVAL = ("-p", "no:randomly", "--nbval", "--nbval-current-env")


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
    nbformat.write(new_notebook(cells=cells), tmp_path / "01-a.ipynb")
    shutil.copy(ROOT / "book" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {ROOT / 'book'}\naddopts = -q\n"
    )
    return tmp_path


def run(folder: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *NBVAL, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def spoil(folder: Path) -> None:
    """Let the last cell fail."""
    path = folder / "01-a.ipynb"
    path.write_text(path.read_text("utf-8").replace("a == 1", "a == 2"))


def test_a_whole_notebook_runs(book: Path) -> None:
    code, output = run(book)
    assert code == pytest.ExitCode.OK, output
    assert "3 passed" in output


@pytest.mark.parametrize("option", ["--lf", "--ff", "--sw"])
def test_a_notebook_in_part_is_refused(option: str, book: Path) -> None:
    spoil(book)
    first = ("--sw",) if option == "--sw" else ()  # it remembers for itself
    code, _ = run(book, *first)
    assert code != pytest.ExitCode.OK
    code, output = run(book, option)
    assert code == pytest.ExitCode.USAGE_ERROR, output
    assert "01-a.ipynb" in output
    assert option in output
    assert "NameError" not in output


def test_a_single_cell_is_refused(book: Path) -> None:
    code, output = run(book, "01-a.ipynb::Cell 1")
    assert code == pytest.ExitCode.USAGE_ERROR, output
    assert "its cells would run as 1," in output
    code, output = run(book, "01-a.ipynb::Cell 0")  # it needs no other
    assert code == pytest.ExitCode.OK, output


@pytest.mark.parametrize("dist", ["", "load", "worksteal", "loadfile"])
def test_workers_do_not_share_a_notebook(dist: str, book: Path) -> None:
    options = [f"--dist={dist}"] if dist else []
    code, output = run(book, "-n", "2", *options)
    assert code == pytest.ExitCode.OK, output
    assert "3 passed" in output

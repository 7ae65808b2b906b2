"""PyPI has another `gpt2`, whose files would lie in the folder of ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2
import gpt2_book

REMEDY = "pip uninstall gpt2 gpt2-from-scratch"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what Python imports first of the two packages."""
    for package in (gpt2, gpt2_book):
        start = Path(package.__file__)
        copy = tmp_path / start.parent.name
        copy.mkdir()
        shutil.copy(start, copy)
    return tmp_path


def imported(folder: Path, name: str) -> str:
    """Import a package in a new process; return what it says."""
    command = [sys.executable, "-W", "always", "-S", "-c", f"import {name}"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stderr


def test_alone_there_is_nothing_to_say(folder: Path) -> None:
    assert imported(folder, "gpt2") == ""
    assert imported(folder, "gpt2_book") == ""
    assert not Path(gpt2.__file__).with_name("client.py").exists()


def test_its_files_in_our_folder(folder: Path) -> None:
    (folder / "gpt2" / "client.py").write_text("raise SystemExit('ran')")
    said = imported(folder, "gpt2")
    assert "UserWarning" in said and REMEDY in said and "ran" not in said
    assert str(folder / "gpt2" / "client.py") in said
    entry = "another project named gpt2 has written into this folder"
    troubles = Path(__file__).parents[1] / "book" / "troubleshooting.md"
    assert entry in said and f"**`{entry}`**" in troubles.read_text("utf-8")


def test_its_package_instead_of_ours(folder: Path) -> None:
    (folder / "gpt2" / "__init__.py").write_text("Client = None\n")
    said = imported(folder, "gpt2_book")
    assert "ImportError" in said and REMEDY in said
    assert str(folder / "gpt2" / "__init__.py") in said

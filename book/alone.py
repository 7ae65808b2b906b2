"""Run a notebook as for somebody who has nothing but the installed package.

The kernel imports the package from its wheel, and works in an empty folder. A
notebook that needs a file of the repository fails, then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch
from zipfile import ZipFile

from nbval.kernel import RunningKernel

ROOT = Path(__file__).resolve().parent.parent
BUILD = "from setuptools import build_meta as b; b.build_wheel('.')"


@cache
def unpacked_wheel() -> Path:
    """Build the wheel, and return the folder that it would be installed to."""
    place = Path(_folder().name)
    copy = place / "source"
    for name in ("gpt2", "gpt2_book"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-c", BUILD]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (wheel,) = copy.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(place / "installed")
    return place / "installed"


@cache
def _folder() -> TemporaryDirectory[str]:
    """Return a folder that is removed when the process ends."""
    return TemporaryDirectory(prefix="wheel-")


class Kernel(RunningKernel):  # type: ignore[misc]  # nbval has no types
    """A kernel of nbval's, alone with the package."""

    def __init__(self, kernel_name: str, cwd: str, **options: Any) -> None:
        """Start it in a new folder instead of `cwd`, the notebook's own."""
        self.folder = TemporaryDirectory()
        with patch.dict(os.environ, PYTHONPATH=str(unpacked_wheel())):
            super().__init__(kernel_name, cwd=self.folder.name, **options)

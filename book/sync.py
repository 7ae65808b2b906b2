"""Update the notebooks from the package, and run them.

    python book/sync.py                          # all notebooks of the book
    python book/sync.py book/04-attention.ipynb  # one notebook
    python book/sync.py --check                  # only report what is outdated

A code cell with the metadata `{"sync": "gpt2.attention:causal_mask"}` shows
source code of the package. This tool copies the code from the package, runs
the notebook, and removes from the outputs what depends on the machine.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from nbformat import NotebookNode

from gpt2_book.pictures import look_the_same

BOOK = Path(__file__).resolve().parent
SECONDS_PER_CELL = 180
CELL_METADATA = ("jupyter", "mystnb", "sync", "tags")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
SVG = "image/svg+xml"


class SyncError(ValueError):
    """A notebook cannot be updated; the message says why."""


def package_source(reference: str, root: Path = BOOK.parent) -> str:
    """Return the source code that a cell's `sync` refers to.

    Args:
        reference: `module:qualified.name`, or several of them, separated by
            commas.
        root: The folder that contains the package.

    Returns:
        The sources in this order, with two blank lines in between.

    Raises:
        SyncError: The module does not exist or has no such name.
    """
    parts = [part.strip() for part in reference.split(",")]
    return "\n\n\n".join(_one_source(part, root) for part in parts)


def _one_source(reference: str, root: Path) -> str:
    module, _, qualified_name = reference.partition(":")
    place = root.joinpath(*module.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py")
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise SyncError(f"sync: no module for {reference!r}")
    text = file.read_text(encoding="utf-8")
    node: Any = ast.parse(text)
    for name in qualified_name.split("."):
        found = [n for n in getattr(node, "body", []) if name in _names(n)]
        if not found:
            raise SyncError(f"sync: {module} has no {qualified_name!r}")
        node = found[-1]
    start = min(n.lineno for n in [node, *getattr(node, "decorator_list", [])])
    lines = text.splitlines()[start - 1 : node.end_lineno]
    return textwrap.dedent("\n".join(lines))


def _names(statement: Any) -> list[str]:
    """Return the names that a statement binds."""
    if isinstance(statement, ast.Assign):
        return [ast.unparse(target) for target in statement.targets]
    if isinstance(statement, ast.AnnAssign):
        return [ast.unparse(statement.target)]
    return [statement.name] if hasattr(statement, "name") else []


def normalise(notebook: NotebookNode) -> None:
    """Bring a notebook into its normal form, in place.

    The id of a cell is a hash of its source, so that it survives a new run
    and a new cell above.
    """
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    seen: list[str] = []
    for cell in notebook.cells:
        cell.source = cell.source.strip("\n")
        for key in cell.metadata.keys() - CELL_METADATA:
            del cell.metadata[key]
        text = f"{cell.cell_type} {cell.source}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        seen.append(digest)
        copies = seen.count(digest)
        cell.id = digest if copies == 1 else f"{digest}-{copies}"
        for output in cell.get("outputs", []):
            _normalise_output(output)


def _normalise_output(output: NotebookNode) -> None:
    if "metadata" in output:
        output.metadata = NotebookNode()
    if output.output_type == "error":
        # Drop colours, which vary, and the frames of library code, which
        # show paths of this machine.
        frames = [re.sub(r"\x1b\[[\d;]*m", "", f) for f in output.traceback]
        output.traceback = [f for f in frames if not f.startswith("File ")]


def keep_pictures(
    stored: list[NotebookNode], fresh: list[NotebookNode]
) -> None:
    """Keep the stored pictures where the fresh ones look the same.

    Args:
        stored: The outputs of a cell, as its notebook has them.
        fresh: The outputs of another run; changed in place.
    """
    for then, now in zip(_pictures(stored), _pictures(fresh), strict=False):
        if look_the_same(then[SVG], now[SVG]):
            now[SVG] = then[SVG]


def _pictures(outputs: list[NotebookNode]) -> list[NotebookNode]:
    data = [output.get("data", {}) for output in outputs]
    return [bundle for bundle in data if SVG in bundle]


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells in a new kernel and store their outputs, in place.

    Args:
        notebook: The notebook to run.
        folder: The working directory of the kernel.

    Raises:
        SyncError: A cell failed, timed out, or killed the kernel.
    """
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=SECONDS_PER_CELL,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=40"],  # errors only
        resources={"metadata": {"path": str(folder)}},
    )
    started: list[str] = []
    client.on_cell_start = lambda cell, cell_index: started.append(
        f"cell {cell_index + 1} (`{cell.source.strip().split(chr(10))[0]}`)"
    )
    try:
        client.execute()
        return
    except CellExecutionError as error:
        what = f"{error.ename}: {error.evalue}"
    except (CellTimeoutError, DeadKernelError) as error:
        what = str(error).splitlines()[0]
    raise SyncError(f"{started[-1]} failed: {what}")


def drift(path: Path, root: Path = BOOK.parent) -> Iterator[str]:
    """Yield a sentence for everything that is outdated in a stored notebook.

    Args:
        path: The notebook.
        root: The folder that contains the package.
    """
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    counts = []
    for number, cell in enumerate(notebook.cells, start=1):
        reference = cell.metadata.get("sync")
        try:
            if reference and cell.source != package_source(reference, root):
                yield f"cell {number} differs from the package: {reference}"
        except SyncError as error:
            yield f"cell {number}: {error}"
        if cell.cell_type == "code" and cell.source.strip():
            counts.append(cell.execution_count)
    if counts != list(range(1, len(counts) + 1)):
        yield f"it was not run from top to bottom; its counts are {counts}"
    normalise(notebook)
    if text != written(notebook):
        yield "it is not in normal form"


def written(notebook: NotebookNode) -> str:
    """Return the text of a notebook's file."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def store(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook to a file, completely or not at all."""
    part = path.with_suffix(".part")
    part.write_text(written(notebook), encoding="utf-8")
    part.replace(path)


def sync(path: Path) -> None:
    """Update, run and normalise one notebook, and replace its file.

    Raises:
        SyncError: A reference is wrong, or a cell failed. The file is
            unchanged then.
    """
    old = nbformat.read(path, as_version=4)
    new = copy.deepcopy(old)
    for cell in new.cells:
        if "sync" in cell.metadata:
            cell.source = package_source(cell.metadata["sync"])
    execute(new, path.resolve().parent)
    normalise(old)
    normalise(new)
    stored = {cell.id: cell.get("outputs", []) for cell in old.cells}
    for cell in new.cells:  # unchanged cells have the same id in both
        keep_pictures(stored.get(cell.id, []), cell.get("outputs", []))
    store(new, path)


def main() -> int:
    """Update the given notebooks, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument(
        "--check",
        action="store_true",
        help="report what is outdated, and change nothing",
    )
    arguments = parser.parse_args()
    # For the kernels: one thread adds sums up in the same order everywhere.
    os.environ["OMP_NUM_THREADS"] = "1"
    n_problems = 0
    for path in arguments.notebooks or sorted(BOOK.glob("*.ipynb")):
        start, problems = time.perf_counter(), []
        try:
            if arguments.check:
                problems = list(drift(path))
            else:
                print(f"{path.name} ...", flush=True)
                sync(path)
                print(f"{path.name}: {time.perf_counter() - start:.1f} s")
        except (OSError, ValueError) as error:
            problems = [str(error)]
        for problem in problems:
            print(f"{path.name}: {problem}")
        n_problems += len(problems)
    if n_problems and arguments.check:
        print("`make sync` updates the notebooks.")
    return min(n_problems, 1)


if __name__ == "__main__":
    sys.exit(main())

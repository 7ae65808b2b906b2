"""Find out which differences in a notebook's outputs nbval notices.

    make interop                 # this, after everything else
    python interop/notebooks.py  # this alone, in the environment of the tests

A notebook is executed, its stored outputs are changed, a cell for each change,
and nbval runs it. The results go to `notebooks.json`, from which `tables.py`
writes the tables of the book's page.
"""

from __future__ import annotations

import base64
import copy
import json
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbclient
import nbformat

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the imports below

import tables  # noqa: E402
from processes import say  # noqa: E402

RESULTS = HERE / "notebooks.json"
PACKAGES = ("nbval", "pytest", "nbformat", "nbclient", "ipykernel")
Cell = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A cell, and what is done to its stored form after it was executed."""

    source: str
    change: Callable[[Cell], None] = lambda cell: None
    tags: tuple[str, ...] = ()
    stored: str | None = None
    """If given, the outputs of this source are stored instead."""


def _raw(mime: str, data: Any) -> str:
    return f"display({{{mime!r}: {data!r}}}, raw=True)"


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


MIMES = {
    "text/html": ("<b>a</b>", "<b>b</b>"),
    "text/markdown": ("a", "b"),
    "text/latex": ("$a$", "$b$"),
    "image/svg+xml": ("<svg><a/></svg>", "<svg><b/></svg>"),
    "image/png": (_coded("a picture"), _coded("another")),
    "image/jpeg": (_coded("a picture"), _coded("another")),
    "image/webp": (_coded("a picture"), _coded("another")),
    "application/pdf": (_coded("a page"), _coded("another")),
    "application/json": ({"a": 1}, {"a": 2}),
    "application/javascript": ("a", "b"),
}
SOURCES = {
    "standard output": ("print('a')", "print('b')"),
    "standard error": (
        "import sys; print('a', file=sys.stderr)",
        "import sys; print('b', file=sys.stderr)",
    ),
    "value of the last line": ("'a'", "'b'"),
    **{
        f"`{mime}`": (_raw(mime, first), _raw(mime, second))
        for mime, (first, second) in MIMES.items()
    },
}
"""For each kind of output, a cell that makes it and one with another value."""
NOTHING = "_ = 0"
COLUMNS = ("the same", "another value", "made, not stored", "stored, not made")


def _no_count(cell: Cell) -> None:
    cell["execution_count"] = None


def _wrong(cell: Cell) -> None:
    cell["outputs"][0]["text"] = "another\n"


def _swapped(cell: Cell) -> None:
    cell["outputs"].reverse()


def _uncounted(cell: Cell) -> None:
    _no_count(cell)
    _wrong(cell)


def _cleared(cell: Cell) -> None:
    _no_count(cell)
    _emptied(cell)


def _described(cell: Cell) -> None:
    cell["outputs"][0]["metadata"] = {"alt": "another"}


def _other_error(cell: Cell) -> None:
    cell["outputs"][0]["evalue"] = "another"


def _other_traceback(cell: Cell) -> None:
    cell["outputs"][0]["traceback"] = ["another"]


def _other_class(cell: Cell) -> None:
    cell["outputs"][0]["ename"] = "KeyError"


def _in_two(cell: Cell) -> None:
    (output,) = cell["outputs"]
    second = copy.deepcopy(output)
    output["text"], second["text"] = "a\n", "b\n"
    cell["outputs"] = [output, second]


def _emptied(cell: Cell) -> None:
    cell["outputs"] = []


RAISES = ("raises-exception",)
SINGLE = {
    "nothing, and no execution count": Case("print('a')", _cleared),
    "another output, and no execution count": Case("print('a')", _uncounted),
    "another output; a line of a string is `# NBVAL_SKIP`": Case(
        "_ = '''\n# NBVAL_SKIP\n'''; print('a')", _wrong
    ),
    "two outputs of two kinds in the other order": Case(
        f"{_raw('text/html', 'a')}; {_raw('text/latex', 'b')}", _swapped
    ),
    "two outputs of one kind in the other order": Case(
        f"{_raw('text/html', 'a')}; {_raw('text/html', 'b')}", _swapped
    ),
    "one stream, stored in two pieces": Case(
        "print('a'); print('b')", _in_two
    ),
    "other metadata of an output": Case(_raw("text/html", "a"), _described),
    "an exception with another message, tag `raises-exception`": Case(
        "raise ValueError('a')", _other_error, RAISES
    ),
    "an exception with another traceback, tag `raises-exception`": Case(
        "raise ValueError('a')", _other_traceback, RAISES
    ),
    "an exception of another class, tag `raises-exception`": Case(
        "raise ValueError('a')", _other_class, RAISES
    ),
    "an exception that is not stored, tag `raises-exception`": Case(
        "raise ValueError('a')", _emptied, RAISES
    ),
    "no exception, none stored, tag `raises-exception`": Case(
        NOTHING, tags=RAISES
    ),
}
CONTROLS = {
    "unchanged cell that prints": Case("print('a')"),
    "changed cell that prints": Case("print('a')", _wrong),
}


def cases() -> dict[str, Case]:
    """Return every case, those of the kinds with a column."""
    found = {f"single: {name}": case for name, case in SINGLE.items()}
    for name, (source, other) in SOURCES.items():
        found[f"{name}: the same"] = Case(source)
        found[f"{name}: another value"] = Case(source, stored=other)
        found[f"{name}: made, not stored"] = Case(source, _emptied)
        found[f"{name}: stored, not made"] = Case(NOTHING, stored=source)
    return found


def executed(sources: list[str], tags: list[tuple[str, ...]]) -> Any:
    """Run a notebook with these cells."""
    notebook = nbformat.v4.new_notebook()
    for source, names in zip(sources, tags, strict=True):
        cell = nbformat.v4.new_code_cell(source)
        cell["metadata"]["tags"] = list(names)
        notebook.cells.append(cell)
    nbclient.NotebookClient(notebook, timeout=60).execute()
    return notebook


def verdicts(notebook: Any) -> list[str]:
    """Return whether each cell `passed`, `failed` or was `skipped`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nbformat.write(notebook, folder / "cells.ipynb")
        (folder / "pytest.ini").write_text("[pytest]\n")
        command = [
            *(sys.executable, "-m", "pytest", "--nbval", "cells.ipynb"),
            *("--nbval-current-env", "--junitxml=report.xml", "-q"),
            *("-p", "no:cacheprovider"),
        ]
        subprocess.run(command, cwd=folder, capture_output=True, check=False)
        report = ElementTree.parse(folder / "report.xml")
    found = []
    for case in report.iter("testcase"):
        bad = (
            case.find("failure") is not None or case.find("error") is not None
        )
        skipped = case.find("skipped") is not None
        found.append("failed" if bad else "skipped" if skipped else "passed")
    return found


def measured() -> dict[str, str]:
    """Execute, change, and let nbval judge: a verdict for each case."""
    named = {**CONTROLS, **cases()}
    say(f"nbval: {len(named)} cells")
    tags = [case.tags for case in named.values()]
    notebook = executed([case.source for case in named.values()], tags)
    others = executed([c.stored or NOTHING for c in named.values()], tags)
    for case, cell, other in zip(
        named.values(), notebook.cells, others.cells, strict=True
    ):
        if case.stored:
            cell["outputs"] = other["outputs"]
            for output in cell["outputs"]:
                if "execution_count" in output:
                    output["execution_count"] = cell["execution_count"]
        case.change(cell)
    found = dict(zip(named, verdicts(notebook), strict=True))
    assert [found.pop(name) for name in CONTROLS] == ["passed", "failed"]
    return found


def main() -> None:
    """Measure, and write the results and the tables."""
    results = {
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "verdicts": measured(),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    tables.write()


if __name__ == "__main__":
    main()

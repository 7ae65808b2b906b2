"""The tool that updates the notebooks."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import sync
from nbformat import NotebookNode
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
)


def test_sync_runs_a_notebook(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    cells = [
        new_code_cell("", metadata={"sync": "gpt2.config:GPT2Config.n_ctx"}),
        new_code_cell(
            "print(n_ctx, flush=True)\nprint('!', flush=True)\n",
            metadata={"other": 1, "tags": ["hide-input"]},
        ),
        new_code_cell(
            "import json\njson.loads('')",
            metadata={"tags": ["raises-exception"]},
        ),
    ]
    nbformat.write(new_notebook(cells=cells, metadata={"colab": 1}), path)
    sync.sync(path)
    assert list(sync.drift(path)) == []
    synced, printed, failed = nbformat.read(path, as_version=4).cells
    assert synced.source == "n_ctx: int = 1024"
    assert printed.source.endswith(")")
    assert printed.metadata == {"tags": ["hide-input"]}
    assert [output.text for output in printed.outputs] == ["1024\n!\n"]
    assert failed.outputs[0].ename == "JSONDecodeError"
    trace = "".join(failed.outputs[0].traceback)
    assert "json.loads('')" in trace
    assert "decoder.py" not in trace  # its path depends on the machine
    assert "\x1b" not in trace
    before = path.read_bytes()

    broken = nbformat.reads(before.decode(), as_version=4)
    broken.cells[2].metadata["tags"] = []
    nbformat.write(broken, path)
    before = path.read_bytes()
    with pytest.raises(
        sync.SyncError, match=r"cell 3 \(`import json`\).*JSON"
    ):
        sync.sync(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "reference, message",
    [
        ("gpt2.none:x", "no module for 'gpt2.none:x'"),
        ("gpt2.config:None", "gpt2.config has no 'None'"),
        ("gpt2.config:GPT2Config.x", "gpt2.config has no 'GPT2Config.x'"),
        ("gpt2.config", "gpt2.config has no ''"),
    ],
)
def test_a_wrong_reference_is_refused(reference: str, message: str) -> None:
    with pytest.raises(sync.SyncError, match=re.escape(message)):
        sync.package_source(reference)


def test_several_sources_are_joined_in_order(tmp_path: Path) -> None:
    text = "import a\n\n\n@a.b\nclass C:\n    x: int = 1\n\n    def f(s):\n"
    (tmp_path / "m.py").write_text(text + "        return 1\n\n\nY = 2\n")
    source = sync.package_source("m:Y, m:C.f, m:C", tmp_path)
    first, second, third = source.split("\n\n\n")
    assert first == "Y = 2"
    assert second == "def f(s):\n    return 1"
    assert third.startswith("@a.b\nclass C:\n")
    assert third.endswith("    def f(s):\n        return 1")


def test_ids_are_hashes_of_the_sources() -> None:
    def ids(*sources: str) -> list[str]:
        book = new_notebook(cells=[new_markdown_cell(s) for s in sources])
        sync.normalise(book)
        return [cell.id for cell in book.cells]

    a, b, again = ids("a", "b", "a")
    assert ids("new", "a", "b")[1:] == [a, b]
    assert again == f"{a}-2"


def circle(blue: int) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 3">'
        f'<circle r="1" fill="#0a14{blue:02x}"/></svg>'
    )


def drawn(picture: str) -> NotebookNode:
    """Return a notebook in normal form that shows a picture."""
    output = new_output("display_data", data={sync.SVG: picture})
    notebook = new_notebook(cells=[new_code_cell("x", outputs=[output])])
    sync.normalise(notebook)
    return notebook


@pytest.mark.parametrize("change, kept", [(0, True), (4, True), (5, False)])
def test_a_picture_that_looks_the_same_is_kept(
    change: int, kept: bool
) -> None:
    old, new = (drawn(circle(blue)).cells[0] for blue in (30, 30 + change))
    sync.keep_pictures(old.outputs, new.outputs)
    assert (new == old) == kept


def test_sync_keeps_such_a_picture(tmp_path: Path) -> None:
    draw = f"from IPython.display import SVG\nSVG({circle(30)!r})"
    for blue, kept in ((31, True), (60, False)):
        notebook = drawn(circle(blue))
        notebook.cells[0].source = draw
        path = tmp_path / "a.ipynb"
        nbformat.write(notebook, path)
        sync.sync(path)
        (output,) = nbformat.read(path, as_version=4).cells[0].outputs
        stored = output.data[sync.SVG]
        assert (f"#0a14{blue:02x}" in stored) == kept

"""The live figures in a notebook: `gpt2_book.live`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
import test_site
import torch
from nbclient import NotebookClient
from playwright.sync_api import Page

import gpt2
import gpt2_book
from gpt2.evaluation.circuits import record_attention

pytest.importorskip("anywidget")
from gpt2_book.widget import FIGURES, read_files, scripts

pytestmark = pytest.mark.xdist_group("live")

browser = test_site.browser
TEXTS = {"patching": "Ella lost | Tom lost"}


@pytest.fixture(scope="module")
def story() -> Any:
    return gpt2.load("story")


def test_unknown_figures_are_refused(story: Any) -> None:
    with pytest.raises(ValueError, match=r"next-token.*got 'none'"):
        gpt2_book.live("none", *story, "Ella")


def test_the_files_are_the_model_in_memory(story: Any, tmp_path: Path) -> None:
    files = read_files(*story)
    for name, text in files.items():
        if name.endswith(".safetensors"):
            (tmp_path / name).write_bytes(base64.b64decode(text))
        else:
            (tmp_path / name).write_text(text, "utf-8")
    model, tokenizer = gpt2.load(tmp_path)
    assert tokenizer.encode("Ella lost") == story[1].encode("Ella lost")
    for name, tensor in story[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


CELL = """
import gpt2, gpt2_book
model, tokenizer = gpt2.load("story")
gpt2_book.live("heads", model, tokenizer, "Ella lost her red kite.")
"""


def test_the_stored_output_has_a_picture(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        notebook = nbformat.v4.new_notebook()
        notebook.cells.append(nbformat.v4.new_code_cell(CELL))
        NotebookClient(notebook, timeout=300).execute()
        (output,) = notebook.cells[0].outputs
        assert "application/vnd.jupyter.widget-view+json" in output.data
        assert "files" not in json.dumps(notebook.cells)  # 4 MB of weights
        seen.append(output.data["image/svg+xml"])
    assert seen[0] == seen[1] and seen[0].count("<image") == 16


@pytest.mark.parametrize("figure", FIGURES)
def test_the_scripts_draw_what_they_draw_in_the_page(
    figure: str, browser: Any, story: Any, tmp_path: Path
) -> None:
    """As anywidget does it: a module with `render`, and a model's state."""
    text = TEXTS.get(figure, "Ella lost her red kite.")
    state = {"figure": figure, "text": text, "files": read_files(*story)}
    module = scripts().replace("export default { render };", "")
    path = tmp_path / "page.html"
    path.write_text(
        '<!doctype html><meta charset="utf-8"><title>Live</title><main></main>'
        f"<script>const state = {json.dumps(state)};</script>"
        f'<script type="module">{module}'
        'const el = document.querySelector("main");'
        "const model = { get: (name) => state[name] };"
        "globalThis.done = render({ model, el });</script>",
        "utf-8",
    )
    page: Page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_function("globalThis.done", timeout=60_000)
    page.evaluate("globalThis.done")
    assert page.locator(".live-error").count() == 0 and not errors
    if figure == "heads":
        tokens = torch.tensor([story[1].encode_prompt(text)])
        weights = record_attention(story[0], tokens)[1, 0, 1, -1]
        cells = page.locator(".live-heat tbody tr").last.locator("td")
        assert cells.all_inner_texts() == [f"{w:.2f}" for w in weights]
    page.close()

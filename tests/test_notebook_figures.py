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
from test_live_figures import AXE_RUN, OUTSIDE, percent

import gpt2
import gpt2_book
from gpt2.evaluation.circuits import record_attention

pytest.importorskip("anywidget")
from gpt2_book.widget import BOOK, FIGURES, read_files, scripts

pytestmark = pytest.mark.xdist_group("live")

browser = test_site.browser
PRETRAINED = Path(gpt2.__file__).parent / "pretrained"
TEXTS = {"patching": "Ella lost | Tom lost", "training": "kite drum owl"}


@pytest.fixture(scope="module")
def story() -> Any:
    return gpt2.load("story")


def test_unknown_figures_are_refused(story: Any) -> None:
    with pytest.raises(ValueError, match=r"next-token.*got 'none'"):
        gpt2_book.live("none", *story, "Ella")
    model, tokenizer = story
    with pytest.raises(ValueError, match="training wants two or more; got 1"):
        gpt2_book.live("training", model, tokenizer, "owl hat")
    both = {0: model, 9: model}
    with pytest.raises(ValueError, match="heads wants one; got 2"):
        gpt2_book.live("heads", both, tokenizer, "owl hat")


ECHO = PRETRAINED / "echo"


def models_of(figure: str, story: Any) -> list[Any]:
    """Return the files of the models that a figure is shown for."""
    if figure != "training":
        return [[0, read_files(*story)]]
    return [
        [step, read_files(*gpt2.load(ECHO / f"step-{step:04d}"))]
        for step in (0, 3000)
    ]


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
        assert len(json.dumps(notebook.cells)) < 10**6  # no weights: 4 MB
        seen.append(output.data["image/svg+xml"])
    assert seen[0] == seen[1] and seen[0].count("<image") == 16


def show(page: Page, path: Path, states: list[dict[str, Any]]) -> list[str]:
    """Show figures as anywidget does: a module with `render` for each."""
    module = scripts().replace("export default { render };", "")
    script = (
        '<script type="module">await Promise.all(done);'  # the cells above
        f"{module}"
        "const i = document.querySelectorAll('main').length;"
        "const el = document.createElement('main');"
        "document.body.append(el);"
        "const model = { get: (name) => states[i][name] };"
        "globalThis.done[i] = render({ model, el });</script>"
    )
    path.write_text(
        '<!doctype html><meta charset="utf-8"><title>Live</title><body>'
        f"<script>const states = {json.dumps(states)}; done = [];</script>"
        f"{script * len(states)}",
        "utf-8",
    )
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_function(f"done.length === {len(states)}", timeout=60_000)
    page.evaluate("Promise.all(done)")
    return errors + page.locator(".live-error").all_inner_texts()


@pytest.mark.parametrize("figure", FIGURES)
def test_the_scripts_draw_what_they_draw_in_the_page(
    figure: str, browser: Any, story: Any, tmp_path: Path
) -> None:
    text = TEXTS.get(figure, "Ella lost her red kite.")
    models = models_of(figure, story)
    state = {"figure": figure, "text": text, "models": models}
    page: Page = browser.new_page()
    assert not show(page, tmp_path / "page.html", [state])
    assert page.locator(".live-body > *").count() > 2
    if figure == "heads":
        tokens = torch.tensor([story[1].encode_prompt(text)])
        weights = record_attention(story[0], tokens)[1, 0, 1, -1]
        cells = page.locator(".live-heat tbody tr").last.locator("td")
        assert cells.all_inner_texts() == [f"{w:.2f}" for w in weights]
    page.close()


DARK = "document.body.dataset.jpThemeLight = String(false)"


@pytest.mark.parametrize("figure", FIGURES)
def test_it_looks_as_in_the_page(
    figure: str, browser: Any, story: Any, tmp_path: Path
) -> None:
    """Also without the theme of the book, narrow, and in a dark JupyterLab."""
    text = TEXTS.get(figure, "Ella lost her red kite.")
    models = models_of(figure, story)
    state = {"figure": figure, "text": text, "models": models}
    page: Page = browser.new_page(viewport=test_site.PHONE)
    assert not show(page, tmp_path / "page.html", [state])
    page.add_style_tag(path=BOOK / "live" / "figures" / "style.css")
    frame = page.locator("gpt2-live")
    assert not frame.evaluate(OUTSIDE)
    page.evaluate(test_site.AXE.read_text("utf-8"))
    light = frame.evaluate("frame => getComputedStyle(frame).color")
    assert not frame.evaluate(AXE_RUN)
    page.evaluate(DARK)
    assert frame.evaluate("frame => getComputedStyle(frame).color") != light
    assert not frame.evaluate(AXE_RUN)
    page.close()


def test_a_notebook_gets_no_key_that_is_pressed_in_a_figure(
    browser: Any, story: Any, tmp_path: Path
) -> None:
    """JupyterLab looks for this attribute at what has the focus."""
    state = {"figure": "whole", "text": "Ella", "models": models_of("", story)}
    page: Page = browser.new_page()
    assert not show(page, tmp_path / "page.html", [state])
    for control in ("slider", "button", "textbox"):
        element = page.get_by_role(control).first  # type: ignore[arg-type]  # any role
        element.focus()
        assert element.get_attribute("data-lm-suppress-shortcuts") == "true"
    page.close()


def test_a_series_of_models_in_memory(
    browser: Any, story: Any, tmp_path: Path
) -> None:
    models = models_of("training", story)
    state = {"figure": "training", "text": "kite drum owl", "models": models}
    page: Page = browser.new_page()
    assert not show(page, tmp_path / "page.html", [state])
    slider = page.get_by_role("slider", name="Training")
    assert slider.get_attribute("max") == "1"
    for key, step in (("Home", 0), ("End", 3000)):
        slider.press(key)
        page.locator(".live-status", has_text=f"Step {step:,}:").wait_for()
        model, tokenizer = gpt2.load(ECHO / f"step-{step:04d}")
        ids = 2 * tokenizer.encode(" kite drum owl.")
        with torch.no_grad():
            told = model(torch.tensor([ids[:-2]]))[0, -1].softmax(-1)
        best = told.max().item()
        row = page.locator(".live-bars tbody tr").first.inner_text()
        assert percent(best) in row
    page.close()


def test_two_figures_do_not_meddle(
    browser: Any, story: Any, tmp_path: Path
) -> None:
    """The second brings the scripts once more, and a model of its own."""
    other, tokenizer = gpt2.load("story")
    with torch.no_grad():
        other.h[1].attn.c_proj.weight.zero_()
    state = {"figure": "next-token", "text": "Tom lost"}
    states = [
        {**state, "models": [[0, read_files(*story)]]},
        {**state, "models": [[0, read_files(other, tokenizer)]]},
    ]
    page: Page = browser.new_page()
    assert not show(page, tmp_path / "page.html", states)
    for place, model in zip((0, 1), (story[0], other), strict=True):
        element = page.locator("main").nth(place)
        element.get_by_label("The beginning").fill("Hugo lost")
        best = gpt2.predict(model, tokenizer, "Hugo lost", 1).candidates[0]
        chip = element.locator(".live-chip", has_text="Hugo")
        chip.wait_for()
        row = element.locator(".live-bars tbody tr").first.inner_text()
        assert row.startswith(best.text.replace(" ", "␣"))
    page.close()

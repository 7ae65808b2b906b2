"""A small Sphinx extension that brings the live figures into the pages.

`book/live` is copied into the site as it is. The files of each shipped model
stand beside it, as base64 in a script, because a page that is opened from a
file cannot fetch. Only pages with a figure load its first, small script.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIVE = ROOT / "book" / "live"
MODELS = ROOT / "gpt2" / "pretrained"
FILES = ("config.json", "model.safetensors", "vocab.json", "merges.txt")
KINDS = (".js", ".css", ".wasm")


def shipped_models() -> Iterator[tuple[str, Path]]:
    """Yield the name and the folder of each model that ships."""
    for config in sorted(MODELS.rglob("config.json")):
        yield str(config.parent.relative_to(MODELS).as_posix()), config.parent


def model_script(name: str, folder: Path) -> str:
    """Return a script that hands a model's files to the page."""
    files = {
        file: base64.b64encode((folder / file).read_bytes()).decode()
        for file in FILES
    }
    return f"GPT2.shipped[{json.dumps(name)}] = {json.dumps(files)};\n"


def copy_live(app: Any, error: Exception | None) -> None:
    """Put the scripts and the models into the built site."""
    if error is not None or app.builder.format != "html":
        return
    site = Path(app.outdir) / "_static" / "live"
    shutil.rmtree(site, ignore_errors=True)
    for source in LIVE.rglob("*"):
        if source.suffix in KINDS:
            target = site / source.relative_to(LIVE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    for name, folder in shipped_models():
        target = site / "models" / f"{name}.js"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(model_script(name, folder), encoding="ascii")


def add_script(app: Any, *page: Any) -> None:
    """Load the first script on a page that has a figure."""
    document = page[-1]
    if document is not None and "<gpt2-live" in document.astext_raw():
        app.add_css_file("live/figures/style.css")
        app.add_js_file("live/figures/page.js", loading_method="defer")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("html-page-context", add_script)
    app.connect("build-finished", copy_live)
    return {"parallel_read_safe": True}

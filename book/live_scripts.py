"""Write what the pages need to run the model, when the book is built.

The scripts in `book/live` and the shipped models are read where they lie; no
second copy is kept. Scripts can be loaded from `file://`, where `fetch` cannot
be used, so the models become scripts, too, with the weights in base64.
"""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.stories import phrases, promising, words
from gpt2.stories.engine import plain

if TYPE_CHECKING:
    from sphinx.application import Sphinx

LIVE = Path(__file__).parent / "live"
PRETRAINED = LIVE.parents[1] / "gpt2" / "pretrained"
MACHINE = "machine.js"
FILES = (
    *("config.json", "vocab.json", "merges.txt", "tokenizer_config.json"),
    "model.safetensors",
)


def words_script() -> str:
    """Return a script that defines `GPT2.WORDS`, the words of the stories.

    The checker in `live/stories` reads them, without the marks of the Python.
    """
    tables = {
        name: value
        for module in (words, phrases)
        for name, value in vars(module).items()
        if name[0].isupper() and name.isupper()
    }
    tables["CHORES"] = promising.CHORES
    text = plain(json.dumps(tables, default=asdict))
    return f"(globalThis.GPT2 ??= {{}}).WORDS = {text};\n"


def engine_script() -> str:
    """Return all scripts of the engine as one function, `GPT2.engine`.

    A function, because its text is what a Worker is made of.
    """
    paths = [*sorted(LIVE.glob("*.js")), *sorted(LIVE.glob("stories/*.js"))]
    sources = [
        path.read_text("utf-8") for path in paths if path.name != MACHINE
    ]
    sources.append(words_script())
    return f"GPT2.engine = function () {{\n{''.join(sources)}}};\n"


def model_script(name: str, folder: Path) -> str:
    """Return a script that defines the files of a shipped model."""
    files = {}
    for file in FILES:
        data = (folder / file).read_bytes()
        is_text = not file.endswith(".safetensors")
        files[file] = (data if is_text else base64.b64encode(data)).decode()
    return f"GPT2.shipped[{json.dumps(name)}] = {json.dumps(files)};\n"


def shipped() -> dict[str, Path]:
    """Return the folder of each shipped model, by its name."""
    series = sorted((PRETRAINED / "echo").glob("step-*"))
    models = {f"echo/{folder.name}": folder for folder in series}
    return {"story": PRETRAINED / "story", **models}


def write(folder: Path) -> None:
    """Write all scripts to a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(LIVE / MACHINE, folder)
    if (LIVE / "figures").is_dir():
        shutil.copytree(LIVE / "figures", folder / "figures")
    (folder / "engine.js").write_text(engine_script(), "utf-8")
    for name, model in shipped().items():
        path = folder / f"{name}.js"
        path.parent.mkdir(exist_ok=True)
        path.write_text(model_script(name, model), "utf-8")


def begin(app: Sphinx) -> None:
    """Write the scripts beside the pages, before these are built."""
    if app.builder.format == "html":
        write(Path(app.outdir) / "_static" / "live")


def add_script(app: Sphinx, *about: Any) -> None:
    """Let a page that has a figure load `figures/page.js`, and others not."""
    from docutils.nodes import raw  # only Sphinx needs it

    document = about[-1]  # None for pages such as the index
    parts = document.findall(raw) if document else ()
    if any("<gpt2-live" in part.astext() for part in parts):
        app.add_js_file("live/figures/page.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx call `begin` and `add_script`."""
    app.connect("builder-inited", begin)
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

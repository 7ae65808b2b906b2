"""The live figures of the book's pages, in a notebook, for any model.

The same scripts as in the pages (`book/live`) run in JupyterLab, Colab and VS
Code, through anywidget. The model's files are handed to the browser; nothing
else of the kernel is needed, so a figure is as fast as in the page.
"""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import anywidget
import torch
import traitlets
from matplotlib import rc_context
from matplotlib.figure import Figure

import gpt2
from gpt2.evaluation.circuits import record_attention
from gpt2_book import drawing

BOOK = Path(__file__).parents[1] / "book"
# Those that are about a model and a text. `plane` has no model, and to open
# files, as `own-model` does, there is `gpt2.load`.
FIGURES = (
    *("next-token", "merges", "embeddings", "threads", "heads", "stream"),
    *("sampling", "ablation", "patching", "whole", "training"),
)
GLUE = """
let count = 0;
GPT2.inNotebook = true;
async function render({ model, el }) {
  const id = `notebook ${Date.now()} ${count++}`;
  const frame = document.createElement("gpt2-live");
  // Or JupyterLab would take a slider's arrow keys, and D D as a command.
  frame.addEventListener("focusin", ({ target }) =>
    target.setAttribute("data-lm-suppress-shortcuts", "true"));
  const body = document.createElement("div");
  body.className = "live-body";
  frame.append(body);
  el.append(frame);
  const series = model.get("models").map(([step, files]) => {
    const name = `${id} ${step}`;
    GPT2.shipped[name] = files;
    return [step, name];
  });
  const forget = () => series.forEach(([, name]) => delete GPT2.shipped[name]);
  try {
    const machine = await GPT2.machine(series.at(-1)[1]);
    const draw = GPT2.figures[model.get("figure")];
    const text = model.get("text");
    const close = await draw(body, machine, { text, series });
    return () => {
      forget();
      (close ?? (() => machine.close()))();
    };
  } catch (error) {
    forget();
    body.textContent = error.message;
  }
}
export default { render };
"""


@cache
def scripts() -> str:
    """Return all scripts of the figures as one module.

    Raises:
        FileNotFoundError: The package was installed without the book.
    """
    source = BOOK / "live_scripts.py"
    if not source.exists():
        raise FileNotFoundError(
            f"the scripts of the live figures are missing ({BOOK / 'live'}): "
            "they come with a clone of the repository"
        )
    spec = importlib.util.spec_from_file_location("live_scripts", source)
    assert spec is not None and spec.loader is not None
    live_scripts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(live_scripts)
    figures = BOOK / "live" / "figures"
    own = [figures / "kit.js", *(figures / f"{n}.js" for n in FIGURES)]
    parts = [
        "globalThis.GPT2 ??= {};\nGPT2.figures ??= {};\n",
        live_scripts.engine_script(),
        (BOOK / "live" / "machine.js").read_text("utf-8"),
        *(path.read_text("utf-8") for path in own),
        GLUE,
    ]
    return "".join(parts)


@cache
def _widget_class() -> type[anywidget.AnyWidget]:
    class Live(anywidget.AnyWidget):
        """A live figure; see `gpt2_book.live`."""

        _esm = scripts()
        _css = (BOOK / "live/figures/style.css").read_text("utf-8")
        figure = traitlets.Unicode().tag(sync=True)
        text = traitlets.Unicode().tag(sync=True)
        models: Any = traitlets.List().tag(sync=True)  # of steps and files
        still = ""  # SVG, for where no widget can be shown

        def _repr_mimebundle_(self, **options: Any) -> Any:
            """Add the still to what shows the widget."""
            bundle = super()._repr_mimebundle_(**options)
            data = bundle[0] if isinstance(bundle, tuple) else bundle
            own = {"image/svg+xml": self.still, "text/plain": self.figure}
            return {**(data or {}), **own}

    return Live


def read_files(model: gpt2.GPT2, tokenizer: gpt2.Tokenizer) -> dict[str, str]:
    """Return the files of a checkpoint as text; the weights in base64."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        gpt2.save(model, tokenizer, folder)
        return {
            path.name: (
                base64.b64encode(path.read_bytes()).decode("ascii")
                if path.suffix == ".safetensors"
                else path.read_text("utf-8")
            )
            for path in sorted(folder.iterdir())
            if path.suffix in {".json", ".safetensors", ".txt"}
        }


@torch.no_grad()
def draw_still(
    figure: str, model: gpt2.GPT2, tokenizer: gpt2.Tokenizer, text: str
) -> str:
    """Draw the still of a figure as SVG: its heads, or the next token."""
    text = text.partition("|")[0].strip()
    with rc_context(drawing.STYLE):
        picture = Figure(figsize=(5.2, 3.0))
        if figure == "heads":
            tokens = torch.tensor([tokenizer.encode_prompt(text)])
            weights = record_attention(model, tokens)[:, 0]
            n_layer, n_head = weights.shape[:2]
            picture.set_size_inches(5.2, 5.2 * n_layer / n_head)
            for i, axes in enumerate(picture.subplots(n_layer, n_head).flat):
                shades = drawing.shades("probability")
                drawing.shade(axes, weights.flatten(0, 1)[i], shades)
                axes.set(
                    xticks=[], yticks=[], title=f"{i // n_head}.{i % n_head}"
                )
        else:
            found = gpt2.predict(model, tokenizer, text, 8).candidates
            axes = picture.subplots()
            labels = [candidate.text for candidate in found]
            drawing.bars(axes, labels, [c.probability for c in found])
            axes.set_title(f"after {text}")
        return drawing.svg(picture)


def live(
    figure: str,
    model: gpt2.GPT2 | Mapping[int, gpt2.GPT2],
    tokenizer: gpt2.Tokenizer,
    text: str,
) -> anywidget.AnyWidget:
    """Show a live figure of the book for a model in memory.

    Args:
        figure: One of `FIGURES`.
        model: What it is about, as it is now; after more training, call this
            again. For `training`, the model at two steps or more, by the
            step.
        tokenizer: The model's.
        text: What the figure begins with; two texts with a `|` between them
            for `patching`, a list of words for `training`.

    Returns:
        A widget. Its stored output has a picture, for pages without a kernel;
        JupyterLab shows the figure again when the cell is run again.

    Raises:
        ValueError: There is no such figure for a model in memory, or it wants
            one model and got several, or the other way round.
        FileNotFoundError: The package was installed without the book.
    """
    if figure not in FIGURES:
        names = ", ".join(FIGURES)
        raise ValueError(f"figure must be one of {names}; got {figure!r}")
    models = model if isinstance(model, Mapping) else {0: model}
    if (len(models) > 1) != (figure == "training"):
        wanted = "two or more" if figure == "training" else "one"
        raise ValueError(f"{figure} wants {wanted}; got {len(models)} models")
    steps = sorted(models)
    files = [[step, read_files(models[step], tokenizer)] for step in steps]
    widget = _widget_class()(figure=figure, text=text, models=files)
    last = models[steps[-1]]
    cast(Any, widget).still = draw_still(figure, last, tokenizer, text)
    return widget

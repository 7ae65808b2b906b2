"""Give every checkpoint and tokenizer to every reader, and compare.

    make interop                        # this, and the rest
    python interop/run.py --only gpt2   # the columns of one reader anew
    python interop/run.py --parts tokenizers

The results go to `interop.json`, from which `tables.py` writes the tables of
the book's page.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the imports below
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import readers  # noqa: E402
import reference  # noqa: E402
import settings  # noqa: E402
import tables  # noqa: E402
from processes import Asked, say  # noqa: E402

RESULTS = HERE / "interop.json"

# Whose version is stated for each reader.
PACKAGES = {
    "gpt2": "gpt2-from-scratch",
    "transformers, eager": "transformers",
    "tokenizers": "tokenizers",
    "tiktoken": "tiktoken",
    "ONNX Runtime": "onnxruntime",
    "CTranslate2": "ctranslate2",
    "llama.cpp": "llama-cpp-python",
    "keras-hub": "keras-hub",
}


def compare_models(names: list[str], folder: Path) -> dict[str, Any]:
    """Return, for each setting, what it changes and what each reader says."""
    found: dict[str, Any] = {}
    for number, setting in enumerate(settings.MODELS):
        path = folder / f"model-{number}"
        settings.write_model(setting, path)
        n_tokens = json.loads((path / "config.json").read_text())["vocab_size"]
        ids = settings.probe(min(n_tokens, settings.N_TOKENS))
        expected = reference.logits(path, ids)[:, : settings.N_TOKENS]
        ignored = _ignored(setting, path, ids)
        np.savez(path.with_suffix(".npz"), expected=expected, ignored=ignored)
        found[setting.name] = {
            "half": setting.dtype.itemsize == 2,
            "ignored": _largest(ignored - expected),
            "readers": {},
            "job": {"folder": str(path), "ids": ids},
        }
    for name in names:
        reader = Asked(HERE / "readers.py", "models", name)
        for setting, entry in found.items():
            say(f"{name}: {setting}")
            to = Path(entry["job"]["folder"]).with_suffix(".npy")
            answer = reader.ask({**entry["job"], "to": str(to)})
            if "dtype" in answer:
                right = np.load(to.with_suffix(".npz"))
                answer = _difference(np.load(to), **right)
            entry["readers"][name] = _without(answer, folder)
        reader.stop()
    for entry in found.values():
        del entry["job"]
    return found


def _ignored(setting: settings.Model, path: Path, ids: list[int]) -> Any:
    """Return the logits of a reader that takes GPT-2's own settings."""
    plain = {
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
    }
    usual = {key: plain[key] for key in setting.fields if key in plain}
    if setting.fields.get("tie_word_embeddings") is False:
        usual["tied"] = True
    return reference.logits(path, ids, **usual)[:, : settings.N_TOKENS]


def _difference(came: Any, expected: Any, ignored: Any) -> dict[str, Any]:
    """Compare the logits of the tokens; rows of padding do not count."""
    if came.shape[0] != len(expected) or came.shape[1] < expected.shape[1]:
        return {"wrong": f"logits of shape {list(came.shape)}"}
    came = came[:, : expected.shape[1]]
    if not np.isfinite(came).all():
        return {"wrong": "logits that are not finite"}
    return {
        "difference": _largest(came - expected),
        "from_ignored": _largest(came - ignored),
    }


def _largest(difference: Any) -> float:
    return float(f"{abs(difference).max():.3g}")


def compare_tokenizers(names: list[str], folder: Path) -> dict[str, Any]:
    """Return the ids of every text, for each setting and each reader."""
    found: dict[str, Any] = {}
    texts = list(settings.TEXTS.values())
    for number, setting in enumerate(settings.TOKENIZERS):
        path = folder / f"tokenizer-{number}"
        settings.write_tokenizer(setting, path)
        found[setting.name] = {"folder": str(path), "readers": {}}
    for name in names:
        reader = Asked(HERE / "readers.py", "tokenizers", name)
        for setting, entry in found.items():
            say(f"{name}: {setting}")
            job = {"folder": entry["folder"], "texts": texts}
            entry["readers"][name] = _without(reader.ask(job), folder)
        reader.stop()
    for entry in found.values():
        del entry["folder"]
    return found


def _without(answer: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Take the temporary folder's path out of an answer."""
    place = re.escape(str(folder)) + r"/(?:model|tokenizer)-\d+"
    text = re.sub(rf"{place}/?", "", json.dumps(answer))
    changed: dict[str, Any] = json.loads(text)
    return changed


def merge(
    old: dict[str, Any], new: dict[str, Any], order: Iterable[str]
) -> dict[str, Any]:
    """Put new columns over the old ones of the same settings."""
    for setting, entry in new.items():
        columns = old.get(setting, {}).get("readers", {}) | entry["readers"]
        entry["readers"] = {n: columns[n] for n in order if n in columns}
    return new


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = list(dict.fromkeys([*readers.MODELS, *readers.TOKENIZERS]))
    parser.add_argument("--only", nargs="+", choices=known, default=known)
    parts = ("models", "tokenizers")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    options = parser.parse_args()
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = {
        "versions": old.get("versions", {})
        | {
            package: version(package)
            for reader, package in {"": "torch", **PACKAGES}.items()
            if reader in ("", *options.only)
        },
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "texts": settings.TEXTS,
        "models": old.get("models", {}),
        "tokenizers": old.get("tokenizers", {}),
    }
    for part, compare, names in (
        ("models", compare_models, readers.MODELS),
        ("tokenizers", compare_tokenizers, readers.TOKENIZERS),
    ):
        if part in options.parts:
            chosen = [name for name in names if name in options.only]
            with tempfile.TemporaryDirectory() as folder:
                found = compare(chosen, Path(folder))
            results[part] = merge(results[part], found, names)
    text = json.dumps(results, indent=1)
    one_line = re.sub(
        r"\[[\s\d,]+\]", lambda ids: " ".join(ids[0].split()), text
    )
    RESULTS.write_text(one_line + "\n")
    tables.write()


if __name__ == "__main__":
    main()

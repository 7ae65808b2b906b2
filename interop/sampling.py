"""Ask every sampler every question, and keep the answers.

    make interop                # this, after everything else
    python interop/sampling.py  # this alone

The answers go to `sampling.json`, from which `tables.py` writes the tables of
the book's page.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the imports below
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import questions  # noqa: E402
import samplers  # noqa: E402
import tables  # noqa: E402
import torch  # noqa: E402
from processes import Asked, say  # noqa: E402

import gpt2  # noqa: E402
from gpt2.config import GPT2Config  # noqa: E402
from gpt2.weights.gguf_writing import write_gguf  # noqa: E402

RESULTS = HERE / "sampling.json"
PACKAGES = (
    *("gpt2-from-scratch", "transformers", "ctranslate2"),
    *("llama-cpp-python", "torch"),
)
MOST = 8
"""Where more tokens are left, only their number is kept."""


def write_model(logits: dict[int, float], folder: Path) -> None:
    """Write a GPT-2 that gives these logits after every text."""
    tokenizer = gpt2.Tokenizer.bytes_only()
    model = gpt2.GPT2(
        GPT2Config(
            n_vocab=tokenizer.n_vocab,
            n_ctx=128,
            n_embd=32,
            n_head=2,
            n_layer=1,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.ln_f.bias[0] = 1
        model.wte.weight[:, 0] = questions.IMPOSSIBLE
        for token, logit in logits.items():
            model.wte.weight[token, 0] = logit
    gpt2.save(model, tokenizer, folder / "hf")
    write_gguf(folder / "model.gguf", model, tokenizer, "f32")
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(folder / "hf")).convert(str(folder / "ct2"))


def numbered(names: str) -> list[int]:
    """Return the ids of letters."""
    return gpt2.Tokenizer.bytes_only().encode(names)


def token(name: str) -> int:
    """Return the id of a token of a plant."""
    return int(name) if name.isdigit() else numbered(name)[0]


def readable(answer: dict[str, Any]) -> dict[str, Any]:
    """Name the tokens of an answer."""
    name = gpt2.Tokenizer.bytes_only().decode
    ids = answer.get("ids")
    if ids and len(ids) <= MOST:
        return {"written": name(ids)}
    shares = answer.get("probabilities")
    if not shares:
        return answer
    if len(shares) > MOST:
        return {"kept": len(shares)}
    return {"probabilities": {name([i]): round(p, 6) for i, p in shares}}


def add_order(entry: dict[str, Any], pair: tuple[str, str]) -> None:
    """Add to each answer which filter of the pair came first."""
    entry["pair"] = pair
    for answer in entry["answers"].values():
        if left := answer.get("probabilities"):
            question = questions.PAIRS[pair]
            answer["first"] = questions.earlier(question, pair, left)


def job(question: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put a question into ids, for `samplers.py`."""
    return {
        "folder": str(folder / question["plant"]),
        "settings": question["settings"],
        "defaults": question["defaults"],
        "prompt": numbered(question["prompt"]),
        "generated": numbered(question["generated"]),
        "greedy": question["greedy"],
        "in_result": question["in_result"],
    }


def main() -> None:
    """Ask, and write the answers and the tables."""
    found = {
        part: [{**asdict(q), "answers": {}} for q in group]
        for part, group in questions.QUESTIONS.items()
    }
    asked = [question for group in found.values() for question in group]
    with tempfile.TemporaryDirectory() as folder:
        for name, logits in questions.PLANTS.items():
            ids = {token(n): logit for n, logit in logits.items()}
            write_model(ids, Path(folder) / name)
        for name in samplers.PROGRAMS:
            program = Asked(HERE / "samplers.py", name)
            for question in asked:
                say(f"{name}: {question['words']}")
                answer = program.ask(job(question, Path(folder)))
                question["answers"][name] = readable(answer)
            program.stop()
    for group, pair in zip(found["order"], questions.PAIRS, strict=True):
        add_order(group, pair)
    results = {
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "draws": samplers.DRAWS,
        "questions": found,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    tables.write()


if __name__ == "__main__":
    main()

"""A random GPT-2, written once in the format of every engine.

Random weights take as long as trained ones. All engines get the same weights,
so that their outputs can be compared.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache, partial
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

import torch
from graphs import write_onnx, write_openvino

import gpt2
from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2.tokenizer.bpe import END_OF_TEXT, single_bytes
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights.gguf_writing import write_gguf
from gpt2.weights.loading import load_model

LLAMA_TYPES = ("F32", "BF16", "Q8_0")
LLAMA_QUANTIZED = ("Q4_0", "Q4_K_M")
CT2_TYPES = ("float32", "bfloat16", "int8_float32")
GRAPH_TYPES = ("float32", "int8", "int4")


def write_all(folder: Path, size: str = "gpt2") -> None:
    """Write what is missing of `folder/hf`, `folder/*.gguf` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    config, source = GPT2Config.from_name(size), folder / "hf"
    _once(source, lambda path: _write_original(path, config))

    @cache
    def model() -> GPT2:
        return load_model(source).requires_grad_(False)

    for dtype in CT2_TYPES:
        _once(
            folder / f"ct2-{dtype}",
            partial(_write_ctranslate2, source, dtype=dtype),
        )
    for name in LLAMA_TYPES:
        _once(
            folder / f"{name}.gguf",
            lambda path, name=name: write_gguf(
                path, model(), _tokenizer(config), name.lower()
            ),
        )
    for name in LLAMA_QUANTIZED:
        full = folder / "F32.gguf"
        _once(folder / f"{name}.gguf", partial(quantize, full, name=name))
    for kind in GRAPH_TYPES:
        _once(
            folder / f"{kind}.onnx",
            lambda path, kind=kind: write_onnx(path, model(), kind),
        )
        _once(
            folder / f"openvino-{kind}",
            lambda path, kind=kind: write_openvino(
                path, model(), source, kind
            ),
        )


def _once(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` write a file or folder if it does not exist."""
    if path.exists():
        return
    draft = path.with_name(f"draft-{path.name}")
    if draft.is_dir():
        shutil.rmtree(draft)
    write(draft)
    draft.replace(path)


def _write_original(folder: Path, config: GPT2Config) -> None:
    torch.manual_seed(0)
    gpt2.save(GPT2(config).eval().requires_grad_(False), None, folder)
    _write_vocabulary(folder, config)


def quantize(source: Path, target: Path, name: str) -> None:
    """Let llama.cpp quantise, as its `llama-quantize` does."""
    import llama_cpp as llama

    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{name}")
    code = llama.llama_model_quantize(
        str(source).encode(), str(target).encode(), params
    )
    if code:
        raise RuntimeError(f"llama_model_quantize returns {code}")


def words(config: GPT2Config) -> list[str]:
    """Return a name for each token, which the engines require."""
    names = [f"t{i}" for i in range(config.n_vocab - 1)]
    return [*names, "<|endoftext|>"]


def _write_vocabulary(folder: Path, config: GPT2Config) -> None:
    ids = {word: i for i, word in enumerate(words(config))}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    facts = {"tokenizer_class": "GPT2Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))


def _write_ctranslate2(source: Path, target: Path, dtype: str) -> None:
    from ctranslate2.converters import TransformersConverter

    converter = TransformersConverter(str(source))
    converter.convert(str(target), quantization=dtype, force=True)


def _tokenizer(config: GPT2Config) -> Tokenizer:
    """Return a tokenizer with as many tokens; beyond bytes, pairs of them."""
    n_tokens = config.n_vocab - 1
    pairs = (bytes(pair) for pair in product(range(256), repeat=2))
    tokens = islice(chain(single_bytes(bytes(range(256))), pairs), n_tokens)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return Tokenizer(ranks, {END_OF_TEXT: n_tokens})

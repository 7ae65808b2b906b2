"""A random GPT-2, written once in the format of every engine.

Random weights take as long as trained ones. All engines get the same weights,
so that their outputs can be compared.
"""

from __future__ import annotations

import json
from itertools import chain, islice, product
from pathlib import Path

import torch

import gpt2
from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2.tokenizer.bpe import END_OF_TEXT, single_bytes
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights.gguf_writing import write_gguf

LLAMA_TYPES = ("F32", "BF16", "Q8_0")
CT2_TYPES = ("float32", "bfloat16", "int8_float32")


def write_all(folder: Path, size: str = "gpt2") -> None:
    """Write `folder/hf`, `folder/ct2-*` and `folder/*.gguf`, once."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = GPT2Config.from_name(size)
    model = GPT2(config).eval().requires_grad_(False)
    gpt2.save(model, None, folder / "hf")
    _write_vocabulary(folder / "hf", config)
    for dtype in CT2_TYPES:
        _write_ctranslate2(folder / "hf", folder / f"ct2-{dtype}", dtype)
    for name in LLAMA_TYPES:
        path = folder / f"{name}.gguf"
        write_gguf(path, model, _tokenizer(config), name.lower())
    (folder / "done").touch()


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

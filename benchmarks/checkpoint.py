"""A random GPT-2, written once in the format of every engine.

Random weights take as long as trained ones. All engines get the same weights,
so that their outputs can be compared.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

import gpt2
from gpt2.config import GPT2Config
from gpt2.model import GPT2

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
        _write_gguf(folder / f"{name}.gguf", model, name)
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


def _write_gguf(path: Path, model: GPT2, name: str) -> None:
    """Write llama.cpp's format, whose linear maps are [out, in]."""
    import gguf

    config = model.config
    kind = gguf.GGMLQuantizationType[name]
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.inner_size)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(
        {"F32": 0, "BF16": 32, "Q8_0": 7}[name]  # llama.cpp's own numbers
    )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words(config))
    writer.add_token_types([1] * (config.n_vocab - 1) + [3])
    writer.add_token_merges(["t 0"])
    writer.add_bos_token_id(config.n_vocab - 1)
    writer.add_eos_token_id(config.n_vocab - 1)
    tensors = dict(_gguf_tensors(model))
    for key, tensor in tensors.items():
        values = np.ascontiguousarray(tensor.numpy())
        is_matrix = tensor.dim() == 2 and key != "position_embd.weight"
        used = kind if is_matrix else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(values, used)
        writer.add_tensor(key, data, raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_tensors(model: GPT2) -> list[tuple[str, torch.Tensor]]:
    tensors = [
        ("token_embd.weight", model.wte.weight),
        ("position_embd.weight", model.wpe.weight),
        ("output_norm.weight", model.ln_f.weight),
        ("output_norm.bias", model.ln_f.bias),
    ]
    for i, layer in enumerate(model.h):
        for name, part in (
            ("attn_norm", layer.ln_1),
            ("attn_qkv", layer.attn.c_attn),
            ("attn_output", layer.attn.c_proj),
            ("ffn_norm", layer.ln_2),
            ("ffn_up", layer.mlp.c_fc),
            ("ffn_down", layer.mlp.c_proj),
        ):
            weight = part.weight.T if part.weight.dim() == 2 else part.weight
            tensors.append((f"blk.{i}.{name}.weight", weight))
            tensors.append((f"blk.{i}.{name}.bias", part.bias))
    return tensors

"""Write a GPT-2 in GGUF, the format of llama.cpp.

The file holds everything: the config as named values, the vocabulary, and the
tensors. Names and values are those that llama.cpp's own converter writes for a
GPT-2. Linear maps are [out, in]. As in that converter, only matrices are
quantized; norms, biases and the positions stay float32.

Source: ggml-org/llama.cpp, convert_hf_to_gguf.py (`GPT2Model`), and
src/llama-model.cpp for what the reader does with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.config import GPT2Config
from gpt2.files.writing import replacing
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights.errors import CheckpointError
from gpt2.weights.gguf_vocabulary import Vocabulary, gguf_vocabulary

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from gpt2.model import GPT2

TYPES = ("f32", "bf16", "f16", "q8_0")
"""The types of matrices, by llama.cpp's names in lower case."""

_OWN_TYPE = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_FILE_TYPE = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}  # llama.cpp's numbers
_BLOCK = 32  # numbers that share a scale in Q8_0
_POSITIONS = "wpe.weight"

_OUTSIDE = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
_IN_LAYER = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """Return llama.cpp's name for one of the model's tensors.

    >>> gguf_name("h.0.attn.c_attn.weight")
    'blk.0.attn_qkv.weight'
    """
    part, _, kind = name.rpartition(".")
    if part in _OUTSIDE:
        return f"{_OUTSIDE[part]}.{kind}"
    _, layer, part = part.split(".", 2)
    return f"blk.{layer}.{_IN_LAYER[part]}.{kind}"


def write_gguf(
    path: Path, model: GPT2, tokenizer: Tokenizer, kind: str | None = None
) -> list[str]:
    """Write a GGUF file, whole or not at all.

    Args:
        path: The file. It is replaced if it exists.
        model: The model. Rows of its embedding without a token are left out.
        tokenizer: Its tokenizer.
        kind: One of `TYPES`; None for that of the model's dtype.

    Returns:
        Where the file differs from the model, one sentence for each.

    Raises:
        CheckpointError: llama.cpp would compute something else, the type
            cannot hold a number of the model, or the tokenizer has more
            tokens than the model.
        OSError: The file cannot be written.
    """
    own = str(model.wte.weight.dtype).removeprefix("torch.")
    kind = kind or _OWN_TYPE[own]
    check_config(model.config, kind)
    vocabulary = gguf_vocabulary(tokenizer)
    n_left = model.config.n_vocab - len(vocabulary.tokens)
    if n_left < 0:
        raise CheckpointError(
            f"the tokenizer has {len(vocabulary.tokens)} entries, and the "
            f"model only {model.config.n_vocab}"
        )
    with replacing(path.parent, path.name) as stage:
        _write(stage / path.name, model, vocabulary, kind)
    notes = list(vocabulary.notes)
    if n_left > 0:
        notes.append(
            f"{n_left} rows of the embedding have no token and are left out"
        )
    return notes


def check_config(config: GPT2Config, kind: str) -> None:
    """Refuse a model that llama.cpp cannot run as it is.

    Raises:
        CheckpointError: It cannot; the message names the setting.
    """
    if config.activation != "gelu_new":
        raise CheckpointError(
            f"the model has activation={config.activation!r}, and llama.cpp "
            f"computes every GPT-2 with 'gelu_new'; it cannot be written as "
            f"GGUF"
        )
    if kind == "q8_0" and config.n_embd % _BLOCK:
        raise CheckpointError(
            f"the model has n_embd={config.n_embd}, and Q8_0 needs a multiple "
            f"of {_BLOCK}; choose --type f16"
        )
    if kind == "q8_0" and config.inner_size % _BLOCK:
        raise CheckpointError(
            f"the model has n_inner={config.inner_size}, and Q8_0 needs a "
            f"multiple of {_BLOCK}; choose --type f16"
        )


def _write(path: Path, model: GPT2, vocabulary: Vocabulary, kind: str) -> None:
    """Write header, values and tensors, one tensor at a time."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "gpt2")
    _add_config(writer, model.config, path.stem, kind)
    vocabulary.add_to(writer)
    tensors = dict(_arranged(model, len(vocabulary.tokens)))
    types = {name: _type_of(name, t, kind) for name, t in tensors.items()}
    for name, tensor in tensors.items():
        _declare(writer, name, tensor, types[name])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors.items():
            writer.write_tensor_data(_numbers(name, tensor, types[name]))
    except OSError as error:
        if error.errno is not None:
            raise
        # NumPy says only how many numbers it has written.
        raise OSError(f"{path.name} cannot be written: {error}") from error
    finally:
        writer.close()


def _add_config(writer: Any, config: GPT2Config, name: str, kind: str) -> None:
    """Add the config's values."""
    from gguf import GGML_QUANT_VERSION

    writer.add_type("model")
    writer.add_name(name)
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.inner_size)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(_FILE_TYPE[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)


def _arranged(model: GPT2, n_rows: int) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor by the model's name, arranged as in the file.

    Args:
        model: The model.
        n_rows: How many rows of the token embedding to take.
    """
    for name, tensor in model.state_dict().items():
        if name == "wte.weight":
            yield name, tensor[:n_rows]
        elif tensor.dim() == 2 and name != _POSITIONS:
            yield name, tensor.T
        else:
            yield name, tensor


def _type_of(name: str, tensor: Tensor, kind: str) -> str:
    return kind if tensor.dim() == 2 and name != _POSITIONS else "f32"


def _declare(writer: Any, name: str, tensor: Tensor, kind: str) -> None:
    """Add a tensor's name, shape and type; its numbers are written later."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    raw = GGMLQuantizationType[kind.upper()]
    block, n_bytes = GGML_QUANT_SIZES[raw]
    shape = tuple(tensor.shape)
    size = prod(shape) // block * n_bytes
    # The second dtype decides; the first would count for plain arrays.
    dtype = np.dtype(np.float32)
    writer.add_tensor_info(gguf_name(name), shape, dtype, size, raw)


def _numbers(name: str, tensor: Tensor, kind: str) -> np.ndarray[Any, Any]:
    """Convert a tensor to the bytes of its type.

    Raises:
        CheckpointError: A number is too large for the type.
    """
    import numpy as np
    import torch
    from gguf import GGMLQuantizationType, quantize

    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}.get(kind)
    values = tensor.detach().to("cpu", dtype or torch.float32).contiguous()
    largest = values.abs().amax().float()
    if kind == "q8_0":  # the scale of a block is a float16
        largest = (largest / 127).half().float()
    if not largest.isfinite():
        raise CheckpointError(
            f"tensor {name!r} holds {tensor.abs().amax().item():g}, which is "
            f"too large for {kind.upper()}; choose --type f32"
        )
    if kind == "q8_0":
        # A step too small for a float16 is 0, whatever it is a multiple of.
        with np.errstate(over="ignore", invalid="ignore"):
            return quantize(values.numpy(), GGMLQuantizationType.Q8_0)
    if kind == "bf16":  # NumPy has no such dtype
        values = values.view(torch.int16)
    return values.numpy()

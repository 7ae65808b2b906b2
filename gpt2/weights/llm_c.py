"""Read the checkpoints of llm.c: a header of 256 integers, then the numbers.

The header says how large the model is. All tensors follow it without names,
gaps or checksums, first the embeddings, then each kind of tensor for all
layers, and the last norm. Everything is little-endian, and a linear map is
[out, in], as in PyTorch.

Source: karpathy/llm.c, train_gpt2.py (`write_model`) and train_gpt2.cu
(`gpt2_write_to_checkpoint`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING

from gpt2.files.reading import map_file
from gpt2.weights.errors import CheckpointError
from gpt2.weights.raw import DTYPE_BYTES, tensor_of

if TYPE_CHECKING:  # `inspect` needs no torch
    from torch import Tensor

_MAGIC_NUMBER = 20240326
MAGIC = _MAGIC_NUMBER.to_bytes(4, "little")
"""The first bytes of a checkpoint."""

_HEADER = Struct("<8i")
_HEADER_BYTES = 1024  # 256 numbers, of which 8 are used
_FIELDS = ("n_positions", "vocab_size", "n_layer", "n_head", "n_embd")
_DTYPES = {3: "F32", 5: "BF16"}  # by the version

# More than any GPT-2 has. The limit bounds the list of tensors: numbers that
# fit the file's size could still ask for millions of layers of width 1.
_MOST_LAYERS = 10_000


@dataclass(frozen=True)
class LlmCFile:
    """An opened file; only its numbers have not been read."""

    data: memoryview
    """The whole file, mapped."""
    dtype: str
    """By safetensors' name: `F32` or `BF16`."""
    fields: dict[str, int]
    """The sizes, as a Hugging Face `config.json` names them."""
    shapes: dict[str, tuple[int, ...]]
    """The shape of every tensor, by the model's name for it, in the order of
    the file. Rows of padding at the end of `wte.weight` are left out."""
    offsets: dict[str, int]
    """The first byte of every tensor."""
    n_padding: int
    """How many rows of padding `wte.weight` has in the file."""

    def bytes_of(self, name: str) -> memoryview:
        """Return the part of the file that holds a tensor."""
        begin, n_numbers = self.offsets[name], prod(self.shapes[name])
        return self.data[begin : begin + n_numbers * DTYPE_BYTES[self.dtype]]

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, mapped: writing to it never changes the file."""
        data, begin = self.bytes_of(name), self.offsets[name]
        return tensor_of(data, self.dtype, begin).view(self.shapes[name])


def open_llm_c(path: Path) -> LlmCFile:
    """Open a checkpoint of llm.c.

    Raises:
        CheckpointError: It is of another version, its sizes are not those of
            a GPT-2, or the file does not have as many bytes as they need.
    """
    data = map_file(path, CheckpointError)
    dtype, n_rows, fields = _read_header(data, path)
    width = fields["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (n_rows, width),
        "wpe.weight": (fields["n_positions"], width),
    }
    for name, shape in _layer_shapes(width).items():
        layers = range(fields["n_layer"])
        shapes |= {f"h.{i}.{name}": shape for i in layers}
    shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,)}
    offsets, begin = {}, _HEADER_BYTES
    for name, shape in shapes.items():
        offsets[name] = begin
        begin += prod(shape) * DTYPE_BYTES[dtype]
    n_vocab = fields["vocab_size"]
    shapes["wte.weight"] = (n_vocab, width)  # llm.c never reads the others
    return LlmCFile(data, dtype, fields, shapes, offsets, n_rows - n_vocab)


def _read_header(
    data: memoryview, path: Path
) -> tuple[str, int, dict[str, int]]:
    """Read the header, and compare its sizes with the file's.

    Returns:
        The dtype, the rows of `wte.weight`, and the config's fields.
    """
    if len(data) < _HEADER_BYTES or bytes(data[:4]) != MAGIC:
        raise CheckpointError(
            f"{path} is not a checkpoint of llm.c: expected a header of "
            f"{_HEADER_BYTES:,} bytes that begins with {_MAGIC_NUMBER}"
        )
    _, version, *sizes, n_rows = _HEADER.unpack_from(data)
    if version not in _DTYPES:
        raise CheckpointError(
            f"{path} is a checkpoint of llm.c of version {version}; versions "
            f"3 (float32) and 5 (bfloat16) can be read: write it again with a "
            f"current train_gpt2.py"
        )
    fields = dict(zip(_FIELDS, sizes, strict=True))
    n_vocab, n_layer = fields["vocab_size"], fields["n_layer"]
    if min(sizes) < 1 or n_rows < n_vocab or n_layer > _MOST_LAYERS:
        said = ", ".join(f"{name}={size}" for name, size in fields.items())
        raise CheckpointError(
            f"{path}: the header has {said}, and {n_rows} rows for the "
            f"vocabulary; expected positive numbers, at least as many rows as "
            f"tokens, and at most {_MOST_LAYERS:,} layers"
        )
    width = fields["n_embd"]
    n_numbers = (n_rows + fields["n_positions"] + 2) * width
    n_numbers += n_layer * sum(map(prod, _layer_shapes(width).values()))
    expected = _HEADER_BYTES + n_numbers * DTYPE_BYTES[_DTYPES[version]]
    if expected != len(data):
        raise CheckpointError(
            f"{path}: the model in the header takes {expected:,} bytes, and "
            f"the file has {len(data):,}; the download may be incomplete"
        )
    return _DTYPES[version], n_rows, fields


def _layer_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a layer's tensors, in the order of the file."""
    return {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.c_attn.weight": (3 * width, width),
        "attn.c_attn.bias": (3 * width,),
        "attn.c_proj.weight": (width, width),
        "attn.c_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    }

"""Weights in files: find them, see what they hold, and map them into memory.

Three formats are read: safetensors (one file, or several with an index),
PyTorch's pickles (the same), and TensorFlow's checkpoints, in which OpenAI
published GPT-2.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.weights import tensorflow
from gpt2.weights.errors import CheckpointError
from gpt2.weights.layout import DTYPE_BYTES, WEIGHT_DTYPES, TensorInfo

if TYPE_CHECKING:  # looking into a file should not wait for torch
    from torch import Tensor

SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
INDEX_FILES = (
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)

# A header that is larger than this is not one of a GPT-2; its JSON is not
# even parsed. The one of GPT-2 XL has some 60 kilobytes.
_LARGEST_HEADER = 16_000_000


@dataclass(frozen=True)
class Weights:
    """An opened checkpoint: what it holds is known, its data not yet read."""

    path: Path
    """The file, or the index of several."""
    format: str
    """`safetensors`, `PyTorch` or `TensorFlow`."""
    infos: Mapping[str, TensorInfo]
    """Every tensor, under the file's own name for it."""
    read: Callable[[str], Tensor]
    """Return one of them, mapped from the file: writing to it changes memory
    and never the file."""


def find_weights(folder: Path) -> Path | None:
    """Return the file that `open_weights` should open in `folder`, if any.

    Where there are several kinds, safetensors come first and TensorFlow last.
    """
    for name in (SINGLE_FILES[0], INDEX_FILES[0], *SINGLE_FILES, *INDEX_FILES):
        if (folder / name).is_file():
            return folder / name
    return tensorflow.find(folder)


def open_weights(path: Path) -> Weights:
    """Open a file of weights, or the index of several, by its name.

    Raises:
        CheckpointError: The file is missing, damaged, or of no known format.
    """
    if path.name.endswith(".index.json"):
        return _open_shards(path)
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if path.suffix in (".bin", ".pt", ".pth"):
        return _open_pickle(path)
    if path.suffix == ".index":
        return _open_tensorflow(path)
    raise CheckpointError(
        f"{path} is not called like a file of weights: *.safetensors, *.bin, "
        f"*.pt, *.index.json, or model.ckpt.index"
    )


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        CheckpointError: It cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def read_shard_index(path: Path) -> dict[str, str]:
    """Read which file beside an index holds which tensor.

    Raises:
        CheckpointError: The index is damaged, or names a file elsewhere.
    """
    index = read_json(path)
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{path} has no 'weight_map'")
    for file in files.values():
        plain = isinstance(file, str) and Path(file).name == file
        if not plain or file.endswith(".index.json"):
            raise CheckpointError(
                f"{path} names {file!r}, which is not a file of weights "
                f"beside it"
            )
    return files


def read_safetensors_header(path: Path) -> dict[str, TensorInfo]:
    """Read what a safetensors file holds, and nothing of the data.

    The file begins with the length of the header (eight bytes, little-endian)
    and the header, a JSON object with dtype, shape and place of each tensor;
    the data follow. See https://huggingface.co/docs/safetensors.

    Raises:
        CheckpointError: The header is damaged, or claims more than the file
            holds.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                raise CheckpointError(
                    f"{path} is not a safetensors file: its first 8 bytes say "
                    f"that a header of {length:,} bytes follows, and the file "
                    f"has {size:,} bytes"
                )
            header = json.loads(
                file.read(length), object_pairs_hook=_without_repeats
            )
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is not a JSON object")
    header.pop("__metadata__", None)
    room = size - 8 - length
    return {name: _info(path, name, header[name], room) for name in header}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of a JSON file, in which no name may come twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} comes twice")
    return fields


def _info(path: Path, name: str, entry: Any, room: int) -> TensorInfo:
    """Read one tensor's entry; `room` is how many bytes of data there are."""
    try:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or not isinstance(dtype, str):
        raise CheckpointError(
            f"{path}: tensor {name!r} has the entry {entry!r:.80}, without a "
            f"proper dtype, shape and data_offsets"
        )
    if end > room:
        raise CheckpointError(
            f"{path}: tensor {name!r} should lie at bytes {begin:,} to "
            f"{end:,} of the data, and there are only {room:,}; the file may "
            f"not have been fetched whole"
        )
    if dtype not in DTYPE_BYTES:
        raise CheckpointError(
            f"{path}: tensor {name!r} has dtype {dtype}; expected one of "
            f"{', '.join(DTYPE_BYTES)}"
        )
    if (needed := prod(shape) * DTYPE_BYTES[dtype]) != end - begin:
        raise CheckpointError(
            f"{path}: tensor {name!r}, {dtype} {list(shape)}, takes {needed:,}"
            f" bytes, and the header gives it {end - begin:,}"
        )
    return TensorInfo(dtype, shape, path.name)


def _open_safetensors(path: Path) -> Weights:
    infos = read_safetensors_header(path)

    @cache  # opened for each tensor, the file would be mapped as often
    def opened() -> Any:
        from safetensors import safe_open

        return safe_open(path, framework="pt")

    def read(name: str) -> Tensor:
        from safetensors import SafetensorError

        try:
            tensor: Tensor = opened().get_tensor(name)
            return tensor
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error

    return Weights(path, "safetensors", infos, read)


def _open_pickle(path: Path) -> Weights:
    """Open one of PyTorch's own files, without running what it may contain."""
    import torch

    try:
        # A file of today's format, a zip, can be mapped; older ones are read.
        loaded = torch.load(
            path,
            map_location="cpu",
            weights_only=True,
            mmap=zipfile.is_zipfile(path),
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a plain dictionary of tensors: it is damaged, or "
            f"to unpickle it would run code from it, and that is not done"
        ) from error
    except Exception as error:  # a damaged pickle can raise nearly any
        raise CheckpointError(
            f"{path} cannot be read as a PyTorch file: {error!r:.200}"
        ) from error
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path} holds a {type(loaded).__name__}, and a dictionary from "
            f"names to tensors was expected"
        )
    for name, tensor in loaded.items():
        plain = isinstance(tensor, torch.Tensor) and not tensor.is_meta
        if (
            not isinstance(name, str)
            or not plain
            or tensor.layout != torch.strided
        ):
            raise CheckpointError(
                f"{path} holds a {type(tensor).__name__} under {name!r:.80}, "
                f"and a plain tensor under a name was expected"
            )
    short = {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.int64: "I64",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
    infos = {
        name: TensorInfo(
            short.get(tensor.dtype, str(tensor.dtype)),
            tuple(tensor.shape),
            path.name,
        )
        for name, tensor in loaded.items()
    }
    return Weights(path, "PyTorch", infos, loaded.__getitem__)


def _open_shards(path: Path) -> Weights:
    """Open several files by the index that says which tensor is in which."""
    files = read_shard_index(path)
    shards = {
        file: open_weights(path.parent / file)
        for file in dict.fromkeys(files.values())
    }
    for name, file in files.items():
        if name not in shards[file].infos:
            raise CheckpointError(
                f"{path} promises tensor {name!r} in {file}, and it is not "
                f"there"
            )
    infos = {name: shards[files[name]].infos[name] for name in files}
    return Weights(
        path,
        next(iter(shards.values())).format,
        infos,
        lambda name: shards[files[name]].read(name),
    )


def _open_tensorflow(path: Path) -> Weights:
    """Open a TensorFlow checkpoint by its index."""
    entries = tensorflow.read_index(path)
    infos = {}
    for name, entry in entries.items():
        shape = entry.shape
        known = tensorflow.gpt2_name(name) is not None
        if known and name.endswith("/w") and shape[:1] == (1,):
            shape = shape[1:]  # a linear map is a convolution of width 1
        infos[name] = TensorInfo(entry.dtype, shape, path.name)

    @cache
    def tensors() -> dict[str, Tensor]:
        readable = [n for n in infos if infos[n].dtype in WEIGHT_DTYPES]
        return tensorflow.read_tensors(path, readable)

    return Weights(
        path,
        "TensorFlow",
        infos,
        lambda name: tensors()[name].reshape(infos[name].shape),
    )

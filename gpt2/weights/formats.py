"""Find files of weights, list their tensors, and map them into memory.

There are four formats: safetensors and PyTorch's pickles, each as one file or
as several with an index; TensorFlow's checkpoints, in which OpenAI published
GPT-2; and the files of llm.c.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.files.pages import release_bytes, release_pages
from gpt2.files.reading import (
    field,
    is_there,
    open_file,
    read_json_object,
)
from gpt2.weights import archive, tensorflow
from gpt2.weights.errors import CheckpointError
from gpt2.weights.foreign import foreign_file
from gpt2.weights.layout import OUTPUT, TensorInfo, gpt2_name, our_names
from gpt2.weights.llm_c import MAGIC as LLM_C
from gpt2.weights.llm_c import open_llm_c
from gpt2.weights.raw import WEIGHT_DTYPES
from gpt2.weights.safetensors_header import read_safetensors_header

if TYPE_CHECKING:  # `inspect` needs no torch
    from torch import Tensor

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The files of weights, and the indexes of several, in order of preference."""

NANOGPT = "ckpt.pt"
"""The file in which nanoGPT saves a run."""

_MOST_REPEATS, _MOST_REPEATED_BYTES = 64, 7_000_000_000
"""How much larger than its file a model may be whose tensors share storage, as
layers can: GPT-2 XL has 48 layers, and takes 6.2 GB."""

_LARGEST_INDEX = 16_000_000  # bytes; GPT-2 XL's has 60,000


@dataclass(frozen=True)
class Weights:
    """An opened checkpoint: its tensors are known, their data not yet read."""

    path: Path
    """The file, or the index of several."""
    format: str
    """`safetensors`, `PyTorch`, `TensorFlow` or `llm.c`."""
    infos: Mapping[str, TensorInfo]
    """Every tensor, by the file's own name for it."""
    read: Callable[[str], Tensor]
    """Return a tensor by that name, mapped from the file. Writing to it
    changes memory and never the file."""
    verify: Callable[[], None]
    """Compare all data with the file's checksums: CRC-32C in TensorFlow's
    format, CRC-32 in PyTorch's archives; safetensors and PyTorch's older
    format have none. Half a gigabyte takes less than a second."""
    release: Callable[[str], None]
    """Give a tensor's memory back to the system, without forgetting it: what
    is mapped from the file is read again when it is next used."""
    fields: Mapping[str, Any] | None = None
    """The config in the file itself, if it has one, by the names of a
    `config.json`."""
    notes: tuple[str, ...] = ()
    """What was found in the file, and what was inferred from it."""


def find_weights(folder: Path) -> Path | None:
    """Return the file that `open_weights` should open in a folder, if any.

    `WEIGHT_FILES` come first, in their order, then TensorFlow's, and nanoGPT's
    last.
    """
    for name in WEIGHT_FILES:
        if is_there(folder / name):
            return folder / name
    if (found := tensorflow.find(folder)) is not None:
        return found
    return folder / NANOGPT if is_there(folder / NANOGPT) else None


def is_index(path: Path) -> bool:
    """Tell by its name whether a file is the index of several."""
    return path.name.endswith(".index.json")


def open_weights(path: Path) -> Weights:
    """Open a file of weights, or the index of several.

    Its name decides how, but for the files of llm.c, and for those of PyTorch
    under another name, such as `last.ckpt`.

    Raises:
        CheckpointError: The file is missing, damaged, or of no known format.
    """
    if is_index(path):
        return _open_shards(path)
    if path.suffix == ".index":
        return _open_tensorflow(path)
    start = _first_bytes(path)
    if start.startswith(LLM_C):
        return _open_llm_c(path)
    if (what := foreign_file(path, start)) is not None:
        raise CheckpointError(f"{path} {what}")
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    pickled = start.startswith((archive.MAGIC, b"\x80"))
    if path.suffix in (".bin", ".pt", ".pth") or pickled:
        return _open_pytorch(path)
    raise CheckpointError(
        f"{path} does not have the name of a file of weights: expected "
        f"*.safetensors, *.bin, *.pt, *.index.json, or model.ckpt.index"
    )


def _first_bytes(path: Path) -> bytes:
    """Return up to 8 bytes; none if the readers will refuse to open it."""
    try:
        if path.is_file():
            with open_file(path, CheckpointError) as file:
                return file.read(8)
    except (OSError, CheckpointError):
        pass
    return b""


def read_shard_index(path: Path) -> dict[str, str]:
    """Read from an index which file beside it holds which tensor.

    Returns:
        The file's name for each tensor's name.

    Raises:
        CheckpointError: The index is damaged, or lists a file elsewhere.
    """
    index = read_json_object(path, CheckpointError, _LARGEST_INDEX)
    files = field(index, "weight_map", dict, path, CheckpointError)
    if not files:
        raise CheckpointError(f"{path}: field 'weight_map' is empty")
    for file in files.values():
        plain = isinstance(file, str) and Path(file).name == file
        if not plain or len(file) > 255 or is_index(Path(file)):
            raise CheckpointError(
                f"{path} lists {file!r:.80}, which is not a file of weights "
                f"beside it"
            )
    return files


def _open_safetensors(path: Path) -> Weights:
    infos = read_safetensors_header(path)

    @cache  # map the file once, and not for each tensor
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

    def release(name: str) -> None:
        tensor = read(name)
        release_pages(tensor.data_ptr(), tensor.nbytes)

    return Weights(path, "safetensors", infos, read, lambda: None, release)


def _open_pytorch(path: Path) -> Weights:
    """Open one of PyTorch's files, without running any code in it."""
    from gpt2.weights.pytorch import open_pytorch  # of which few have need

    file = open_pytorch(path)
    infos = {
        name: TensorInfo(view.storage.dtype, view.shape, path.name)
        for name, view in file.views.items()
    }
    # Tensors may share storage, but a small file must not expand to a model
    # that fills the memory.
    ours = our_names(infos)
    used = [name for name in infos if ours[name] not in (None, OUTPUT)]
    needed = sum(infos[name].n_bytes for name in used)
    size = len(file.data)
    most = max(size, min(_MOST_REPEATS * size, _MOST_REPEATED_BYTES))
    if needed > most:
        raise CheckpointError(
            f"{path} has {size:,} bytes, and its tensors would take "
            f"{needed:,}: too many share the same storage"
        )
    sharing = Counter(file.views[name].storage.key for name in used)

    def read(name: str) -> Tensor:
        tensor = file.tensor(name)
        # Otherwise, writing to one tensor would change another.
        shared = sharing[file.views[name].storage.key] > 1
        return tensor.clone() if shared else tensor

    return Weights(
        *(path, "PyTorch", infos, read, file.verify),
        lambda name: release_bytes(file.storage_of(name)),
        fields=file.state.fields,
        notes=file.state.notes,
    )


def _open_llm_c(path: Path) -> Weights:
    """Open a checkpoint of llm.c, whose tensors have the model's names."""
    file = open_llm_c(path)
    infos = {
        name: TensorInfo(file.dtype, shape, path.name)
        for name, shape in file.shapes.items()
    }
    padding = (
        f"{file.n_padding} rows of padding behind the vocabulary are not read"
    )
    return Weights(
        *(path, "llm.c", infos, file.tensor, lambda: None),
        lambda name: release_bytes(file.bytes_of(name)),
        fields=file.fields,
        notes=(padding,) if file.n_padding else (),
    )


def _open_shards(path: Path) -> Weights:
    """Open several files of weights by their index."""
    files = read_shard_index(path)
    shards = {
        file: open_weights(path.parent / file)
        for file in dict.fromkeys(files.values())
    }
    for name, file in files.items():
        if name not in shards[file].infos:
            raise CheckpointError(
                f"{path} lists tensor {name!r:.80} in {file}, which has no "
                f"such tensor"
            )
    infos = {name: shards[files[name]].infos[name] for name in files}

    def verify() -> None:
        for shard in shards.values():
            shard.verify()

    return Weights(
        path,
        next(iter(shards.values())).format,
        infos,
        lambda name: shards[files[name]].read(name),
        verify,
        lambda name: shards[files[name]].release(name),
    )


def _open_tensorflow(path: Path) -> Weights:
    """Open a TensorFlow checkpoint by its index."""
    entries = tensorflow.read_index(path)
    infos = {}
    for name, entry in entries.items():
        shape = entry.shape
        known = gpt2_name(name) is not None
        if known and name.endswith("/w") and shape[:1] == (1,):
            shape = shape[1:]  # OpenAI's linear map: a width-1 convolution
        infos[name] = TensorInfo(entry.dtype, shape, path.name)

    @cache
    def tensors() -> dict[str, Tensor]:
        readable = [n for n in infos if infos[n].dtype in WEIGHT_DTYPES]
        return tensorflow.read_tensors(path, readable)

    def release(name: str) -> None:
        entry, tensor = entries[name], tensors()[name]
        if entry.offset % tensor.itemsize == 0:  # otherwise it is a copy
            release_pages(tensor.data_ptr(), tensor.nbytes)

    return Weights(
        path,
        "TensorFlow",
        infos,
        lambda name: tensors()[name].reshape(infos[name].shape),
        lambda: tensorflow.verify_checksums(path),
        release,
    )

"""From the name of a checkpoint to a model that is ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gpt2.config import GPT2Config
from gpt2.files.reading import SETTINGS_BYTES, is_there, read_json_object
from gpt2.files.writing import check_whole, read_whole
from gpt2.tokenizer.configuration import check_class
from gpt2.tokenizer.files import vocabulary_files
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights import hub
from gpt2.weights.errors import CheckpointError
from gpt2.weights.formats import Weights, find_weights, open_weights
from gpt2.weights.layout import (
    OUTPUT,
    TensorInfo,
    guess_config,
    match_names,
)
from gpt2.weights.pins import HUB_PRESETS, Pin, check_pinned

if TYPE_CHECKING:  # looking into a file should not wait for torch
    import torch
    from torch import Tensor

    from gpt2.model import GPT2

Value = TypeVar("Value")

STORY = "story"
"""The small model that comes with the package."""

_STORY_FOLDER = Path(__file__).parent.parent / "pretrained" / STORY

PRESET_NAMES = (STORY, *HUB_PRESETS)
"""The names that stand for a checkpoint."""

DTYPES = ("float32", "bfloat16", "float16")
"""The dtypes in which a model can be loaded."""


def load(
    source: str | Path,
    dtype: str | torch.dtype | None = "float32",
    device: str | torch.device = "cpu",
) -> tuple[GPT2, Tokenizer]:
    """Load a GPT-2 and its tokenizer, ready to run.

    Args:
        source: A preset (`story`, the small model that comes along; or
            `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, which are fetched),
            a folder, a file of weights, or a Hugging Face id such as
            `distilbert/distilgpt2`; tried in that order, so write `./gpt2` for
            a folder with a preset's name.
        dtype: `float32`, `bfloat16` or `float16`, whatever the file has; None
            for what the file has.
        device: Where the model is to run.

    Returns:
        The model, in eval mode, and the tokenizer.

    Raises:
        CheckpointError: Nothing is there, or it is not a GPT-2; the message
            names the file, the tensor, what came and what was expected.
        TokenizerError: The tokenizer's files are damaged, or missing and
            not to be had elsewhere.
    """

    def read(place: Place) -> tuple[GPT2, Tokenizer]:
        model = _fill(place, dtype, device)
        return model, read_tokenizer(place.folder, model.config)

    return _read_whole(source, read)


def load_model(
    source: str | Path,
    dtype: str | torch.dtype | None = "float32",
    device: str | torch.device = "cpu",
) -> GPT2:
    """Load a GPT-2 without a tokenizer; arguments and errors as in `load`."""
    return _read_whole(source, lambda place: _fill(place, dtype, device))


def _read_whole(source: str | Path, read: Callable[[Place], Value]) -> Value:
    """Locate a checkpoint and read it, all files as of one save."""
    if source in PRESET_NAMES:  # nobody saves to these
        return read(locate(source))
    folder = Path(source)
    with suppress(OSError, RuntimeError, ValueError):  # `locate` says why
        folder = folder.expanduser()
        folder = folder if folder.is_dir() else folder.parent
    return read_whole(folder, lambda: read(locate(source)), CheckpointError)


@dataclass(frozen=True)
class Place:
    """Where a checkpoint lies on this disk."""

    folder: Path
    """The folder with its config and its tokenizer."""
    weights: Path
    """The file of weights, or the index of several."""
    preset: str | None = None
    """The preset it was asked for as, if it was."""


def locate(source: str | Path) -> Place:
    """Find a checkpoint on this disk, or fetch it; arguments as in `load`.

    Of a preset whose content is known, every file that will be read has the
    published SHA-256.

    Raises:
        CheckpointError: There is none, or a file is not the published one.
    """
    place = _find(source)
    if place.preset is not None:
        files = [*vocabulary_files(place.folder), place.weights]
        check_pinned(HUB_PRESETS[place.preset], [_config_file(place), *files])
    return place


def _find(source: str | Path) -> Place:
    """Find or fetch a checkpoint, without a look into files of a preset."""
    if source == STORY:
        return _in_folder(_STORY_FOLDER)
    if isinstance(source, str) and source in HUB_PRESETS:
        return _in_folder(hub.fetch(HUB_PRESETS[source]), source)
    if (place := _on_disk(source)) is not None:
        return place
    if (pin := hub_pin(source)) is not None:
        return _in_folder(hub.fetch(pin))
    raise CheckpointError(
        f"{str(source)!r:.200} is neither a preset "
        f"({', '.join(PRESET_NAMES)}) nor a folder or file here, nor a "
        f"Hugging Face id (owner/name)"
    )


def _on_disk(source: str | Path) -> Place | None:
    """Find a checkpoint by its path, if something is there."""
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return _in_folder(path)
        if path.exists():
            check_whole(path.parent, CheckpointError)
            return Place(path.parent, path)
        index = path.with_name(path.name + ".index")
        if index.exists():
            return Place(path.parent, index)  # TensorFlow's own way to name it
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ of nobody
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{source!s:.200} cannot be read: {reason}"
        ) from error
    return None


def hub_pin(source: str | Path) -> Pin | None:
    """Return what `source` stands for on the hub, if it looks like an id."""
    text = str(source)
    if text in HUB_PRESETS:
        return HUB_PRESETS[text]
    from huggingface_hub.errors import HFValidationError

    # Public, but missing from the list of names that the type checker goes by.
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        validate_repo_id,
    )

    try:
        validate_repo_id(text)
    except HFValidationError:
        return None
    return Pin(text) if "/" in text else None


def _in_folder(folder: Path, preset: str | None = None) -> Place:
    check_whole(folder, CheckpointError)
    weights = find_weights(folder)
    if weights is None:
        raise CheckpointError(
            f"{folder} holds no weights: no model.safetensors, "
            f"pytorch_model.bin, index of several, or model.ckpt.index"
        )
    return Place(folder, weights, preset)


def read_config(place: Place, infos: Mapping[str, TensorInfo]) -> GPT2Config:
    """Read the config beside the weights, or infer that of a published size.

    Raises:
        CheckpointError: There is none, it is damaged, or it is not what the
            preset's should be.
    """
    path = _config_file(place)
    if not is_there(path):
        return guess_config(infos, str(place.weights))
    fields = read_json_object(path, CheckpointError, SETTINGS_BYTES)
    return parse_config(fields, place.preset, str(path))


def _config_file(place: Place) -> Path:
    """Return the file with the config, whether or not it is there."""
    ours, openais = place.folder / "config.json", place.folder / "hparams.json"
    return openais if is_there(openais) and not is_there(ours) else ours


def parse_config(
    fields: Mapping[str, Any], preset: str | None, file: str
) -> GPT2Config:
    """Read a config's fields, and hold them against the preset's sizes.

    Args:
        fields: What `GPT2Config.from_dict` reads.
        preset: The preset that the config came as, if it did.
        file: What to call it in a message.

    Raises:
        CheckpointError: It is not a GPT-2's, or not the preset's.
    """
    try:
        config = GPT2Config.from_dict(fields)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error
    if preset is None:
        return config
    published = GPT2Config.from_name(preset)
    for size in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"):
        if (came := getattr(config, size)) != getattr(published, size):
            raise CheckpointError(
                f"{file} has {size}={came}, and {preset} was published with "
                f"{getattr(published, size)}"
            )
    return config


def read_tokenizer(folder: Path, config: GPT2Config) -> Tokenizer:
    """Read the tokenizer beside the weights, or take GPT-2's own.

    Raises:
        TokenizerError: The files are damaged; or there are none, and GPT-2's
            vocabulary does not fit the model or cannot be had.
        CheckpointError: The vocabulary has ids that the model lacks.
    """
    if Tokenizer.find(folder) is None and config.n_vocab == 50257:
        check_class(folder)
        return Tokenizer.gpt2()
    tokenizer = Tokenizer.load(folder)
    if tokenizer.n_vocab > config.n_vocab:
        raise CheckpointError(
            f"the tokenizer in {folder} has {tokenizer.n_vocab} entries, and "
            f"the model only {config.n_vocab}"
        )
    return tokenizer


def _fill(
    place: Place, dtype: str | torch.dtype | None, device: str | torch.device
) -> GPT2:
    """Build the model without memory of its own, and give it the file's."""
    import torch

    from gpt2.model import GPT2

    wanted = None if dtype is None else _dtype(dtype)
    weights = open_weights(place.weights)
    config = read_config(place, weights.infos)
    names = match_names(weights.infos, config, str(place.weights))
    weights.verify()
    if OUTPUT in names:
        _check_tied(weights, names.pop(OUTPUT), names["wte.weight"])
    tensors = {}
    for ours, theirs in names.items():
        tensor = weights.read(theirs)
        _check_finite(tensor, theirs, place.weights)
        tensors[ours] = tensor.to(device=device, dtype=wanted)
    with torch.device("meta"):
        model = GPT2(config)
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    import torch

    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(
            f"dtype must be one of {', '.join(DTYPES)}; got {dtype}"
        )
    wanted: torch.dtype = getattr(torch, name)
    return wanted


def _check_finite(tensor: Tensor, name: str, file: Path) -> None:
    """Refuse NaNs and infinities; the extremes are NaN where anything is."""
    low, high = tensor.aminmax()
    if not (low.isfinite() and high.isfinite()):
        raise CheckpointError(
            f"{file}: tensor {name!r:.80} holds numbers that are not finite; "
            f"the training it comes from went wrong, or the file is damaged"
        )


def _check_tied(weights: Weights, output: str, embedding: str) -> None:
    """Refuse a file whose output matrix is not the token embedding."""
    import torch

    if not torch.equal(weights.read(output), weights.read(embedding)):
        raise CheckpointError(
            f"{weights.path}: tensor {output!r:.80} differs from "
            f"{embedding!r:.80}; in GPT-2 the output is the token embedding"
        )


@dataclass(frozen=True)
class Look:
    """What a checkpoint is, found out without reading its data."""

    file: str
    """The file of weights, or the index of several."""
    format: str
    """`safetensors`, `PyTorch` or `TensorFlow`."""
    config: GPT2Config
    infos: Mapping[str, TensorInfo]
    """Every tensor in the file, by the file's own names."""
    names: Mapping[str, str]
    """The file's name for each of the model's."""


def look(source: str | Path) -> Look:
    """Find out what a checkpoint holds, reading no more than its header.

    What is on this disk is looked into here. Of a checkpoint on the hub only
    the config and the header are fetched, a few kilobytes.

    Args:
        source: As in `load`.

    Raises:
        CheckpointError: There is none, or it is not a GPT-2.
    """
    preset = str(source) if source in HUB_PRESETS else None
    remote = preset is not None or _on_disk(source) is None
    pin = hub_pin(source) if remote else None
    if pin is None or hub.cached(pin) is not None:
        place = _find(source)
        if place.preset is not None:
            check_pinned(HUB_PRESETS[place.preset], [_config_file(place)])
        weights = open_weights(place.weights)
        file, kind, infos = str(place.weights), weights.format, weights.infos
        config = read_config(place, infos)
    else:
        fields, file, infos = hub.look(pin)
        file, kind = f"{pin.repo}/{file}", "safetensors"
        config = parse_config(fields, preset, f"{pin.repo}/config.json")
    names = match_names(infos, config, file)
    names.pop(OUTPUT, None)  # the token embedding once more
    return Look(file, kind, config, infos, names)

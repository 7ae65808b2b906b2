"""From the name of a checkpoint to its files on this disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gpt2.files.reading import is_there
from gpt2.files.whole import check_whole, read_whole
from gpt2.tokenizer.files import vocabulary_files
from gpt2.weights import hub
from gpt2.weights.errors import CheckpointError
from gpt2.weights.foreign import ADAPTER, foreign_folder
from gpt2.weights.formats import NANOGPT, WEIGHT_FILES, find_weights
from gpt2.weights.pins import HUB_PRESETS, Pin, check_pinned

Value = TypeVar("Value")

STORY = "story"
"""The small model that ships with the package."""

# The folder with its files; no docstring, since its path is no documentation.
STORY_FOLDER = Path(__file__).parent.parent / "pretrained" / STORY

PRESET_NAMES = (STORY, *HUB_PRESETS)
"""The names of the presets."""


@dataclass(frozen=True)
class Place:
    """Where a checkpoint is on this disk."""

    folder: Path
    """The folder with its config and its tokenizer."""
    weights: Path
    """The file of weights, or the index of several."""
    preset: str | None = None
    """The preset that it was located as, if any."""


def locate(source: str | Path) -> Place:
    """Find a checkpoint on this disk, or fetch it.

    If the preset's digests are known, every file to be read is compared with
    its published SHA-256.

    Args:
        source: As for `gpt2.load`.

    Raises:
        CheckpointError: There is no such checkpoint, or a file differs from
            the published one.
    """
    place = find(source)
    if place.preset is not None:
        files = [*vocabulary_files(place.folder), place.weights]
        check_pinned(
            HUB_PRESETS[place.preset], [config_file(place.folder), *files]
        )
    return place


def find(source: str | Path) -> Place:
    """Find or fetch a checkpoint, without comparing a preset's files."""
    if source == STORY:
        return _in_folder(STORY_FOLDER)
    if isinstance(source, str) and source in HUB_PRESETS:
        return _in_folder(hub.fetch(HUB_PRESETS[source]), source)
    if (place := on_disk(source)) is not None:
        return place
    if (pin := hub_pin(source)) is not None:
        return _in_folder(hub.fetch(pin))
    raise CheckpointError(
        f"{str(source)!r:.200} is neither a preset "
        f"({', '.join(PRESET_NAMES)}), nor an existing folder or file, nor a "
        f"Hugging Face id (owner/name)"
    )


def on_disk(source: str | Path) -> Place | None:
    """Find a checkpoint by its path; return None if there is no such path."""
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return _in_folder(path)
        if path.exists():
            check_whole(path.parent, CheckpointError)
            return Place(path.parent, path)
        index = path.with_name(path.name + ".index")
        if index.exists():  # TensorFlow omits the suffix
            return Place(path.parent, index)
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ of no user
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{source!s:.200} cannot be read: {reason}"
        ) from error
    return None


def hub_pin(source: str | Path) -> Pin | None:
    """Return the hub's repository for a preset or a Hugging Face id."""
    text = str(source)
    if text in HUB_PRESETS:
        return HUB_PRESETS[text]
    from huggingface_hub.errors import HFValidationError

    # Public, but missing from the stubs.
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        validate_repo_id,
    )

    try:
        validate_repo_id(text)
    except HFValidationError:
        return None
    return Pin(text) if "/" in text else None


def config_file(folder: Path) -> Path:
    """Return the path of the config in a folder, which may not exist."""
    ours, openais = folder / "config.json", folder / "hparams.json"
    return openais if is_there(openais) and not is_there(ours) else ours


def _in_folder(folder: Path, preset: str | None = None) -> Place:
    check_whole(folder, CheckpointError)
    adapted = is_there(folder / ADAPTER)  # the weights are not all
    weights = None if adapted else find_weights(folder)
    if weights is None and (what := foreign_folder(folder)) is not None:
        raise CheckpointError(f"{folder} {what}")
    if weights is None:
        raise CheckpointError(
            f"{folder} holds no weights: expected one of "
            f"{', '.join(WEIGHT_FILES)}, model.ckpt.index and {NANOGPT}"
        )
    return Place(folder, weights, preset)


def read_consistently(source: str | Path, read: Callable[[], Value]) -> Value:
    """Read a checkpoint, all its files from the same save.

    Args:
        source: As for `gpt2.load`.
        read: The function that finds the checkpoint and reads it.

    Returns:
        What `read` returns.

    Raises:
        CheckpointError: The checkpoint was saved to while it was read.
    """
    if source in PRESET_NAMES:  # nobody saves to these
        return read()
    folder = Path(source)
    with suppress(OSError, RuntimeError, ValueError):  # `read` will raise it
        folder = folder.expanduser()
        folder = folder if folder.is_dir() else folder.parent
    return read_whole(folder, read, CheckpointError)

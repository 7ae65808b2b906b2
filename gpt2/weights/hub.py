"""Checkpoints from the Hugging Face hub, by way of its cache on this disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2.weights.errors import CheckpointError
from gpt2.weights.formats import (
    INDEX_FILES,
    SINGLE_FILES,
    find_weights,
    read_json,
    read_shard_index,
)
from gpt2.weights.layout import TensorInfo


@dataclass(frozen=True)
class Pin:
    """Exactly which files a preset stands for."""

    repo: str
    revision: str = "main"
    sha256: Mapping[str, str] = field(default_factory=dict)
    """The files whose content is known, by name."""


# Only of the 124M checkpoint is the content known here byte by byte; for the
# larger ones, names, shapes and sizes are checked as for any file.
HUB_PRESETS = {
    "gpt2": Pin(
        "openai-community/gpt2",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        {
            "model.safetensors": "248dfc3911869ec493c76e65bf2fcf7f"
            "615828b0254c12b473182f0f81d3a707",
            "vocab.json": "196139668be63f3b5d6574427317ae82"
            "f612a97c5d1cdaf36ed2256dbf636783",
            "merges.txt": "1ce1664773c50f3e0cc8842619a93edc"
            "4624525b728b188a9e0be33b7726adc5",
        },
    ),
    "gpt2-medium": Pin("openai-community/gpt2-medium"),
    "gpt2-large": Pin("openai-community/gpt2-large"),
    "gpt2-xl": Pin("openai-community/gpt2-xl"),
}

# What comes along with the weights, where the repository has it.
_COMPANIONS = ("vocab.json", "merges.txt", "tokenizer.json")

_PATIENCE = 10.0  # seconds to wait for the hub's first word


def fetch(pin: Pin) -> Path:
    """Return a folder with a repository's checkpoint, fetched if need be.

    A complete copy in the cache is used as it is, without asking the network.
    What is fetched is shown with a progress bar, and compared with the
    SHA-256 where that is known.

    Raises:
        CheckpointError: There is no such repository, it holds no GPT-2, a file
            is not what it should be, or there is neither network nor copy.
    """
    folder = cached(pin)
    # Another program may have fetched the weights alone.
    known = folder and any((folder / name).is_file() for name in _COMPANIONS)
    if folder and (known or pin in HUB_PRESETS.values()):
        return folder
    import huggingface_hub as hub

    try:
        files = _files(pin)
        names = [name for name in _COMPANIONS if name in files]
        names.append(_weights_among(files, pin))
        for name in names:
            path = Path(
                hub.hf_hub_download(pin.repo, name, revision=pin.revision)
            )
            _verify(path, pin.sha256.get(name))
            if name in INDEX_FILES:
                names.extend(sorted(set(read_shard_index(path).values())))
        # Last of all, so that a folder with a config is one that is complete.
        path = Path(
            hub.hf_hub_download(pin.repo, "config.json", revision=pin.revision)
        )
    except Exception as error:  # the client has dozens, of several libraries
        if folder is not None:
            return folder
        raise _explained(pin, error) from error
    return path.parent


def cached(pin: Pin) -> Path | None:
    """Return the folder with a complete copy on this disk, if there is one."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(
        pin.repo, "config.json", revision=pin.revision
    )
    folder = Path(path).parent if isinstance(path, str) else None
    weights = folder and find_weights(folder)
    if folder is None or weights is None:
        return None
    if weights.name in INDEX_FILES:
        shards = set(read_shard_index(weights).values())
        if not all((folder / shard).is_file() for shard in shards):
            return None
    return folder


def look(pin: Pin) -> tuple[dict[str, Any], str, dict[str, TensorInfo]]:
    """Read a repository's config and the headers of its weights, no more.

    Returns:
        The config's fields, the name of the file of weights, and what it says
        of each tensor.

    Raises:
        CheckpointError: As `fetch`; or the weights are not in safetensors, the
            one format that can be looked into from afar.
    """
    import huggingface_hub as hub

    try:
        _files(pin)
        config = hub.hf_hub_download(
            pin.repo, "config.json", revision=pin.revision
        )
        metadata = hub.get_safetensors_metadata(
            pin.repo, revision=pin.revision
        )
    except Exception as error:
        raise _explained(pin, error) from error
    infos = {
        name: TensorInfo(tensor.dtype, tuple(tensor.shape), file)
        for file, header in metadata.files_metadata.items()
        for name, tensor in header.tensors.items()
    }
    file = INDEX_FILES[0] if metadata.sharded else SINGLE_FILES[0]
    return read_json(Path(config)), file, infos


def _files(pin: Pin) -> set[str]:
    """Ask the hub which files a repository has.

    Nothing else is asked before this: it is tried once and not for long, where
    a download without a network would be tried again for half a minute.

    Raises:
        CheckpointError: There is no config among them, or the hub knows it to
            be that of another kind of model.
    """
    import huggingface_hub as hub

    info = hub.HfApi().model_info(
        pin.repo, revision=pin.revision, timeout=_PATIENCE
    )
    files = {file.rfilename for file in info.siblings or []}
    if "config.json" not in files:
        raise CheckpointError(f"{pin.repo} on the hub has no config.json")
    kind = (info.config or {}).get("model_type", "gpt2")
    if kind != "gpt2":
        raise CheckpointError(
            f"{pin.repo} on the hub is a {kind!r} model, and this is only "
            f"GPT-2"
        )
    return files


def _weights_among(files: set[str], pin: Pin) -> str:
    """Return which of a repository's files to fetch for the weights."""
    for name in (SINGLE_FILES[0], INDEX_FILES[0], *SINGLE_FILES, *INDEX_FILES):
        if name in files:
            return name
    raise CheckpointError(
        f"{pin.repo} on the hub has none of {', '.join(SINGLE_FILES)} and "
        f"{', '.join(INDEX_FILES)}"
    )


def _verify(path: Path, expected: str | None) -> None:
    """Compare a fetched file with its published SHA-256, where known.

    Raises:
        CheckpointError: They differ. The file is removed from the cache.
    """
    if expected is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path.name} has SHA-256 {found}, and the published file has "
            f"{expected}; it was damaged or replaced on its way here, and is "
            f"removed"
        )


def _explained(pin: Pin, error: Exception) -> CheckpointError:
    """Say in one line what went wrong, and what can be done."""
    from huggingface_hub import errors

    if isinstance(error, CheckpointError):
        return error
    if isinstance(error, errors.NotASafetensorsRepoError):
        return CheckpointError(
            f"{pin.repo} has no safetensors, and other weights cannot be "
            f"looked into without fetching them"
        )
    if isinstance(error, errors.SafetensorsParsingError):
        return CheckpointError(f"{pin.repo}: {_first_line(error)}")
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(f"{pin.repo} has no revision {pin.revision!r}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(
            f"the Hugging Face hub has no public model {pin.repo!r}; a "
            f"private one needs `hf auth login`"
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return CheckpointError(
            f"{pin.repo} on the hub lacks a file: {_first_line(error)}"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return CheckpointError(
            f"{pin.repo} cannot be kept in this machine's cache: {error}"
        )
    return CheckpointError(
        f"{pin.repo} is not in this machine's cache, and the Hugging Face hub "
        f"cannot be reached ({_first_line(error)}). Connect to the network "
        f"once, and it stays; or fetch the files elsewhere and name their "
        f"folder instead"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__

"""Checkpoints from the Hugging Face hub, by way of its cache on this disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gpt2.files.reading import SETTINGS_BYTES, read_json_object
from gpt2.weights.digests import sha256
from gpt2.weights.errors import CheckpointError
from gpt2.weights.formats import (
    INDEX_FILES,
    SINGLE_FILES,
    find_weights,
    read_shard_index,
)
from gpt2.weights.layout import TensorInfo
from gpt2.weights.pins import HUB_PRESETS, Pin
from gpt2.weights.safetensors_header import header_end, parse_header

# What comes along with the weights, where the repository has it.
_VOCABULARIES = ("vocab.json", "merges.txt", "tokenizer.json")
_COMPANIONS = (*_VOCABULARIES, "tokenizer_config.json", "added_tokens.json")

_PATIENCE = 10.0  # seconds to wait for the hub's first word
_USUAL_HEADER = 100_000  # bytes; GPT-2 XL's is shorter


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
    if folder is not None and _has_its_tokenizer(folder, pin):
        return folder
    import huggingface_hub as hub

    try:
        files = _files(pin)
        if pin.sha256:
            files &= pin.sha256.keys()
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
        _verify(path, pin.sha256.get("config.json"))
    except Exception as error:  # the client has dozens, of several libraries
        if folder is not None:
            return folder
        raise _explained(pin, error) from error
    return path.parent


def _has_its_tokenizer(folder: Path, pin: Pin) -> bool:
    """Tell whether nothing is missing beside the weights.

    Another program may have fetched the weights alone, which will do for a
    preset: GPT-2's own tokenizer is to be had elsewhere. And somebody may have
    deleted a file, to which the cache's link is then left.
    """
    names = [name for name in _COMPANIONS if os.path.lexists(folder / name)]
    if not all((folder / name).exists() for name in names):
        return False
    if ("vocab.json" in names) != ("merges.txt" in names):
        return False
    return pin in HUB_PRESETS.values() or any(
        n in names for n in _VOCABULARIES
    )


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
    if pin.sha256 and weights.name not in pin.sha256:
        return None  # other weights of the same model, of which less is known
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
        files = _files(pin)
        config = Path(
            hub.hf_hub_download(pin.repo, "config.json", revision=pin.revision)
        )
        _verify(config, pin.sha256.get("config.json"))
        file = _weights_among(files, pin)
        if file == INDEX_FILES[0]:
            index = hub.hf_hub_download(pin.repo, file, revision=pin.revision)
            shards = sorted(set(read_shard_index(Path(index)).values()))
        elif file == SINGLE_FILES[0]:
            shards = [file]
        else:
            raise CheckpointError(
                f"{pin.repo} has no safetensors, and other weights cannot be "
                f"looked into without fetching them"
            )
        infos = {
            name: info
            for shard in shards
            for name, info in _header(pin, shard).items()
        }
    except Exception as error:
        raise _explained(pin, error) from error
    fields = read_json_object(config, CheckpointError, SETTINGS_BYTES)
    return fields, file, infos


def _header(pin: Pin, name: str) -> dict[str, TensorInfo]:
    """Fetch the header of one file of safetensors, and read it."""
    path = Path(pin.repo, name)
    start, size = _fetch_start(pin, name, _USUAL_HEADER)
    end = header_end(start, size, path)
    if end > len(start):
        start, _ = _fetch_start(pin, name, end)
    return parse_header(start[8:end], size - end, path)


def _fetch_start(pin: Pin, name: str, count: int) -> tuple[bytes, int]:
    """Fetch the first bytes of a file, and learn how many it has in all."""
    from huggingface_hub import get_session, hf_hub_url

    # Public, but missing from the list of names that the type checker goes by.
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
    )

    response = get_session().get(
        hf_hub_url(pin.repo, name, revision=pin.revision),
        headers={**build_hf_headers(), "range": f"bytes=0-{count - 1}"},
        timeout=_PATIENCE,
    )
    hf_raise_for_status(response)
    # "bytes 0-99999/548105171"; or the file is no longer than asked for.
    _, _, size = response.headers.get("content-range", "").rpartition("/")
    start = response.content
    return start, int(size) if size.isdecimal() else len(start)


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
    if (found := sha256(path, expected)) != expected:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} has SHA-256 {found}, and the published file has "
            f"{expected}; it was damaged or replaced on its way here, and is "
            f"removed"
        )


def _explained(pin: Pin, error: Exception) -> CheckpointError:
    """Say in one line what went wrong, and what can be done."""
    from huggingface_hub import errors

    if isinstance(error, CheckpointError):
        return error
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

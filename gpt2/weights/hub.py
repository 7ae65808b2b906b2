"""Fetch checkpoints from the Hugging Face hub, through its cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gpt2.files.errors import first_line
from gpt2.files.reading import SETTINGS_BYTES, read_json_object
from gpt2.progress import task
from gpt2.weights.digests import sha256
from gpt2.weights.errors import CheckpointError
from gpt2.weights.foreign import adapter_among, foreign_among
from gpt2.weights.formats import (
    WEIGHT_FILES,
    find_weights,
    is_index,
    read_shard_index,
)
from gpt2.weights.layout import TensorInfo
from gpt2.weights.pins import HUB_PRESETS, Pin
from gpt2.weights.safetensors_header import header_end, parse_header

# Files to fetch besides the weights, if the repository has them.
_VOCABULARIES = ("vocab.json", "merges.txt", "tokenizer.json")
_COMPANIONS = (
    *_VOCABULARIES,
    *("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"),
    "vocab.txt",  # of another kind of tokenizer, which must not be missed
)

_PATIENCE = 10.0  # seconds to wait for the hub's first answer
_USUAL_HEADER = 100_000  # bytes; GPT-2 XL's is shorter


def fetch(pin: Pin) -> Path:
    """Return a folder with a repository's checkpoint; fetch it if needed.

    A complete copy in the cache is used without accessing the network.
    Downloads show a progress bar, and are compared with their SHA-256 where
    it is known.

    Raises:
        CheckpointError: There is no such repository, it holds no GPT-2, a file
            differs from the published one, or there is neither a network nor
            a copy.
    """
    folder = cached(pin)
    if folder is not None and _has_its_tokenizer(folder, pin):
        return folder
    try:
        with task(f"Fetching {pin.repo}"):
            return _fetch(pin)
    except Exception as error:  # of dozens of classes, from several libraries
        if folder is not None:
            return folder
        raise _explained(pin, error) from error


def _fetch(pin: Pin) -> Path:
    """Download the files of a checkpoint, and return their folder."""
    files = _files(pin)
    if pin.sha256:
        files &= pin.sha256.keys()
    names = [name for name in _COMPANIONS if name in files]
    names.append(_weights_among(files, pin))
    for name in names:
        path = _download(pin, name)
        if is_index(path):
            names.extend(sorted(set(read_shard_index(path).values())))
    # The config comes last: a folder that has one is complete.
    return _download(pin, "config.json").parent


def _download(pin: Pin, name: str) -> Path:
    """Download a file into the cache, and compare it with its SHA-256."""
    import huggingface_hub as hub

    path = Path(hub.hf_hub_download(pin.repo, name, revision=pin.revision))
    _verify(path, pin.sha256.get(name))
    return path


def _has_its_tokenizer(folder: Path, pin: Pin) -> bool:
    """Tell whether all files beside the weights are complete.

    Another program may have fetched the weights alone; that suffices for a
    preset, because GPT-2's own tokenizer is available elsewhere. If somebody
    deleted a file from the cache, a broken link is left.
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
        return None  # weights of the same model, but with no known digest
    if is_index(weights):
        shards = set(read_shard_index(weights).values())
        if not all((folder / shard).is_file() for shard in shards):
            return None
    return folder


def read_headers(
    pin: Pin,
) -> tuple[dict[str, Any], str, dict[str, TensorInfo]]:
    """Fetch a repository's config and the headers of its weights, no more.

    Returns:
        The config's fields, the name of the file of weights, and its tensors
        by name.

    Raises:
        CheckpointError: As for `fetch`; or there are no weights in
            safetensors, the only format whose header can be fetched alone.
    """
    try:
        files = _files(pin)
        config = _download(pin, "config.json")
        file = _weights_among(files, pin)
        if not file.startswith("model.safetensors"):
            raise CheckpointError(
                f"{pin.repo} has no safetensors; weights in other formats "
                f"cannot be inspected without fetching them"
            )
        shards = [file]
        if is_index(Path(file)):
            index = read_shard_index(_download(pin, file))
            shards = sorted(set(index.values()))
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
    """Fetch and parse the header of a safetensors file."""
    path = Path(pin.repo, name)
    start, size = _fetch_start(pin, name, _USUAL_HEADER)
    end = header_end(start, size, path)
    if end > len(start):
        start, _ = _fetch_start(pin, name, end)
    return parse_header(start[8:end], size - end, path)


def _fetch_start(pin: Pin, name: str, count: int) -> tuple[bytes, int]:
    """Fetch the first `count` bytes of a file, and its size in bytes."""
    from huggingface_hub import get_session, hf_hub_url

    # Public, but missing from the stubs.
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
    # "bytes 0-99999/548105171"; absent if the server sent the whole file.
    _, _, size = response.headers.get("content-range", "").rpartition("/")
    start = response.content
    return start, int(size) if size.isdecimal() else len(start)


def _files(pin: Pin) -> set[str]:
    """Ask the hub which files a repository has.

    This is the first request, because it fails soon if there is no network; a
    download would retry for half a minute.

    Raises:
        CheckpointError: There is no config, or the hub lists the repository
            as another kind of model.
    """
    import huggingface_hub as hub

    info = hub.HfApi().model_info(
        pin.repo, revision=pin.revision, timeout=_PATIENCE
    )
    files = {file.rfilename for file in info.siblings or []}
    if (what := adapter_among(files)) is not None:
        raise CheckpointError(f"{pin.repo} on the hub {what}")
    if "config.json" not in files:
        raise CheckpointError(f"{pin.repo} on the hub has no config.json")
    kind = (info.config or {}).get("model_type", "gpt2")
    if kind != "gpt2":
        raise CheckpointError(
            f"{pin.repo} on the hub is a {kind!r} model; expected 'gpt2'"
        )
    return files


def _weights_among(files: set[str], pin: Pin) -> str:
    """Return which of a repository's files to fetch for the weights."""
    for name in WEIGHT_FILES:
        if name in files:
            return name
    if (what := foreign_among(files)) is not None:
        raise CheckpointError(f"{pin.repo} on the hub {what}")
    raise CheckpointError(
        f"{pin.repo} on the hub has none of {', '.join(WEIGHT_FILES)}"
    )


def _verify(path: Path, expected: str | None) -> None:
    """Compare a downloaded file with its published SHA-256, if known.

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
            f"{expected}; it was damaged or replaced in transit, and has been "
            f"removed"
        )


def _explained(pin: Pin, error: Exception) -> CheckpointError:
    """Say in one line what went wrong, and what the user can do."""
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
    reason = first_line(error).rstrip(".")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return CheckpointError(f"{pin.repo} on the hub lacks a file: {reason}")
    if isinstance(error, OSError) and error.errno is not None:
        return CheckpointError(
            f"{pin.repo} cannot be stored in the cache: {error}"
        )
    return CheckpointError(
        f"{pin.repo} is not in the cache, and the Hugging Face hub cannot be "
        f"reached ({reason}). Connect to the network once, and it will be "
        f"cached; or fetch the files elsewhere, and load their folder instead"
    )

"""The files on the Hugging Face hub that the presets stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpt2.config import PRESETS
from gpt2.weights.digests import sha256
from gpt2.weights.errors import CheckpointError


@dataclass(frozen=True)
class Pin:
    """A repository on the hub, at a revision, with its files' digests."""

    repo: str
    revision: str = "main"
    sha256: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of each file, by name, where it is known. Unless it is
    empty, no other file is read."""


# Only the digests of the 124M checkpoint are known here. The larger ones are
# checked like any other file: names, shapes and sizes.
HUB_PRESETS = {
    **{name: Pin(f"openai-community/{name}") for name in PRESETS},
    "gpt2": Pin(
        "openai-community/gpt2",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        {
            "config.json": "0daed7749b4f02b8f76240d5444551d7"
            "b08712dab4d0adb8239c56ba823bb7b4",
            "model.safetensors": "248dfc3911869ec493c76e65bf2fcf7f"
            "615828b0254c12b473182f0f81d3a707",
            "vocab.json": "196139668be63f3b5d6574427317ae82"
            "f612a97c5d1cdaf36ed2256dbf636783",
            "merges.txt": "1ce1664773c50f3e0cc8842619a93edc"
            "4624525b728b188a9e0be33b7726adc5",
            "tokenizer.json": "8414cab924d8b9b33013f0d221c5862f"
            "365ee9be39c5c2bfae8a5a9e970478a6",
            "tokenizer_config.json": "5e04eb606e3a1583530a42e36c2a6b66"
            "15c86f34fe77e44d9ddeb43ff940931f",
        },
    ),
}


def check_pinned(pin: Pin, paths: Iterable[Path]) -> None:
    """Compare files of a repository with their published SHA-256.

    Args:
        pin: The repository. If it has no digests, nothing is compared.
        paths: Files in the cache. A file that has not changed since the last
            comparison is not read again.

    Raises:
        CheckpointError: A file has another SHA-256, or no known one.
    """
    for path in paths if pin.sha256 else ():
        expected = pin.sha256.get(path.name)
        if expected is None:
            raise CheckpointError(
                f"{path} is not one of the known files of {pin.repo} "
                f"({', '.join(pin.sha256)}); remove it, or load its folder by "
                f"path"
            )
        if (found := sha256(path, expected)) != expected:
            raise CheckpointError(
                f"{path} has SHA-256 {found}, and the published file has "
                f"{expected}; it was damaged or replaced. Delete "
                f"{path.resolve()}, and it will be fetched again"
            )

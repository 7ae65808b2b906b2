"""What a checkpoint holds, found out without reading its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpt2.config import GPT2Config
from gpt2.weights import hub
from gpt2.weights.arrangement import describe
from gpt2.weights.formats import open_weights
from gpt2.weights.layout import OUTPUT, TensorInfo, match_names
from gpt2.weights.loading import parse_config, read_config
from gpt2.weights.locating import (
    config_file,
    find,
    hub_pin,
    on_disk,
    read_consistently,
)
from gpt2.weights.pins import HUB_PRESETS, check_pinned


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint holds, known without reading its data."""

    file: str
    """The file of weights, or the index of several."""
    format: str
    """`safetensors`, `PyTorch`, `TensorFlow` or `llm.c`."""
    config: GPT2Config
    infos: Mapping[str, TensorInfo]
    """Every tensor in the file, by the file's own names."""
    names: Mapping[str, str]
    """The file's name for each of the model's tensors; a file without biases
    has none for these."""
    notes: tuple[str, ...] = ()
    """Where the file differs from the model, and what loading does about it,
    a sentence each."""


def inspect(source: str | Path) -> Inspection:
    """Find out what a checkpoint holds, without reading its data.

    If the checkpoint is on the hub and not on this disk, only the config and
    the header are fetched, a few kilobytes.

    Args:
        source: As for `load`.

    Raises:
        CheckpointError: There is no such checkpoint, or it is not a GPT-2.
    """
    preset = str(source) if source in HUB_PRESETS else None

    def read() -> Inspection:
        remote = preset is not None or on_disk(source) is None
        pin = hub_pin(source) if remote else None
        if pin is None or hub.cached(pin) is not None:
            place = find(source)
            if preset is not None:
                config_path = config_file(place.folder)
                check_pinned(HUB_PRESETS[preset], [config_path])
            weights = open_weights(place.weights)
            file, kind = str(place.weights), weights.format
            infos = weights.infos
            config = read_config(place, infos, weights.fields)
            notes = weights.notes
        else:
            fields, file, infos = hub.read_headers(pin)
            file, kind, notes = f"{pin.repo}/{file}", "safetensors", ()
            config = parse_config(fields, preset, f"{pin.repo}/config.json")
        names = match_names(infos, config, file)
        names.pop(OUTPUT, None)  # a copy of the token embedding
        notes = (*notes, *describe(names, infos))
        return Inspection(file, kind, config, infos, names, notes)

    return read_consistently(source, read)

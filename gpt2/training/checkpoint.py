"""Checkpoints: all that a run needs to resume exactly where it stopped.

A checkpoint is a folder `step-00000100`: a model in Hugging Face's layout,
which `gpt2.load` opens, and beside it `optimizer.safetensors`, `training.json`
and `SHA256SUMS`, which reveals damage. It is written elsewhere and moved into
place once it is complete, so a run may be killed at any moment.

It holds no states of random generators: the rows and the dropout of a step
follow from the seed and the number of the step (see `gpt2.training.loop`).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2.files.checksums import check_sums, write_sums
from gpt2.files.reading import field, read_json_object
from gpt2.files.writing import replacing
from gpt2.model import GPT2
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.training.settings import TrainingSettings
from gpt2.weights.formats import open_weights
from gpt2.weights.saving import write_model, write_tensors

_KEPT = 2
"""How many checkpoints to keep: the last one and the one before it."""

OPTIMIZER, FACTS = "optimizer.safetensors", "training.json"
_FILES = (
    *("model.safetensors", "config.json", OPTIMIZER, FACTS),
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
)


class ResumeError(ValueError):
    """A folder cannot be used to begin a run, or to resume one."""


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    """Steps taken."""
    best_loss: float | None = None
    """The lowest held-out loss so far, in nats per token."""
    best_step: int = 0
    n_without_best: int = 0
    """Measurements of the held-out loss since the best one."""
    n_tokens: int = 0
    """Tokens trained on."""

    def is_best(self, loss: float | None) -> bool:
        """Record a measurement, and tell whether the model is the best so far.

        Args:
            loss: The held-out loss in nats per token; None if there is no
                held-out text, and then the last model is the best.
        """
        best = self.best_loss
        if loss is None or best is None or loss < best:
            self.best_loss, self.best_step = loss, self.step
            self.n_without_best = 0
            return True
        self.n_without_best += 1
        return False


@dataclass
class State:
    """The content of a checkpoint, except for its model."""

    folder: Path
    progress: Progress
    settings: dict[str, Any]
    data: int
    """The fingerprint of the corpus."""
    optimizer: dict[str, Tensor]
    """The optimizers' state, named like `wte.weight/exp_avg`."""


def checkpoints(folder: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, the oldest first."""
    found = [
        path
        for path in (folder / "checkpoints").glob("step-*")
        if re.fullmatch(r"step-\d{8}", path.name)
    ]
    return sorted(found)


def check_folder(folder: Path, resume: bool) -> None:
    """Check that a folder has a run to resume, or room for a new one.

    Raises:
        ResumeError: The folder is in the wrong state for `resume`: it has no
            checkpoint to resume from, or has one that would be overwritten.
    """
    if resume and not checkpoints(folder):
        raise ResumeError(f"{folder} holds no checkpoint to resume from")
    if not resume and checkpoints(folder):
        raise ResumeError(
            f"{folder} holds a run already; resume it, or choose another "
            f"folder"
        )


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in which fields two mappings differ; empty if in none."""
    return ", ".join(
        f"{key:.80} was {was.get(key)!s:.80} and is {now.get(key)!s:.80}"
        for key in dict.fromkeys([*was, *now])
        if was.get(key) != now.get(key)
    )


def write_snapshot(
    folder: Path, model: GPT2, tokenizer: Tokenizer | None, step: int
) -> None:
    """Save a copy of the model as it is after a step.

    Raises:
        OSError: It cannot be written.
    """
    place = folder / "snapshots" / f"step-{step:08d}"
    with replacing(place, leaves=lambda name: True) as stage:
        write_model(stage, model, tokenizer)


def write_checkpoint(
    folder: Path,
    model: GPT2,
    tokenizer: Tokenizer | None,
    optimizer: dict[str, Tensor],
    progress: Progress,
    settings: TrainingSettings,
    data: int,
) -> Path:
    """Write a checkpoint, and remove all but the last two.

    Args:
        folder: The run's folder.
        model: Whole, on the CPU.
        tokenizer: Saved with the model, unless None.
        optimizer: The optimizers' state, whole and on the CPU, as in `State`.
        progress: How far the run has come.
        settings: The run's settings.
        data: The fingerprint of the corpus.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: It cannot be written; earlier checkpoints are intact.
    """
    place = folder / "checkpoints" / f"step-{progress.step:08d}"
    facts = {
        "progress": asdict(progress),
        "settings": asdict(settings),
        "data": data,
    }
    with replacing(place, leaves=lambda name: True) as stage:
        write_model(stage, model, tokenizer)
        write_tensors(stage / OPTIMIZER, optimizer)
        (stage / FACTS).write_text(json.dumps(facts, indent=2), "utf-8")
        write_sums(stage)
    for old in checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old)
    return place


def read_checkpoint(folder: Path) -> State:
    """Read a run's last checkpoint, except for its model.

    Raises:
        ResumeError: There is none, or it is damaged: a file does not match its
            checksum, or its content is invalid.
    """
    check_folder(folder, resume=True)
    place = checkpoints(folder)[-1]
    try:
        check_sums(place, _FILES, ValueError)
        weights = open_weights(place / OPTIMIZER)
        optimizer = {name: weights.read(name) for name in weights.infos}
        facts = read_json_object(place / FACTS, ValueError)
        step = int(place.name.removeprefix("step-"))
        return State(
            place,
            _read_progress(facts, step, place / FACTS),
            field(facts, "settings", dict, place / FACTS, ValueError),
            field(facts, "data", int, place / FACTS, ValueError),
            optimizer,
        )
    except ValueError as error:
        raise unreadable(place, error) from error


def _read_progress(
    facts: Mapping[str, Any], step: int, path: Path
) -> Progress:
    """Read how far a run had come after a step.

    Raises:
        ValueError: A field is missing, of the wrong type, or out of range.
    """
    saved = field(facts, "progress", dict, path, ValueError)
    kinds = {f.name: int for f in fields(Progress)} | {
        "best_loss": (float, type(None))
    }
    progress = Progress(
        **{
            name: field(saved, name, kind, path, ValueError)
            for name, kind in kinds.items()
        }
    )
    most = {
        "best_step": step,
        "n_without_best": step,
        "n_tokens": 2**63,
    }
    if progress.step != step:
        raise ValueError(
            f"{path}: field 'step' must be {step}, as in the folder's name, "
            f"got {progress.step}"
        )
    for name, limit in most.items():
        if not 0 <= (value := getattr(progress, name)) <= limit:
            raise ValueError(
                f"{path}: field {name!r} must be from 0 to {limit}, got "
                f"{value}"
            )
    return progress


def unreadable(place: Path, error: Exception) -> ResumeError:
    """Return an error that says why, and what to resume from instead."""
    earlier = checkpoints(place.parent.parent)
    for other in reversed(earlier[: earlier.index(place)]):
        with suppress(ValueError):
            check_sums(other, _FILES, ValueError)
            way_out = f"; remove it to resume from {other}"
            break
    else:
        way_out = "; there is no earlier one to resume from"
    return ResumeError(f"{place} cannot be read: {error}{way_out}")

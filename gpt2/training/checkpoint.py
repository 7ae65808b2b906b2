"""All that a run needs to go on as if it had never been stopped.

A checkpoint is a folder `step-00000100`: a model in Hugging Face's layout,
which `gpt2.load` opens, and beside it `optimizer.safetensors` and
`training.json`. It is written elsewhere and moved to its place when it is
whole, so that a run may be killed at any moment.

There are no random states in it: the data and the dropout of a step follow
from the seed and the number of the step (see `gpt2.training.loop`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpt2.model import GPT2
from gpt2.tokenizer import Tokenizer
from gpt2.training.settings import TrainingSettings
from gpt2.weights.saving import move_into, save

_KEPT = 2
"""How many checkpoints stay: the last one, and the one before it."""


class ResumeError(ValueError):
    """A run cannot go on from what is there."""


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    """Steps taken."""
    best_loss: float | None = None
    """The lowest held-out loss so far, in nats per token."""
    best_step: int = 0
    n_without_best: int = 0
    """Looks at the held-out loss since the best."""
    n_tokens: int = 0
    """Tokens trained on."""


@dataclass
class State:
    """A checkpoint's content, as read from its folder."""

    folder: Path
    progress: Progress
    settings: dict[str, Any]
    data: int
    """The fingerprint of the corpus."""
    optimizer: dict[str, Tensor]
    """Adam's means, by parameter: `wte.weight/exp_avg`."""


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a run, the oldest first."""
    found = [
        path
        for path in (folder / "checkpoints").glob("step-*")
        if re.fullmatch(r"step-\d{8}", path.name)
    ]
    return sorted(found)


def check_folder(folder: Path, resume: bool) -> None:
    """Refuse to begin a run where there is one, or to go on with none.

    Raises:
        ResumeError: It is so.
    """
    if resume and not checkpoints(folder):
        raise ResumeError(f"{folder} holds no checkpoint to go on from")
    if not resume and checkpoints(folder):
        raise ResumeError(
            f"{folder} holds a run already; resume it, or choose another "
            f"folder"
        )


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in which fields two descriptions differ; empty if in none."""
    return ", ".join(
        f"{key} was {was.get(key)} and is {now.get(key)}"
        for key in dict.fromkeys([*was, *now])
        if was.get(key) != now.get(key)
    )


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """Give a folder for files that are not yet whole.

    It lies in the run's, so that to move a file into place is to rename it,
    and is emptied before and after: a run that was killed while writing leaves
    no more behind than one that went on.

    Raises:
        OSError: What was to be written could not be.
    """
    place = folder / ".writing"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    except SafetensorError as error:  # its way to say that the disk is full
        raise OSError(f"{place}: {error}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_best(folder: Path, model: GPT2, tokenizer: Tokenizer | None) -> None:
    """Put a model into the run's folder, in the place of the one before.

    Raises:
        OSError: It cannot be written; the one before is still there.
    """
    with workplace(folder) as stage:
        save(stage / "best", model, tokenizer)
        move_into(stage / "best", folder)


def write_snapshot(
    folder: Path, model: GPT2, tokenizer: Tokenizer | None, step: int
) -> None:
    """Keep a model as it is after a step, for looking at it later.

    Raises:
        OSError: It cannot be written.
    """
    place = folder / "snapshots" / f"step-{step:08d}"
    with workplace(folder) as stage:
        save(stage / "snapshot", model, tokenizer)
        move(stage / "snapshot", place, stage)


def move(new: Path, place: Path, stage: Path) -> None:
    """Move a folder to its place; what an earlier run left there goes."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(stage / "old")
    new.rename(place)


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
        folder: The run's.
        model: Whole, on the CPU.
        tokenizer: Saved along with it, if given.
        optimizer: As in `State`.
        progress: Where the run stands.
        settings: The run's.
        data: The fingerprint of the corpus.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: It cannot be written; those that were there still are.
    """
    place = folder / "checkpoints" / f"step-{progress.step:08d}"
    with workplace(folder) as stage:
        new = stage / "checkpoint"
        save(new, model, tokenizer)
        save_file(optimizer, new / "optimizer.safetensors")
        facts = {
            "progress": asdict(progress),
            "settings": asdict(settings),
            "data": data,
        }
        (new / "training.json").write_text(json.dumps(facts, indent=2))
        for name in ("optimizer.safetensors", "training.json"):
            with (new / name).open("rb+") as file:
                os.fsync(file.fileno())
        move(new, place, stage)
    for old in checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old)
    return place


def read_checkpoint(folder: Path) -> State:
    """Read a run's last checkpoint, without its model.

    Raises:
        ResumeError: There is none, or it is damaged.
    """
    check_folder(folder, resume=True)
    place = checkpoints(folder)[-1]
    try:
        facts = json.loads((place / "training.json").read_text())
        return State(
            place,
            Progress(**facts["progress"]),
            facts["settings"],
            facts["data"],
            load_file(place / "optimizer.safetensors"),
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        SafetensorError,
    ) as error:
        raise unreadable(folder, place, error) from error


def unreadable(folder: Path, place: Path, error: Exception) -> ResumeError:
    """Return the error that says so of a checkpoint, and what to do."""
    *earlier, _ = checkpoints(folder)
    way_out = f"; remove it to go on from {earlier[-1]}" if earlier else ""
    return ResumeError(f"{place} cannot be read: {error}{way_out}")

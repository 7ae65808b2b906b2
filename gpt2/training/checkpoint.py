"""All that a run needs to go on as if it had never been stopped.

A checkpoint is a folder `step-00000100`: a model in Hugging Face's layout,
which `gpt2.load` opens, and beside it `optimizer.safetensors` and
`training.json`. It is written under another name and renamed when it is whole,
so that a run may be killed at any moment.

There are no random states in it: the data and the dropout of a step follow
from the seed and the number of the step (see `gpt2.training.loop`).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from gpt2.model import GPT2
from gpt2.tokenizer import Tokenizer
from gpt2.training.settings import TrainingSettings
from gpt2.weights.saving import save

_KEPT = 2
"""How many checkpoints stay: the last one, and the one before it."""


class ResumeError(ValueError):
    """A run cannot go on from what is there."""


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    """Steps taken."""
    best_loss: float = float("inf")
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
    parent = folder / "checkpoints"
    parent.mkdir(parents=True, exist_ok=True)
    stage = parent / f".writing-{secrets.token_hex(4)}"
    place = parent / f"step-{progress.step:08d}"
    try:
        save(stage, model, tokenizer)
        save_file(optimizer, stage / "optimizer.safetensors")
        facts = {
            "progress": asdict(progress),
            "settings": asdict(settings),
            "data": data,
        }
        (stage / "training.json").write_text(json.dumps(facts, indent=2))
        for path in stage.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if place.exists():  # left by a run that was started anew here
            shutil.rmtree(place)
        stage.rename(place)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    for old in checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old)
    return place


def read_checkpoint(folder: Path) -> State:
    """Read a run's last checkpoint, without its model.

    Raises:
        ResumeError: There is none, or it is damaged.
    """
    found = checkpoints(folder)
    if not found:
        raise ResumeError(f"{folder} holds no checkpoint to go on from")
    place = found[-1]
    try:
        facts = json.loads((place / "training.json").read_text())
        return State(
            place,
            Progress(**facts["progress"]),
            facts["settings"],
            facts["data"],
            load_file(place / "optimizer.safetensors"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResumeError(f"{place} cannot be read: {error}") from error

"""The folder of a run: one process writes to it, under its hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from gpt2.model import GPT2
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.training.checkpoint import (
    Progress,
    check_folder,
    checkpoints,
    write_checkpoint,
    write_snapshot,
)
from gpt2.training.hold import Hold, hold
from gpt2.training.settings import TrainingSettings
from gpt2.weights.saving import save


class RunFolder:
    """Where a run saves its models and checkpoints.

    Every process calls the same methods; only the first one writes.
    """

    def __init__(
        self,
        folder: str | Path | Hold,
        tokenizer: Tokenizer | None,
        writes: bool,
    ) -> None:
        """Describe a run's folder; nothing is written yet.

        Args:
            folder: Its path, or the hold that the caller has on it.
            tokenizer: Saved with every model.
            writes: Whether this process writes the files.
        """
        self._hold = folder if isinstance(folder, Hold) else None
        self.path = Path(folder.folder if isinstance(folder, Hold) else folder)
        self.tokenizer = tokenizer
        self.writes = writes

    @contextmanager
    def held(self, is_new: bool) -> Iterator[None]:
        """Keep other runs out, unless the caller already does.

        Args:
            is_new: The run has taken no step yet.

        Raises:
            ResumeError: Another run is training in the folder, or has begun
                there since this one was prepared.
            OSError: The folder cannot be created.
        """
        if self._hold is not None or not self.writes:
            yield
            return
        try:
            with hold(self.path) as self._hold:
                if is_new:
                    check_folder(self.path, resume=False)
                yield
        finally:
            self._hold = None

    def save_best(self, model: GPT2) -> None:
        """Save the model where `gpt2.load` finds it."""
        self._write(
            lambda: save(
                folder=self.path, model=model, tokenizer=self.tokenizer
            )
        )

    def save_snapshot(self, model: GPT2, step: int) -> None:
        """Save a copy of the model as it is after a step."""
        self._write(
            lambda: write_snapshot(self.path, model, self.tokenizer, step)
        )

    def save_checkpoint(
        self,
        model: GPT2,
        optimizer: dict[str, Tensor],
        progress: Progress,
        settings: TrainingSettings,
        data: int,
    ) -> None:
        """Write a checkpoint; for the arguments, see `write_checkpoint`."""
        self._write(
            lambda: write_checkpoint(
                self.path,
                model,
                self.tokenizer,
                optimizer,
                progress,
                settings,
                data,
            )
        )

    def _write(self, write: Callable[[], object]) -> None:
        """Write, if this process is to, and if the folder is still there.

        Raises:
            OSError: A file cannot be written, or the folder was removed.
        """
        if not self.writes:
            return
        if self._hold is None:
            write()
            return
        with self._hold.writing():
            write()

    def last_checkpoint(self) -> str:
        """Say which checkpoint is the last, for an error message."""
        found = checkpoints(self.path)
        if not found:
            return "there is no checkpoint yet"
        return f"the last checkpoint is {found[-1]}"

"""The training loop.

What a step draws at random, its rows and its dropout, depends only on the seed
and on the number of the step. So a resumed run repeats exactly what the
uninterrupted one does, without saved states of random generators.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpt2.data import Tokens, draw_batch
from gpt2.model import GPT2
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.training.checkpoint import Progress, check_folder, read_checkpoint
from gpt2.training.cross_entropy import NextTokenLoss
from gpt2.training.diagnosis import (
    TrainingError,
    check_finite,
    lost_process_reported,
)
from gpt2.training.folder import RunFolder
from gpt2.training.held_out import held_out_loss, rows_to_measure
from gpt2.training.hold import Hold
from gpt2.training.memory import freed_memory_kept
from gpt2.training.micro_batches import micro_batches
from gpt2.training.optimizer import (
    gradient_norm,
    make_optimizers,
    read_state,
    set_learning_rate,
    shorten_gradient,
    write_state,
)
from gpt2.training.preparation import (
    check_inputs,
    choose_operations,
    restore,
)
from gpt2.training.settings import TrainingSettings
from gpt2.training.workers import Workers
from gpt2.weights.saving import check_target


@dataclass(frozen=True)
class Report:
    """What a step has to report."""

    step: int
    """Steps taken, including this one."""
    loss: float
    """Of the step's batch, before the step, in nats per token."""
    learning_rate: float
    gradient_norm: float
    """Before clipping."""
    n_tokens: int
    """Tokens trained on since the run began."""
    seconds: float
    """Duration of the step, without evaluation and saving."""
    held_out_loss: float | None = None
    """In nats per token; None after steps that do not measure it."""


class Run:
    """A training run: a model in training, and how far it has come.

        run = Run(model, tokens, settings, folder, held_out=held_out)
        for report in run.steps():
            print(report.step, report.loss)

    The folder always holds the model with the lowest held-out loss so far,
    ready for `gpt2.load`, and in `checkpoints/` what `resume` needs.
    """

    def __init__(
        self,
        model: GPT2,
        tokens: Tokens,
        settings: TrainingSettings,
        folder: str | Path | Hold,
        *,
        held_out: Tokens | None = None,
        tokenizer: Tokenizer | None = None,
        workers: Workers | None = None,
        resume: bool = False,
    ) -> None:
        """Prepare a run, or resume one from its last checkpoint.

        Args:
            model: The model to train, on the CPU; its weights change.
            tokens: The corpus.
            settings: The settings.
            folder: Where to save models and checkpoints. `steps` takes a hold
                on it; a caller who has one already passes the hold.
            held_out: Text to measure the loss on, not trained on.
            tokenizer: Saved with the model.
            workers: This process and the others; None: there are no others.
            resume: Resume from the last checkpoint in the folder.

        Raises:
            ValueError: The corpus is too short or has ids that the model
                lacks, the settings do not go together, or the model cannot be
                saved in the folder.
            ResumeError: `resume`, and there is no checkpoint or one of another
                run; or not `resume`, and there is one.
        """
        self.tokens, self.settings = tokens, settings
        self.workers = workers or Workers()
        self.files = RunFolder(folder, tokenizer, self.workers.is_first)
        self.folder = self.files.path
        self.progress = Progress()
        check_folder(self.folder, resume)
        check_target(self.folder, tokenizer)
        check_inputs(model.config, tokens, held_out, settings, self.workers)
        self.row_length = (settings.context or model.config.n_ctx) + 1
        self.held_out = rows_to_measure(
            held_out, self.row_length, settings, self.workers
        )
        state = read_checkpoint(self.folder) if resume else None
        if state is not None:
            restore(model, state, tokens, settings)
            self.progress = state.progress
        self.config = model.config
        self.model: nn.Module = model.to(self.workers.device).train()
        choose_operations(model, settings, self.workers)
        loss = NextTokenLoss(model, getattr(torch, settings.precision))
        self.wrapped = self.workers.wrap(loss)  # for several processes
        self.optimizers = make_optimizers(model, settings)
        if state is not None:
            write_state(model, self.optimizers, state.optimizer, self.workers)
        self.forward: Any = (  # what the loop calls
            torch.compile(self.wrapped) if settings.compile else self.wrapped
        )

    def steps(self, snapshots: Collection[int] = ()) -> Iterator[Report]:
        """Train, and report after every step.

        A checkpoint is written when the next report is requested: by then,
        the caller has dealt with this one.

        Args:
            snapshots: Steps after which to keep a copy of the model in
                `snapshots/`; 0 is before the first.

        Raises:
            TrainingError: The loss or the gradient is not finite, or another
                process was lost. The message names the last checkpoint.
            ResumeError: Another run is training in the folder.
            OSError: A file cannot be written, or the folder was removed; files
                saved before are intact.
        """
        with (
            self.files.held(is_new=self.progress.step == 0),
            freed_memory_kept(self.workers.device),
            lost_process_reported(self),
        ):
            if self.progress.step == 0 and 0 in snapshots:
                self.files.save_snapshot(self.whole_model(), 0)
            for report in self._steps():
                if report.step in snapshots:
                    self.files.save_snapshot(self.whole_model(), report.step)
                yield report

    def _steps(self) -> Iterator[Report]:
        """Take the remaining steps: the training loop."""
        model, workers = self.model, self.workers
        settings, progress = self.settings, self.progress
        while not self._is_over():
            began = time.perf_counter()
            rate = settings.learning_rate_at(progress.step)
            set_learning_rate(self.optimizers, rate)
            rows, mask = self._draw_rows()
            n_predicted = int(mask[:, 1:].sum())
            parts = micro_batches(rows, mask, settings, workers)

            model.zero_grad()
            self.seed_dropout()
            total = torch.zeros((), device=workers.device)
            for i, (part, real, n_here) in enumerate(parts, start=1):
                with workers.synced(self.wrapped, i == len(parts)):
                    with self.autocast():
                        loss = self.forward(part, real)
                    # A part counts for as many tokens as it predicts. The
                    # processes average their gradients, and need the sum.
                    share = n_here / n_predicted
                    (loss * share * workers.world_size).backward()
                total += loss.detach() * share
            mean = float(workers.sum(total))
            norm = gradient_norm(model)
            length = float(workers.gather(norm))
            check_finite(self, mean, length, parts)
            if length > settings.clip:
                shorten_gradient(model, norm, settings.clip)
            for optimizer in self.optimizers:
                optimizer.step()
            progress.step += 1
            progress.n_tokens += n_predicted
            seconds = time.perf_counter() - began

            report = Report(
                progress.step, mean, rate, length, progress.n_tokens, seconds
            )
            if self._is_due(settings.evaluate_every):
                report = replace(report, held_out_loss=self._evaluate())
            yield report
            if self._is_due(settings.save_every):
                self._save_checkpoint()

    def _is_over(self) -> bool:
        """Tell whether all steps are taken, or patience has run out."""
        progress, patience = self.progress, self.settings.patience
        impatient = (
            patience is not None and progress.n_without_best >= patience
        )
        return impatient or progress.step >= self.settings.n_steps

    def _is_due(self, every: int) -> bool:
        """Tell whether this is the last step, or one of every so many."""
        return self._is_over() or self.progress.step % every == 0

    def _draw_rows(self) -> tuple[Tensor, Tensor]:
        """Draw the rows of a step, for all processes; see `draw_batch`."""
        return draw_batch(
            self.tokens,
            self.progress.step,
            self.settings.batch_size,
            self.row_length,
            windows=self.settings.windows,
            seed=self.settings.seed,
        )

    def seed_dropout(self) -> None:
        """Seed dropout, differently for each step, process and run.

        PyTorch's CPU generator uses only the last 32 bits of a seed; so the
        three numbers are hashed into one.
        """
        key = (self.settings.seed, self.progress.step, self.workers.rank)
        hashed = np.random.SeedSequence(key).generate_state(1, np.uint64)
        torch.manual_seed(int(hashed[0]))

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute matrix products in the precision of the settings."""
        return torch.autocast(
            self.workers.device.type,
            dtype=torch.bfloat16,
            enabled=self.settings.precision == "bfloat16",
        )

    def _evaluate(self) -> float | None:
        """Measure the held-out loss, and save the model if it is the best.

        Without held-out text, every model counts as the best.
        """
        loss = held_out_loss(self)
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(
                f"step {self.progress.step}: the held-out loss is {loss}; "
                f"{self.files.last_checkpoint()}"
            )
        if self.progress.is_best(loss):
            self.files.save_best(self.whole_model())
        return loss

    def whole_model(self) -> GPT2:
        """Return the model with whole tensors on the CPU.

        Tensors that are whole and on the CPU already are not copied. If the
        model is sharded, all processes have to call this.
        """
        with torch.device("meta"):
            model = GPT2(self.config)
        tensors = self.workers.gather_all(self.model.state_dict())
        model.load_state_dict(tensors, assign=True)
        return model

    def _save_checkpoint(self) -> None:
        state = read_state(self.model, self.optimizers)
        self.files.save_checkpoint(
            self.whole_model(),
            self.workers.gather_all(state),
            self.progress,
            self.settings,
            self.tokens.fingerprint,
        )
        self.workers.wait()

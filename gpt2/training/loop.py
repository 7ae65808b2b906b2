"""The training loop.

What is random in a step, the rows of its batch and its dropout, follows from
the seed and the number of the step alone. So a run that was stopped goes on
exactly as it would have, with nothing random to remember.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpt2.attention import MultiHeadAttention
from gpt2.data import Tokens, draw_batch, first_documents
from gpt2.model import GPT2, next_token_loss
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.training.checkpoint import (
    OPTIMIZER,
    Progress,
    ResumeError,
    State,
    check_folder,
    checkpoints,
    differences,
    read_checkpoint,
    unreadable,
    write_checkpoint,
    write_snapshot,
)
from gpt2.training.cross_entropy import cross_entropy
from gpt2.training.diagnosis import where_not_finite
from gpt2.training.hold import Hold, hold
from gpt2.training.memory import freed_memory_kept
from gpt2.training.optimizer import (
    check_state,
    make_optimizers,
    read_state,
    set_learning_rate,
    write_state,
)
from gpt2.training.settings import TrainingSettings
from gpt2.training.workers import Workers
from gpt2.weights.errors import CheckpointError
from gpt2.weights.loading import load_model
from gpt2.weights.saving import check_target, save


class TrainingError(RuntimeError):
    """A run has come to a point from which it cannot go on."""


Part = tuple[Tensor, Tensor | None, int]
"""The rows of a micro-batch, which of their tokens are real (None: all), and
how many are predicted."""


@dataclass(frozen=True)
class Report:
    """What there is to say after a step."""

    step: int
    """Steps taken, this one included."""
    loss: float
    """Of the step's batch before the step, in nats per token."""
    learning_rate: float
    gradient_norm: float
    """Length of the gradient, before clipping."""
    n_tokens: int
    """Tokens trained on since the run began."""
    seconds: float
    """What the step took, without evaluation and saving."""
    held_out_loss: float | None = None
    """In nats per token, in the steps in which it was measured."""


class Run:
    """A training run: a model that is being changed, and where it stands.

        run = Run(model, tokens, held_out, settings, folder)
        for report in run.steps():
            print(report.step, report.loss)

    In the run's folder, the model with the lowest held-out loss so far lies
    ready for `gpt2.load`; `checkpoints/` holds what `resume` needs.
    """

    def __init__(
        self,
        model: GPT2,
        tokens: Tokens,
        held_out: Tokens | None,
        settings: TrainingSettings,
        folder: str | Path,
        *,
        tokenizer: Tokenizer | None = None,
        workers: Workers | None = None,
        snapshots: frozenset[int] = frozenset(),
        resume: bool = False,
        held: Hold | None = None,
    ) -> None:
        """Prepare a run, or pick one up where it stopped.

        Args:
            model: What is trained; its weights are changed.
            tokens: The corpus.
            held_out: Text that is not trained on, to measure the loss on.
            settings: How the run goes.
            folder: Where it is written down.
            tokenizer: Saved along with the model.
            workers: This process and those beside it; alone if None.
            snapshots: Steps after which a copy of the model is kept, in
                `snapshots/`; 0 is before the first.
            resume: Go on from the last checkpoint in the folder.
            held: The hold on the folder, if the caller has it; by default,
                `steps` takes it, and gives it back at its end.

        Raises:
            ValueError: The corpus is too short or has ids that the model
                lacks, the settings do not go together, or the model cannot be
                saved into the folder.
            ResumeError: There is no checkpoint, it belongs to another run, or
                there is one and `resume` is false.
        """
        self.settings, self.folder = settings, Path(folder)
        self.tokens, self.held_out = tokens, held_out
        self.tokenizer = tokenizer
        self.workers = workers or Workers()
        self.snapshots = snapshots
        self.held = held
        self.progress = Progress()
        self.context = settings.context or model.config.n_ctx
        check_folder(self.folder, resume)
        check_target(self.folder, tokenizer)
        self._check(model)
        self.measured = self._rows_to_measure()
        state = read_checkpoint(self.folder) if resume else None
        if state is not None:
            self._take_up(model, state)
        self.config = model.config
        model.to(self.workers.device).train()
        for layer in model.modules():
            if isinstance(layer, MultiHeadAttention):
                layer.fused = settings.fused_attention
        self.model: nn.Module = model  # which owns the parameters
        self.shared = self.workers.share(model)
        self.optimizers = make_optimizers(model, settings)
        if state is not None:
            write_state(
                self.model, self.optimizers, state.optimizer, self.workers
            )
        self.called: Any = (  # as the steps call it
            torch.compile(self.shared) if settings.compile else self.shared
        )

    def _check(self, model: GPT2) -> None:
        """Refuse what does not go together."""
        for tokens in (self.tokens, self.held_out):
            if tokens is not None and tokens.n_vocab > model.config.n_vocab:
                raise ValueError(
                    f"the corpus has {tokens.n_vocab} different ids, and the "
                    f"model only {model.config.n_vocab}"
                )
        if self.context > model.config.n_ctx:
            raise ValueError(
                f"context must be at most the model's n_ctx, "
                f"{model.config.n_ctx}; got {self.context}"
            )
        shares = self.workers.count * self.settings.n_accumulate
        if (rows := self.settings.batch_size) % shares:
            raise ValueError(
                f"batch_size must be a multiple of {shares}, the number of "
                f"processes times n_accumulate; got {rows}"
            )
        if self.settings.patience is not None and self.held_out is None:
            raise ValueError("patience needs held-out text to lose it over")
        length, windows = self.context + 1, self.settings.windows
        draw_batch(self.tokens, 0, 1, length, windows=windows)  # long enough?

    def _rows_to_measure(self) -> tuple[Tensor, Tensor] | None:
        """Return the rows of the held-out loss and which tokens are real.

        With `windows="documents"` these are whole documents, each by itself.
        They are the same every time.
        """
        if self.held_out is None:
            return None
        n_rows, length = self.settings.evaluate_rows, self.context + 1
        if self.settings.windows == "documents":
            rows, mask = first_documents(self.held_out, n_rows, length)
        else:
            rows, mask = draw_batch(self.held_out, 0, n_rows, length)
        if len(rows) % self.workers.count:
            raise ValueError(
                f"evaluate_rows must be a multiple of {self.workers.count}, "
                f"the number of processes; there are {len(rows)} rows"
            )
        return rows, mask

    def _take_up(self, model: GPT2, state: State) -> None:
        """Bring the model to where a checkpoint stands."""
        if changed := differences(state.settings, asdict(self.settings)):
            raise ResumeError(
                f"{state.folder} belongs to another run: {changed}"
            )
        if state.data != self.tokens.fingerprint:
            raise ResumeError(
                f"{state.folder} belongs to a run on another corpus"
            )
        try:
            saved = load_model(state.folder)
        except CheckpointError as error:
            raise unreadable(state.folder, error) from error
        if changed := differences(asdict(saved.config), asdict(model.config)):
            raise ResumeError(f"{state.folder} holds another model: {changed}")
        try:
            check_state(
                model,
                make_optimizers(model, self.settings),
                state.optimizer,
                state.progress.step,
            )
        except ValueError as error:
            problem = ValueError(f"{state.folder / OPTIMIZER}: {error}")
            raise unreadable(state.folder, problem) from error
        model.load_state_dict(saved.state_dict())  # copies
        self.progress = state.progress

    def steps(self) -> Iterator[Report]:
        """Train, and report after every step.

        A checkpoint is written when the next report is asked for: by then
        this one has been dealt with, and is not lost if the run is killed.

        Raises:
            TrainingError: The loss is no longer a number, or another process
                was lost; the message says where, and what is saved.
            ResumeError: Another run is at work in the folder.
            OSError: A file cannot be written; what was there still is. Or the
                folder was removed.
        """
        with self._alone(), freed_memory_kept(self.workers.device):
            yield from self._steps()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other runs out of the folder, if the caller does not."""
        if self.held is not None or not self.workers.is_first:
            yield
            return
        try:
            with hold(self.folder) as self.held:
                if self.progress.step == 0:  # nobody has been faster?
                    check_folder(self.folder, resume=False)
                yield
        finally:
            self.held = None

    def _steps(self) -> Iterator[Report]:
        progress, settings = self.progress, self.settings
        if progress.step == 0:
            self._snapshot()
        while progress.step < settings.n_steps and not self._is_stale():
            with self._together():
                report = self._step()
                last = progress.step == settings.n_steps
                if last or progress.step % settings.evaluate_every == 0:
                    report = self._evaluate(report)
                self._snapshot()
            yield report
            last = last or self._is_stale()
            if last or progress.step % settings.save_every == 0:
                with self._together():
                    self._checkpoint()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Say what it means if talking to the other processes fails."""
        try:
            yield
        except RuntimeError as error:
            alone = self.workers.count == 1
            known = isinstance(error, TrainingError | torch.OutOfMemoryError)
            if alone or known:
                raise
            raise TrainingError(
                f"process {self.workers.rank} stops after step "
                f"{self.progress.step}, as another one seems to be lost "
                f"({_first_line(error)}); {self._saved()}"
            ) from error

    def _is_stale(self) -> bool:
        patience = self.settings.patience
        return (
            patience is not None and self.progress.n_without_best >= patience
        )

    def _step(self) -> Report:
        """Change the weights once."""
        began = time.perf_counter()
        settings, progress = self.settings, self.progress
        rate = settings.learning_rate_at(progress.step)
        set_learning_rate(self.optimizers, rate)
        rows, mask = draw_batch(
            self.tokens,
            progress.step,
            settings.batch_size,
            self.context + 1,
            windows=settings.windows,
            seed=settings.seed,
        )
        self._seed()
        n_predicted = int(mask[:, 1:].sum())
        parts = list(self._parts(rows, mask))
        self.model.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.workers.device)
        for i, (part, real, n_here) in enumerate(parts):
            last = i == len(parts) - 1
            with self.workers.without_sync(self.shared, last):
                with self._autocast():
                    loss = next_token_loss(
                        self.called, part, real, cross_entropy
                    )
                # The mean over all tokens is no mean of the parts' means: a
                # part counts for as many tokens as it predicts. And of the sum
                # over the processes, the engine will make a mean.
                share = n_here / n_predicted
                (loss * share * self.workers.count).backward()
            total += loss.detach() * share
        mean = float(self.workers.sum(total))
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        length = float(self.workers.whole({"norm": norm})["norm"])
        if not (math.isfinite(mean) and math.isfinite(length)):
            raise TrainingError(self._not_finite(mean, rate, parts))
        for optimizer in self.optimizers:
            optimizer.step()
        progress.step += 1
        progress.n_tokens += n_predicted
        return Report(
            progress.step,
            mean,
            rate,
            length,
            progress.n_tokens,
            time.perf_counter() - began,
        )

    def _parts(self, rows: Tensor, mask: Tensor) -> Iterator[Part]:
        """Cut this process's rows into micro-batches, with little padding."""
        workers, settings = self.workers, self.settings
        n_rows = settings.batch_size // (workers.count * settings.n_accumulate)
        mine = slice(workers.rank, None, workers.count)
        for part, real in zip(
            rows[mine].split(n_rows), mask[mine].split(n_rows), strict=True
        ):
            longest = int(real.sum(1).max())
            part, real = part[:, :longest], real[:, :longest]
            padding = None if real.all() else real.to(workers.device)
            yield part.to(workers.device), padding, int(real[:, 1:].sum())

    def _seed(self) -> None:
        """Let dropout differ between steps, processes and runs.

        The three numbers are mixed, since PyTorch's generator for the CPU
        looks at the last 32 bits of a seed only.
        """
        key = (self.settings.seed, self.progress.step, self.workers.rank)
        mixed = np.random.SeedSequence(key).generate_state(1, np.uint64)
        torch.manual_seed(int(mixed[0]))

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(
            self.workers.device.type,
            dtype=torch.bfloat16,
            enabled=self.settings.precision == "bfloat16",
        )

    @torch.no_grad()
    def _evaluate(self, report: Report) -> Report:
        """Measure the held-out loss, and keep the model if it is the best."""
        progress = self.progress
        loss = self._held_out_loss()
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(
                f"step {progress.step}: the held-out loss is {loss}; "
                f"{self._saved()}"
            )
        best = progress.best_loss
        if loss is None or best is None or loss < best:
            progress.best_loss = loss
            progress.best_step = progress.step
            progress.n_without_best = 0
            model = self.whole_model()
            self._write(save, model, self.tokenizer, self.folder)
        else:
            progress.n_without_best += 1
        return replace(report, held_out_loss=loss)

    def _held_out_loss(self) -> float | None:
        """Return the mean loss over the held-out rows, if there are any."""
        if self.measured is None:
            return None
        total = torch.zeros(2, device=self.workers.device)  # nats, tokens
        self.model.eval()
        for part, real, n_here in self._parts(*self.measured):
            with self._autocast():
                mean = next_token_loss(self.called, part, real, cross_entropy)
            total += torch.stack(
                [mean * n_here, torch.full_like(mean, n_here)]
            )
        self.model.train()
        nats, count = self.workers.sum(total)
        return float(nats / count)

    def whole_model(self) -> GPT2:
        """Return the model with whole tensors on the CPU.

        What is whole and there already is not copied. Where the model is
        shared out, all processes have to call this.
        """
        with torch.device("meta"):
            model = GPT2(self.config)
        tensors = self.workers.whole(self.model.state_dict())
        model.load_state_dict(tensors, assign=True)
        return model

    def _checkpoint(self) -> None:
        model = self.whole_model()
        state = read_state(self.model, self.optimizers)
        optimizer = self.workers.whole(state)
        self._write(
            write_checkpoint,
            self.folder,
            model,
            self.tokenizer,
            optimizer,
            self.progress,
            self.settings,
            self.tokens.fingerprint,
        )
        self.workers.wait()

    def _snapshot(self) -> None:
        """Keep a copy of the model, if one is wanted after this step."""
        step = self.progress.step
        if step in self.snapshots:
            model = self.whole_model()
            self._write(
                write_snapshot, self.folder, model, self.tokenizer, step
            )

    def _write(self, write: Callable[..., object], *what: object) -> None:
        """Let the first process write, into a folder that is still there."""
        if self.workers.is_first:
            with nullcontext() if self.held is None else self.held.writing():
                write(*what)

    def _saved(self) -> str:
        """Say which checkpoint there is."""
        found = checkpoints(self.folder)
        if not found:
            return "there is no checkpoint yet"
        return f"the last checkpoint is {found[-1]}"

    def _not_finite(
        self, loss: float, rate: float, parts: Sequence[Part]
    ) -> str:
        """Say what has happened to a step whose numbers are not finite."""

        def forward() -> None:
            self._seed()
            for part, real, _ in parts:
                mask = None if real is None else real[:, :-1]
                with self._autocast():
                    self.model(part[:, :-1], mask)

        where = where_not_finite(self.model, loss, forward, self.workers)
        return (
            f"step {self.progress.step + 1} (learning rate {rate:.3g}): the "
            f"loss is {loss}; the first numbers that are not finite are in "
            f"{where}; {self._saved()}"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

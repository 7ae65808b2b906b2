"""Why a run cannot go on, said in one line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2.files.errors import first_line
from gpt2.training.micro_batches import MicroBatch

if TYPE_CHECKING:
    from gpt2.training.loop import Run


class TrainingError(RuntimeError):
    """A run cannot go on."""


@contextmanager
def lost_process_reported(run: Run) -> Iterator[None]:
    """Turn a failure to reach the other processes into a clear error.

    Raises:
        TrainingError: Another process was lost.
    """
    try:
        yield
    except RuntimeError as error:
        is_alone = run.workers.world_size == 1
        is_clear = isinstance(error, TrainingError | torch.OutOfMemoryError)
        if is_alone or is_clear:
            raise
        raise TrainingError(
            f"process {run.workers.rank} stops after step "
            f"{run.progress.step}: another process seems to be lost "
            f"({first_line(error)}); {run.files.last_checkpoint()}"
        ) from error


def check_finite(
    run: Run, loss: float, norm: float, parts: Sequence[MicroBatch]
) -> None:
    """Check the loss and the gradient of a step before it changes the model.

    Args:
        run: Before the step.
        loss: The step's, in nats per token.
        norm: The length of its gradient.
        parts: Its micro-batches, run once more to find the cause.

    Raises:
        TrainingError: One of the two is infinite or NaN; the message says
            where the first such number is.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    step = run.progress.step
    rate = run.settings.learning_rate_at(step)
    raise TrainingError(
        f"step {step + 1} (learning rate {rate:.3g}): the loss is {loss}; the "
        f"first numbers that are not finite are in "
        f"{_first_not_finite(run, loss, parts)}; {run.files.last_checkpoint()}"
    )


@torch.no_grad()
def _first_not_finite(
    run: Run, loss: float, parts: Sequence[MicroBatch]
) -> str:
    """Return where the first numbers are that are not finite."""
    for name, parameter in run.model.named_parameters():
        if not run.workers.gather(parameter).isfinite().all():
            return f"the weights of {name}"
    if math.isfinite(loss):
        return "the gradient"
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: object, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    hooks = [
        module.register_forward_hook(watch(name))
        for name, module in run.model.named_modules()
    ]
    run.seed_dropout()
    for tokens, mask, _ in parts:
        with run.autocast():
            run.wrapped(tokens, mask)
    for handle in hooks:
        handle.remove()
    if found:
        return f"the output of {found[0]}"
    is_alone = run.workers.world_size == 1
    return "the loss itself" if is_alone else "another process"

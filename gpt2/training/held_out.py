"""The held-out loss of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2.data import Tokens, draw_batch, first_documents
from gpt2.training.micro_batches import micro_batches
from gpt2.training.settings import TrainingSettings
from gpt2.training.workers import Workers

if TYPE_CHECKING:
    from gpt2.training.loop import Run


def rows_to_measure(
    held_out: Tokens | None,
    length: int,
    settings: TrainingSettings,
    workers: Workers,
) -> tuple[Tensor, Tensor] | None:
    """Return the rows that the held-out loss is measured on.

    They are the same every time. With `windows="documents"`, each is one
    document.

    Args:
        held_out: The text; None if there is none.
        length: Most ids in a row.
        settings: The run's.
        workers: Which will share the rows.

    Returns:
        Ids (B, T) of int64 and mask (B, T) of bool; or None, without a text.

    Raises:
        DataError: The text is too short.
        ValueError: The rows cannot be split evenly among the processes.
    """
    if held_out is None:
        return None
    n_rows = settings.evaluate_rows
    if settings.windows == "documents":
        rows, mask = first_documents(held_out, n_rows, length)
    else:
        rows, mask = draw_batch(held_out, 0, n_rows, length)
    if len(rows) % workers.world_size:
        raise ValueError(
            f"evaluate_rows must be a multiple of {workers.world_size}, the "
            f"number of processes; got {len(rows)} rows"
        )
    return rows, mask


@torch.no_grad()
def held_out_loss(run: Run) -> float | None:
    """Measure a model on the held-out rows, without dropout.

    Args:
        run: All its processes have to call this.

    Returns:
        The mean over all predicted tokens, in nats; None without a text.
    """
    if run.held_out is None:
        return None
    rows, mask = run.held_out
    total = torch.zeros(2, device=run.workers.device)  # nats, tokens
    run.model.eval()
    for part, real, n_here in micro_batches(
        rows, mask, run.settings, run.workers
    ):
        with run.autocast():
            loss = run.forward(part, real)
        count = torch.full_like(loss, n_here)
        total += torch.stack([loss * count, count])
    run.model.train()
    nats, n_tokens = run.workers.sum(total)
    return float(nats / n_tokens)

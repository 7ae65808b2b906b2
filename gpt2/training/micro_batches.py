"""Splitting the rows of a step among processes and into micro-batches."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from gpt2.training.settings import TrainingSettings
from gpt2.training.workers import Workers


class MicroBatch(NamedTuple):
    """Rows that go through the model together."""

    tokens: Tensor
    """(B, T) of int64."""
    mask: Tensor | None
    """(B, T) of bool, true for real tokens; None if there is no padding."""
    n_predicted: int
    """How many tokens are predicted: the real ones but the first of a row."""


def micro_batches(
    rows: Tensor, mask: Tensor, settings: TrainingSettings, workers: Workers
) -> list[MicroBatch]:
    """Take this process's rows, and split them.

    Args:
        rows: (B, T) of int64: the rows of all processes, shortest first if
            they are padded.
        mask: (B, T) of bool, true for real tokens.
        settings: How many rows a step has, and in how many micro-batches; the
            same number of rows goes into each of these.
        workers: Which rows are this process's.

    Returns:
        Micro-batches on this process's device, each only as wide as its
        longest row.
    """
    n_parts = workers.world_size * settings.n_accumulate
    n_rows = settings.batch_size // n_parts
    mine = slice(workers.rank, None, workers.world_size)
    parts = []
    for tokens, real in zip(
        rows[mine].split(n_rows), mask[mine].split(n_rows), strict=True
    ):
        longest = int(real.sum(1).max())
        tokens, real = tokens[:, :longest], real[:, :longest]
        padding = None if real.all() else real.to(workers.device)
        n_predicted = int(real[:, 1:].sum())
        parts.append(
            MicroBatch(tokens.to(workers.device), padding, n_predicted)
        )
    return parts

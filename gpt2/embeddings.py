"""Token and position embeddings: two tables of learned vectors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.linear import normal_parameter


class Embedding(nn.Module):
    """A table of vectors, one row for each id.

    Looking up row i is the product of a one-hot row vector with the table,
    without the work of multiplying by all those zeros.
    """

    def __init__(self, rows: int, width: int, std: float = 0.02) -> None:
        """Draw a table (rows, width) with standard deviation `std`."""
        super().__init__()
        self.weight = normal_parameter(rows, width, std=std)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up the rows of `ids`.

        Args:
            ids: Whole numbers, any shape.

        Returns:
            Their vectors, with one more axis: (*ids.shape, width).

        Raises:
            ValueError: An id is not a row of the table (found on the CPU only;
                CUDA reports it as a device-side assertion).
        """
        try:
            return F.embedding(ids, self.weight)
        except IndexError:
            check_ids(ids, self.weight.size(0))
            raise


def check_ids(ids: Tensor, n_rows: int, name: str = "ids") -> None:
    """Refuse ids that are not rows of a table.

    Args:
        ids: Whole numbers, any shape.
        n_rows: How many rows there are.
        name: What to call the ids in the message.

    Raises:
        ValueError: One is below 0, or `n_rows` or more: the first such.
    """
    strange = ids[(ids < 0) | (ids >= n_rows)]
    if len(strange):
        raise ValueError(
            f"{name} must lie between 0 and {n_rows - 1}, as the table has "
            f"{n_rows} rows; got {int(strange[0])}"
        )


def positions_of(attention_mask: Tensor) -> Tensor:
    """Return the position of each token: the number of real tokens before it.

    So a padded sequence has the positions it would have alone, wherever the
    padding stands.

    Args:
        attention_mask: (B, S), true or 1 where there is a token, false or 0
            where there is padding.

    Returns:
        (B, S) of int64. Leading padding gets position 0, which nobody reads.
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)

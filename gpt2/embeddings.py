"""Token and position embeddings: two tables of learned vectors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.linear import normal_parameter


class Embedding(nn.Module):
    """A table of vectors, one row for each id.

    Looking up row i is the product of a one-hot row vector with the table,
    without the multiplications by zero.
    """

    def __init__(self, rows: int, width: int, std: float = 0.02) -> None:
        """Draw a table (rows, width) with standard deviation `std`."""
        super().__init__()
        self.weight = normal_parameter(rows, width, std=std)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up the rows of `ids`.

        Args:
            ids: int64 or int32, any shape.

        Returns:
            (*ids.shape, width), the dtype of the table: a vector for each id.

        Raises:
            ValueError: An id is not a row of the table (on the CPU; CUDA
                reports a device-side assertion instead).
        """
        try:
            return F.embedding(ids, self.weight)
        except IndexError:
            check_ids(ids, self.weight.size(0))
            raise

    def extra_repr(self) -> str:
        """Show the sizes in `repr`."""
        return ", ".join(map(str, self.weight.shape))


def check_ids(ids: Tensor, n_rows: int, name: str = "ids") -> None:
    """Raise an error for ids that are not rows of a table.

    Args:
        ids: int64 or int32, any shape.
        n_rows: The number of rows.
        name: What the message calls the ids.

    Raises:
        ValueError: An id is below 0, or `n_rows` or more; the message gives
            the first.
    """
    outside = ids[(ids < 0) | (ids >= n_rows)]
    if len(outside):
        raise ValueError(
            f"{name} must lie between 0 and {n_rows - 1}; got "
            f"{int(outside[0])}"
        )


def positions_of(attention_mask: Tensor) -> Tensor:
    """Return the position of each token: the number of real tokens before it.

    So a padded sequence has the same positions as it has alone, on whichever
    side the padding is.

    Args:
        attention_mask: (B, S), any dtype; true or 1 for a token, false or 0
            for padding.

    Returns:
        (B, S) of int64. Leading padding gets position 0, which has no effect.
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)

"""The key/value cache: keys and values that later positions reuse."""

from __future__ import annotations

import torch
from torch import Tensor

from gpt2.config import GPT2Config


class LayerCache:
    """The keys and values that one layer has computed so far.

    They are written in place into tensors of a fixed size. Autograd cannot
    follow such writes, so a cache is for inference only.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int = 0) -> None:
        """Take over two tensors, of which `length` positions are filled.

        Args:
            keys: (B, H, n_positions, D), floating point.
            values: The same shape and dtype.
            length: The number of positions that are filled already.
        """
        self.keys, self.values, self.length = keys, values, length

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store new positions, and return all that are filled.

        Args:
            key: (B, H, T, D), of the cache's dtype.
            value: (B, H, T, D), of the cache's dtype.

        Returns:
            The keys and the values of all S = length + T positions, each a
            view (B, H, S, D) of the cache.

        Raises:
            ValueError: There is no room for T more positions, or the dtype, B,
                H or D is not the cache's. The cache is left unchanged.
        """
        end, room = self.length + key.size(2), self.keys.size(2)
        fitting = (*self.keys.shape[:2], key.size(2), self.keys.size(3))
        if end > room or key.dtype != self.keys.dtype or key.shape != fitting:
            raise ValueError(
                f"the cache (B, H, positions, D) is {self.keys.dtype} "
                f"{tuple(self.keys.shape)} with {self.length} positions "
                f"filled; {key.dtype} {tuple(key.shape)} does not fit. The "
                "model's `new_cache` makes one that fits"
            )
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KeyValueCache:
    """The keys and values of all layers, so that none is computed twice."""

    def __init__(
        self,
        config: GPT2Config,
        batch_size: int,
        n_positions: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        """Reserve `2 * n_layer * batch_size * n_positions * n_embd` numbers.

        Args:
            config: The model's.
            batch_size: B, the number of sequences.
            n_positions: The most positions that the cache can hold; None means
                `config.n_ctx`.
            dtype: The model's.
            device: The model's.
        """
        room = config.n_ctx if n_positions is None else n_positions
        self.n_layers, self.batch_size = config.n_layer, batch_size
        self.n_positions = room
        shape = (batch_size, config.n_head, room, config.head_size)

        def reserve() -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.layers = [
            LayerCache(reserve(), reserve()) for _ in range(self.n_layers)
        ]

    @property
    def length(self) -> int:
        """The number of positions that are filled."""
        return self.layers[0].length

    def of_layers(self, n_layer: int) -> list[LayerCache]:
        """Return the cache of each layer.

        Args:
            n_layer: The number of layers of the model that asks.

        Raises:
            ValueError: The cache has another number of layers, so it was made
                for another model.
        """
        if len(self.layers) != n_layer:
            raise ValueError(
                f"the cache has {len(self.layers)} layers and the model has "
                f"{n_layer}; the model's `new_cache` makes one that fits"
            )
        return self.layers

    def select(self, rows: Tensor) -> None:
        """Keep the sequences `rows`, in that order; one may be repeated.

        Args:
            rows: (new B,) of int64.
        """
        self.batch_size = len(rows)
        for layer in self.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_empty(len(rows), *old.shape[1:])
                filled = slice(0, layer.length)
                new[:, :, filled] = old[rows, :, filled]
                setattr(layer, name, new)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(n_layers={self.n_layers}, "
            f"batch_size={self.batch_size}, length={self.length}, "
            f"n_positions={self.n_positions})"
        )

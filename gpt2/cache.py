"""The key/value cache: what earlier positions have computed already."""

from __future__ import annotations

import torch
from torch import Tensor

from gpt2.config import GPT2Config


class LayerCache:
    """The keys and values that one layer has computed so far.

    They go into memory reserved beforehand. This is for inference only:
    autograd cannot follow writes in place.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int = 0) -> None:
        """Take over memory, of which `length` positions are filled.

        Args:
            keys: (B, H, n_positions, D).
            values: The same shape.
            length: Positions that hold something already.
        """
        self.keys, self.values, self.length = keys, values, length

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Remember the new positions and return all there are.

        Args:
            key: (B, H, T, D).
            value: (B, H, T, D).

        Returns:
            Keys and values of all positions so far, each (B, H, S, D), without
            a copy.

        Raises:
            ValueError: There is no room for them, or they are of another
                dtype, number of sequences or shape of heads.
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
    """The keys and values of every layer: no position is computed twice."""

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
            batch_size: B, how many sequences go side by side.
            n_positions: How many positions there is room for; `config.n_ctx`
                by default.
            dtype: The model's.
            device: The model's.
        """
        room = config.n_ctx if n_positions is None else n_positions
        shape = (batch_size, config.n_head, room, config.head_size)

        def reserve() -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.layers = [
            LayerCache(reserve(), reserve()) for _ in range(config.n_layer)
        ]

    @property
    def length(self) -> int:
        """How many positions are filled."""
        return self.layers[0].length

    def of_layers(self, n_layer: int) -> list[LayerCache]:
        """Return each layer's part, of which there must be `n_layer`.

        Raises:
            ValueError: The cache was made by a model with more or fewer.
        """
        if len(self.layers) != n_layer:
            raise ValueError(
                f"the cache has {len(self.layers)} layers, and the model "
                f"{n_layer}; the model's `new_cache` makes one that fits"
            )
        return self.layers

    def select(self, rows: Tensor) -> None:
        """Keep the sequences `rows`, in that order; one may come twice.

        Args:
            rows: (new B,) of int64.
        """
        for layer in self.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_empty(len(rows), *old.shape[1:])
                filled = slice(0, layer.length)
                new[:, :, filled] = old[rows, :, filled]
                setattr(layer, name, new)

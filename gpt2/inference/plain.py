"""All layers of a packed model in PyTorch, where there is no C compiler."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from gpt2.attention import padding_mask
from gpt2.cache import KeyValueCache
from gpt2.config import GPT2Config
from gpt2.inference.compiled import Precision, release
from gpt2.inference.kernels import PlainMatrix, check_finite
from gpt2.layer import GPT2Layer
from gpt2.layer_norm import LayerNorm
from gpt2.linear import Linear


def frozen(norm: LayerNorm) -> LayerNorm:
    """Copy a norm, in float32 and without gradients.

    Raises:
        ValueError: A value is not finite.
    """
    for parameter in norm.parameters():
        check_finite(parameter)
    return copy.deepcopy(norm).float().requires_grad_(False)


class PlainLayers:
    """All layers, with packed matrices in place of the linear maps."""

    def __init__(
        self,
        layers: Iterable[GPT2Layer],
        config: GPT2Config,
        precision: Precision,
        consume: bool = False,
    ) -> None:
        """Pack the layers of a model.

        Args:
            layers: Nothing is shared with them.
            config: The model's.
            precision: The format of the matrices.
            consume: Release their matrices; otherwise they are left as they
                are.

        Raises:
            ValueError: A weight is not finite, before or after rounding.
        """
        self.config, self.layers = config, []
        for layer in layers:
            self.layers.append(self.packed(layer, precision))
            for parameter in layer.parameters() if consume else ():
                release(parameter)

    def packed(self, layer: GPT2Layer, precision: Precision) -> GPT2Layer:
        """Copy a layer, with packed matrices."""
        with torch.device("meta"):  # only the structure
            copied = GPT2Layer(self.config).eval()
        for name, part in layer.named_modules():
            if isinstance(part, Linear):
                matrix = PlainMatrix(part.weight, part.bias, precision)
                copied.set_submodule(name, matrix)
            elif isinstance(part, LayerNorm):
                copied.set_submodule(name, frozen(part))
        return copied

    def new_cache(
        self, batch_size: int, n_positions: int | None
    ) -> KeyValueCache:
        """Reserve a cache, float32 at every precision."""
        return KeyValueCache(self.config, batch_size, n_positions)

    def __call__(
        self,
        x: Tensor,
        attention_mask: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        """Run the layers; arguments as for `CompiledLayers`."""
        mask = None
        if attention_mask is not None:
            mask = padding_mask(attention_mask, x.size(1))
        caches = None if cache is None else cache.of_layers(len(self.layers))
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, None if caches is None else caches[i])
        return x

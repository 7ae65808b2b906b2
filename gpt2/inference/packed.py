"""A GPT-2 with its weights packed for fast generation on a CPU.

Decoding is bound by memory bandwidth: a step multiplies one vector by every
matrix, so its time is the time to read the weights, plus the overhead of the
calls. A packed model stores the weights in fewer bytes, in the order in which
they are read, and runs all layers in one call of compiled C where there is a
compiler.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn, cast

import torch
from torch import Tensor, nn

from gpt2.attention import MultiHeadAttention
from gpt2.cache import KeyValueCache
from gpt2.embeddings import Embedding, check_ids
from gpt2.feed_forward import ACTIVATION_FUNCTIONS, FeedForward
from gpt2.inference import compiled, kernels
from gpt2.inference.compiled import PRECISIONS, Precision
from gpt2.inference.kernels import check_finite, pack
from gpt2.inference.layers import CompiledLayers
from gpt2.inference.plain import PlainLayers, frozen
from gpt2.layer import GPT2Layer
from gpt2.layer_norm import LayerNorm
from gpt2.linear import Linear
from gpt2.model import GPT2, last_tokens


def for_inference(
    model: GPT2, precision: Precision = "bfloat16", *, consume: bool = False
) -> PackedGPT2:
    """Pack a model's weights for fast generation on a CPU.

    Args:
        model: A model on the CPU. It is left unchanged and shares nothing with
            the result, so a file that it is mapped from may be closed.
        precision: `float32` computes what the model computes. `bfloat16` reads
            half as many bytes, `int8` a quarter, and `int4` a seventh; they
            round the weights and, in compiled code, the activations.
        consume: Free each matrix of `model` as soon as it is packed, so that
            no two copies of all weights exist. `model` is unusable afterwards.

    Returns:
        A model for `generate` and everything else that takes logits. It cannot
        be trained, saved or moved.

    Raises:
        ValueError: The precision is unknown, the model is packed already, is
            not on the CPU or is not a plain GPT2, or a weight is not finite,
            before or after rounding.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(PRECISIONS)}; got "
            f"{precision!r}"
        )
    if isinstance(model, PackedGPT2):
        raise ValueError(f"the model is packed already, as {model.precision}")
    check_parts(model)
    if model.device.type != "cpu":
        raise ValueError(
            f"weights are packed for the CPU; the model is on {model.device}"
        )
    try:
        return PackedGPT2(model, precision, consume)
    except ValueError as error:
        if (name := _not_finite(model)) is None:
            raise
        raise ValueError(
            f"{name} has values that are not finite; the model cannot be "
            f"packed"
        ) from error


_PARTS = (
    *(GPT2, GPT2Layer, MultiHeadAttention, FeedForward, Embedding, Linear),
    *(LayerNorm, nn.Dropout, nn.ModuleList),
)


def check_parts(model: GPT2) -> None:
    """Raise an error for a model that does not compute what its config says.

    A packed model runs other code, which reads the weights and the config but
    never calls the modules.

    Args:
        model: Any module.

    Raises:
        ValueError: It is no GPT2, or a part was replaced, wrapped or hooked.
    """
    if not isinstance(model, GPT2):
        raise ValueError(
            f"only a plain GPT2 can be packed; got a {type(model).__name__}"
        )
    config = model.config
    for name, module in model.named_modules():
        if isinstance(module, LayerNorm):
            own = module.epsilon == config.layer_norm_epsilon
        elif isinstance(module, MultiHeadAttention):
            own = module.n_head == config.n_head
        elif isinstance(module, FeedForward):
            own = module.activation is ACTIVATION_FUNCTIONS[config.activation]
        else:
            own = True
        hooked = module._forward_hooks or module._forward_pre_hooks
        if type(module) not in _PARTS or hooked or not own:
            raise ValueError(
                f"{name or 'the model'}, a {type(module).__name__}, has hooks "
                f"or is not the part that the config describes; only a plain "
                f"GPT2 can be packed"
            )
        if "forward" in vars(module):
            raise ValueError(
                f"the forward of {name or 'the model'} was replaced; only a "
                f"plain GPT2 can be packed"
            )


def _not_finite(model: GPT2) -> str | None:
    """Return the name of the first weight that is NaN or infinite, if any."""
    named = model.named_parameters()
    return next((name for name, x in named if not x.isfinite().all()), None)


class PackedGPT2:
    """A GPT-2 with packed weights, made by `for_inference`.

    It is a `LanguageModel`: it maps token ids to logits, and reserves caches.
    The GPT2 that it was packed from does everything else.
    """

    def __init__(
        self, model: GPT2, precision: Precision, consume: bool
    ) -> None:
        """Pack the weights of `model`; call `for_inference` instead."""
        self.config, self.precision = model.config, precision
        self.compiled = kernels.is_compiled(precision)
        self._n_parameters = model.num_parameters()
        table = model.wte.weight.detach()  # (V, C)
        # All logits of a trained GPT-2 are far below 0, where the steps of
        # bfloat16 are coarse. So the embeddings are packed without their mean,
        # whose product is added to all logits alike.
        self._mean = _mean_row(table) if precision == "bfloat16" else None
        self._table = pack(
            table.T, None, precision, self._mean, consume=consume
        )
        positions = model.wpe.weight
        check_finite(positions)
        self._positions = positions.detach().to(torch.float32, copy=True)
        make = CompiledLayers if self.compiled else PlainLayers
        layers = cast(Iterable[GPT2Layer], model.h)
        self._layers = make(layers, self.config, precision, consume)
        self._ln_f = frozen(model.ln_f)
        if consume:
            for parameter in model.parameters():
                parameter.data = torch.empty(0)

    @property
    def device(self) -> torch.device:
        """The CPU, where the token ids must be."""
        return torch.device("cpu")

    def __call__(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        *,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Return the logits of the token that follows each position.

        Args:
            tokens: (B, T) token ids, int64 or int32.
            attention_mask: (B, S), true or 1 for a token, false or 0 for
                padding. S is T, plus the length of the cache. None means no
                padding.
            cache: From this model's `new_cache`; the new positions are
                appended.
            last_only: Compute only the logits after each sequence's last
                token.

        Returns:
            (B, T, V), or with `last_only` (B, V), float32.

        Raises:
            ValueError: The shapes do not match, a token id is not in the
                vocabulary, there are more positions than `n_ctx`, or the cache
                is another model's or full.
            RuntimeError: The process was forked from one in which several
                threads had run a packed model.
        """
        hidden = self._hidden_states(tokens, attention_mask, cache)
        if last_only:
            last = last_tokens(tokens, attention_mask)  # (B,)
            hidden = hidden[torch.arange(len(last)), last]
        rows = hidden.reshape(-1, self.config.n_embd)  # (N, C)
        logits = self._table(rows)  # (N, V)
        if self._mean is not None:
            logits += (rows @ self._mean)[:, None]
        return logits.view(*hidden.shape[:-1], self.config.n_vocab)

    @torch.inference_mode()
    def _hidden_states(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        """Return the residual stream after the final norm: (B, T, C)."""
        if self.compiled:
            compiled.n_threads()  # before PyTorch would wait for lost threads
        past = 0 if cache is None else cache.length
        positions, _ = GPT2.positions_and_mask(
            cast(GPT2, self),  # only its config is read
            tokens,
            attention_mask,
            past,
        )
        if len(tokens) == 0:
            return torch.empty(*tokens.shape, self.config.n_embd)
        check_ids(tokens, self.config.n_vocab, "tokens")
        x = self._table.columns(tokens) + self._positions[positions]
        if self._mean is not None:
            x += self._mean
        return self._ln_f(self._layers(x, attention_mask, cache))

    def new_cache(
        self, batch_size: int, n_positions: int | None = None
    ) -> KeyValueCache:
        """Reserve a cache that fits this model.

        Args:
            batch_size: B, the number of sequences.
            n_positions: The most tokens in a sequence, padding included; None
                means `n_ctx`.
        """
        return self._layers.new_cache(batch_size, n_positions)

    def num_parameters(self) -> int:
        """Count the parameters of the model that was packed."""
        return self._n_parameters

    def __repr__(self) -> str:
        code = "compiled C" if self.compiled else "plain PyTorch"
        sizes = ", ".join(
            f"{name}={getattr(self.config, name)}"
            for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")
        )
        return (
            f"PackedGPT2({self._n_parameters:,} parameters, {sizes}, "
            f"precision={self.precision!r}, runs {code})"
        )

    def __getattr__(self, name: str) -> NoReturn:
        # Only for what is missing, such as the parts of a GPT2.
        raise AttributeError(
            f"a packed model has no {name!r}: it only maps tokens to logits; "
            f"use the GPT2 that it was packed from"
        )

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # For `copy` and `pickle`. The packed weights are of use only to this
        # processor, and C has pointers into this process.
        raise ValueError(
            "a packed model can be neither copied nor pickled; copy the GPT2 "
            "that it was packed from, and pack the copy"
        )


def _mean_row(table: Tensor) -> Tensor:
    """Return the mean of a table's rows: (V, C) to (C,), float32."""
    sums = [rows.float().sum(dim=0) for rows in table.split(4096)]
    return torch.stack(sums).sum(dim=0) / len(table)

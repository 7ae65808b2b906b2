"""A model made ready for writing: the same weights, packed for the processor.

The taught model keeps its weights as they lie in the file. Here they are laid
out once as the processor's fastest routines want them (`kernels`), and where
that is asked for, with fewer bytes: what a step of writing costs is mostly the
bytes that it reads. What is left is the time between two products. So a layer
is written out here once more, in one piece and with nothing to choose.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Self, cast

import torch
from torch import Tensor, nn

from gpt2.attention import MultiHeadAttention, fused_attention
from gpt2.cache import KeyValueCache, LayerCache
from gpt2.embeddings import Embedding, check_ids
from gpt2.feed_forward import ACTIVATION_FUNCTIONS, FeedForward
from gpt2.inference import compiled
from gpt2.inference.kernels import (
    PRECISIONS,
    Kernel,
    Precision,
    best,
    pack,
    quantize,
    refuse_not_finite,
)
from gpt2.inference.layers import CompiledLayers
from gpt2.layer import GPT2Layer
from gpt2.layer_norm import LayerNorm
from gpt2.linear import Linear
from gpt2.model import GPT2


def for_inference(
    model: GPT2, precision: Precision = "bfloat16", *, use_up: bool = False
) -> GPT2:
    """Pack a model's weights for writing on a CPU.

    Args:
        model: On the CPU. It is left as it is, and nothing is shared with it:
            a file that it was mapped from can be let go.
        precision: `float32` computes what the model computes. `bfloat16` reads
            half as many bytes, and `int8` a quarter; both round, the numbers
            of the vectors too.
        use_up: The model is not wanted any more. Each of its matrices is let
            go as soon as it is packed, so that there are never two of all;
            afterwards it has no weights.

    Returns:
        A model for `generate` and its like. It cannot be trained, saved or
        moved.

    Raises:
        ValueError: It is none of these, the model is packed already, it is not
            on the CPU, or a weight is not finite, or not once it is rounded.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(PRECISIONS)}; got "
            f"{precision!r}"
        )
    if isinstance(model, PackedGPT2):
        raise ValueError(f"the model is packed already, as {model.precision}")
    if (device := model.wte.weight.device.type) != "cpu":
        raise ValueError(
            f"weights are packed for the CPU, and the model is on {device}"
        )
    check_parts(model)
    try:
        return PackedGPT2(model, precision, use_up)
    except ValueError as error:
        if (name := _not_finite(model)) is None:
            raise
        raise ValueError(
            f"{name} has numbers that are not finite; the model cannot be "
            f"packed"
        ) from error


_PARTS = (
    *(GPT2, GPT2Layer, MultiHeadAttention, FeedForward, Embedding, Linear),
    *(LayerNorm, nn.Dropout, nn.ModuleList),
)


def check_parts(model: GPT2) -> None:
    """Refuse a model that computes something else than its config says.

    What is packed is computed by other code, which knows the weights and the
    config, and none of the modules.

    Raises:
        ValueError: A part was replaced, wrapped or hooked, and which.
    """
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
                f"{name or 'the model'}, a {type(module).__name__}, is not "
                f"the package's own as the config has it, or has hooks; only "
                f"a plain GPT2 can be packed"
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


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Put off Python's search for garbage.

    A model is made of many objects, enough to set the search off, and none of
    them is garbage. It would go through all that was ever imported, which
    takes a quarter to a third of the time that packing does.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class PackedGPT2(GPT2):
    """A GPT-2 whose matrices are packed; made by `for_inference`."""

    @_nothing_collected()
    def __init__(
        self, model: GPT2, precision: Precision, use_up: bool
    ) -> None:
        """Pack what `model` has."""
        nn.Module.__init__(self)
        self.config, self.precision = model.config, precision
        self.n_parameters = model.num_parameters()
        table = model.wte.weight.detach().float()  # (V, C)
        # All logits of a trained GPT-2 lie far below 0, where bfloat16 has
        # coarse steps. So what all tokens share is computed by itself.
        self.shared = table.mean(dim=0) if precision == "bfloat16" else None
        dtype = getattr(torch, precision)
        self.wte: Embedding
        self.compiled = None
        if best(precision) == "compiled":
            output = compiled.PackedMatrix(table.T, None, dtype, self.shared)
            self.output: Kernel = output
            self.wte = OutputColumns(output.columns, output.words, self.shared)
        else:
            own = table if self.shared is None else table - self.shared
            self.output = pack(own.T, None, precision)
            self.wte = PackedEmbedding(table, precision)
        self.wpe = PackedEmbedding(model.wpe.weight.detach(), "float32")
        if use_up:
            compiled.let_go(model.wte.weight)
        layers = []
        for layer in model.h:
            layers.append(PackedLayer(cast(GPT2Layer, layer), precision))
            if use_up:
                for parameter in layer.parameters():
                    compiled.let_go(parameter)
        self.h = nn.ModuleList(layers)
        self.ln_f = frozen(model.ln_f)
        if best(precision) == "compiled":
            self.compiled = CompiledLayers(layers, self.config, precision)
        if use_up:
            for parameter in model.parameters():
                parameter.data = torch.empty(0)
        self.eval()

    @torch.inference_mode()
    def hidden_states(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the stream after the final norm, as the model does."""
        if self.compiled is not None:
            compiled.n_workers()  # before PyTorch, too, would wait for threads
        past = 0 if cache is None else cache.length
        positions, mask = self.positions_and_mask(tokens, attention_mask, past)
        if len(tokens) == 0:
            return torch.empty(*tokens.shape, self.config.n_embd)
        check_ids(tokens, self.config.n_vocab, "tokens")
        x = self.wte(tokens) + self.wpe(positions)  # (B, T, C)
        if self.compiled is not None:
            return self.ln_f(self.compiled(x, attention_mask, cache))
        n_new = tokens.size(1)
        rows = x.flatten(0, 1)  # (B * T, C), and so through all layers
        memory = None if cache is None else cache.of_layers(len(self.h))
        for i, layer in enumerate(self.h):
            own = None if memory is None else memory[i]
            rows = layer(rows, n_new, mask, own)
        return self.ln_f(rows).view_as(x)

    def unembed(self, hidden: Tensor) -> Tensor:
        """Compare each vector with every token's; float32."""
        rows = hidden.reshape(-1, self.config.n_embd)  # (N, C)
        logits = self.output(rows).float()
        if self.shared is not None:
            logits += (rows @ self.shared)[:, None]
        return logits.view(*hidden.shape[:-1], self.config.n_vocab)

    def new_cache(
        self, batch_size: int, n_positions: int | None = None
    ) -> KeyValueCache:
        """Reserve a cache for sequences of up to `n_positions` tokens."""
        if self.compiled is None:  # float32 at every precision
            return KeyValueCache(self.config, batch_size, n_positions)
        return self.compiled.new_cache(
            batch_size, n_positions or self.config.n_ctx
        )

    def num_parameters(self) -> int:
        """Count the parameters of the model that was packed."""
        return self.n_parameters

    def train(self, mode: bool = True) -> Self:
        """Refuse to be trained."""
        if mode:
            raise ValueError("a packed model cannot be trained")
        return super().train(mode)

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse to be saved."""
        raise ValueError(
            "a packed model cannot be saved; save the one it was packed from"
        )

    def _apply(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError("a packed model keeps its device and its dtype")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # What copies and pickles asks for this. Packed numbers are of use only
        # to the processor, and the process, that they were packed by.
        raise ValueError(
            "a packed model can be neither copied nor pickled; do that with "
            "the model it was packed from, and pack the copy"
        )


class PackedLayer(nn.Module):
    """A `GPT2Layer` in one piece."""

    def __init__(self, layer: GPT2Layer, precision: Precision) -> None:
        """Pack the four linear maps, and copy the rest."""
        super().__init__()
        self.n_head = layer.attn.n_head
        self.ln_1, self.ln_2 = frozen(layer.ln_1), frozen(layer.ln_2)
        self.c_attn, self.c_proj, self.c_fc, self.c_mlp = (
            pack(part.weight.detach(), _copied(part.bias), precision)
            for part in (
                layer.attn.c_attn,
                layer.attn.c_proj,
                layer.mlp.c_fc,
                layer.mlp.c_proj,
            )
        )
        self.activation = layer.mlp.activation

    def forward(
        self,
        x: Tensor,
        n_new: int,
        mask: Tensor | None,
        cache: LayerCache | None,
    ) -> Tensor:
        """Run the layer: (B * T, C) to (B * T, C), float32.

        Args:
            x: (B * T, C), the stream, one row for each token.
            n_new: T.
            mask: Broadcasts to (B, H, T, S), as `padding_mask` makes it; None
                hides nothing.
            cache: This layer's memory.
        """
        qkv = self.c_attn(self.ln_1(x)).float()  # (B * T, 3C)
        qkv = qkv.view(-1, n_new, 3, self.n_head, x.size(1) // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # (B, H, T, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, S, D)
        # In float32: in bfloat16 it takes several times as long where the
        # processor has no instructions for it.
        mixed = fused_attention(q, k, v, mask)  # (B, H, T, D)
        x = x + self.c_proj(mixed.transpose(1, 2).reshape_as(x))
        return x + self.c_mlp(self.activation(self.c_fc(self.ln_2(x))))


def frozen(norm: LayerNorm) -> LayerNorm:
    """Copy a norm, in float32 and without gradients."""
    for parameter in norm.parameters():
        refuse_not_finite(parameter)
    return copy.deepcopy(norm).float().requires_grad_(False)


def _copied(numbers: Tensor) -> Tensor:
    return numbers.detach().to(torch.float32, copy=True)


class OutputColumns(Embedding):
    """The table of vectors, read from the output that it is tied to."""

    def __init__(
        self, columns: Kernel, words: Tensor, shared: Tensor | None
    ) -> None:
        """Take what looks columns of the output up.

        Args:
            columns: Maps ids (...) to (..., C), float32.
            words: The output's numbers, as they are packed.
            shared: (C,), what was taken off every column.
        """
        nn.Module.__init__(self)
        self.columns, self.shared = columns, shared
        # What asks for the dtype of a model looks here.
        self.weight = nn.Parameter(words, requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up: (...) to (..., C), float32."""
        found = self.columns(tokens)
        return found if self.shared is None else found + self.shared


class PackedEmbedding(Embedding):
    """A table of vectors, kept as briefly as the matrices."""

    def __init__(self, table: Tensor, precision: Precision) -> None:
        """Copy a table (V, C)."""
        nn.Module.__init__(self)
        refuse_not_finite(table)
        self.scale: Tensor | None = None
        if precision == "int8":  # each row has its scale, (V, 1)
            numbers, scale = quantize(table.T)
            table, self.scale = numbers.T.contiguous(), scale[:, None]
        else:
            table = table.to(getattr(torch, precision), copy=True)
        self.weight = nn.Parameter(table, requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up: (...) to (..., C), float32."""
        found = self.weight[tokens].float()
        return found if self.scale is None else found * self.scale[tokens]

"""A model made ready for writing: the same weights, packed for the processor.

The taught model keeps its weights as they lie in the file. Here they are laid
out once as the processor's fastest routines want them, and where that is asked
for, with fewer bytes: what a step of writing costs is mostly the bytes that it
reads. Everything else is the taught model.

The routines are PyTorch's own, oneDNN's and FBGEMM's, but not all are promised
to stay where they are. So all are called from this file, each is tried when a
model is packed, and each has a plain replacement, which is slower and no less
right.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.attention import KeyValueCache, MultiHeadAttention
from gpt2.linear import Linear
from gpt2.model import GPT2, last_tokens

Precision = Literal["float32", "bfloat16", "int8"]
"""What weights are packed as. `int8` keeps one byte for each, and a scale for
each column of a matrix."""


def for_inference(model: GPT2, dtype: Precision = "bfloat16") -> PackedGPT2:
    """Pack a model's weights for writing on a CPU.

    Args:
        model: On the CPU. It is left as it is; what is not packed is shared.
        dtype: `float32` computes what the model computes. `bfloat16` reads
            half as many bytes, and `int8` a quarter; both round.

    Returns:
        A model for `generate` and its like. It cannot be trained or saved.

    Raises:
        ValueError: It is none of these, or the model is not on the CPU.
    """
    if dtype not in get_args(Precision):
        raise ValueError(
            f"dtype must be one of {', '.join(get_args(Precision))}; got "
            f"{dtype}"
        )
    if (device := model.wte.weight.device.type) != "cpu":
        raise ValueError(
            f"weights are packed for the CPU, and the model is on {device}"
        )
    return PackedGPT2(model, dtype)


class PackedGPT2(GPT2):
    """A GPT-2 whose matrices are packed; made by `for_inference`."""

    def __init__(self, model: GPT2, dtype: Precision) -> None:
        """Share what can be shared with `model`, and pack the rest."""
        nn.Module.__init__(self)
        self.config, self.precision = model.config, dtype
        stream = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self.kept = torch.float32 if dtype == "float32" else torch.bfloat16
        self.wte = _packed(model.wte, dtype, self.kept, self.kept)
        for name in ("wpe", "drop", "h", "ln_f"):
            part = _packed(getattr(model, name), dtype, stream, self.kept)
            setattr(self, name, part)
        self.output = _kernel(model.wte.weight.detach().T, None, dtype)
        self.eval()

    def forward(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        *,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Return the logits, float32; all else as in `GPT2.forward`."""
        hidden = self.hidden_states(tokens, attention_mask, cache)  # (B, T, C)
        if last_only:
            hidden = hidden[
                torch.arange(hidden.size(0)),
                last_tokens(tokens, attention_mask),
            ]
        rows = hidden.flatten(0, -2)  # (N, C)
        return self.output(rows).float().view(*hidden.shape[:-1], -1)

    def new_cache(
        self, batch_size: int, n_positions: int | None = None
    ) -> KeyValueCache:
        """Reserve a cache, in bfloat16 unless the weights are float32."""
        return KeyValueCache(self.config, batch_size, n_positions, self.kept)


def _packed(
    module: nn.Module,
    dtype: Precision,
    stream: torch.dtype,
    kept: torch.dtype,
) -> Any:
    """Copy a module with all it has, the linear maps packed.

    Args:
        module: A part of the model.
        dtype: What linear maps are packed as.
        stream: Of the residual stream and all other numbers.
        kept: Of queries, keys and values.
    """
    if isinstance(module, Linear):
        return PackedLinear(module, dtype, stream)
    twin = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, dict):
            setattr(twin, name, value.copy())
    for name, parameter in module.named_parameters(recurse=False):
        numbers = parameter.detach().to(stream)  # shared if they are that
        setattr(twin, name, nn.Parameter(numbers, requires_grad=False))
    for name, child in module.named_children():
        setattr(twin, name, _packed(child, dtype, stream, kept))
    if isinstance(twin, MultiHeadAttention):
        twin.fused = True
        twin.c_attn.returned = kept
    return twin


class PackedLinear(nn.Module):
    """`x @ W + b`, as `Linear` computes it, with W packed."""

    def __init__(
        self, linear: Linear, dtype: Precision, returned: torch.dtype
    ) -> None:
        """Pack a linear map; what it returns has dtype `returned`."""
        super().__init__()
        self.returned = returned
        weight, bias = linear.weight.detach(), linear.bias.detach()
        self.kernel = _kernel(weight, bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map to the last axis: (..., in) to (..., out)."""
        product = self.kernel(x.reshape(-1, x.size(-1)))  # (N, out)
        return product.to(self.returned).view(*x.shape[:-1], -1)


Kernel = Callable[[Tensor], Tensor]
"""Maps rows (N, in) to (N, out)."""


def _kernel(weight: Tensor, bias: Tensor | None, dtype: Precision) -> Kernel:
    """Pack a matrix [in, out] and return what multiplies with it."""
    if bias is None:
        bias = weight.new_zeros(weight.size(1))
    if dtype == "float32":
        return partial(torch.addmm, bias.float(), mat2=weight.float())
    if dtype == "bfloat16":
        make = _onednn_bfloat16 if _has_onednn() else _plain_bfloat16
        return make(weight.bfloat16(), bias.bfloat16())
    make = _fbgemm_int8 if _has_fbgemm() else _plain_int8
    return make(*quantize(weight.float()), bias.float())


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to whole numbers from -127 to 127.

    Args:
        weight: (in, out).

    Returns:
        The numbers, (in, out) of int8, and the scale of each column, (out,):
        a column's largest entry becomes 127 or -127, and 1 is a column of
        zeros' scale.
    """
    scale = weight.abs().amax(dim=0) / 127
    scale = scale.where(scale > 0, 1.0)
    return (weight / scale).round().to(torch.int8), scale


# bfloat16


def _plain_bfloat16(weight: Tensor, bias: Tensor) -> Kernel:
    matrix = weight.T.contiguous()
    return lambda rows: F.linear(rows.bfloat16(), matrix, bias)


def _onednn_bfloat16(weight: Tensor, bias: Tensor) -> Kernel:
    """Let oneDNN lay the matrix out for products with few rows."""
    ops = torch.ops.mkldnn
    matrix = ops._reorder_linear_weight(weight.T.contiguous(), 1)
    return lambda rows: ops._linear_pointwise(
        rows.bfloat16(), matrix, bias, "none", [], ""
    )


@cache
def _has_onednn() -> bool:
    return _agree(_onednn_bfloat16, _plain_bfloat16, torch.bfloat16)


# int8


def _plain_int8(weight: Tensor, scale: Tensor, bias: Tensor) -> Kernel:
    return lambda rows: torch.addcmul(
        bias, rows.float() @ weight.float(), scale
    )


def _fbgemm_int8(weight: Tensor, scale: Tensor, bias: Tensor) -> Kernel:
    """Let FBGEMM multiply whole numbers.

    It rounds the rows as well, to 256 steps between the smallest and the
    largest number of all. So each row is first brought to one size: a token
    with large numbers does not cost the others theirs.
    """
    ops = torch.ops.quantized
    columns = len(scale)
    with warnings.catch_warnings():  # on their way out, and not yet replaced
        warnings.simplefilter("ignore")
        matrix = torch._make_per_channel_quantized_tensor(
            weight.T.contiguous(),
            scale.double(),
            torch.zeros(columns, dtype=torch.int64),
            0,
        )
    packed = ops.linear_prepack(matrix, None)
    # Without the instructions for it, sums of full bytes would overflow.
    narrow = not torch.cpu._is_vnni_supported()

    def multiply(rows: Tensor) -> Tensor:
        rows = rows.float()
        if len(rows) == 1:
            return ops.linear_dynamic(rows, packed, narrow).add_(bias)
        size = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-30)
        product = ops.linear_dynamic(rows / size, packed, narrow)
        return torch.addcmul(bias, product, size)

    return multiply


@cache
def _has_fbgemm() -> bool:
    return _agree(_fbgemm_int8, _plain_int8, torch.int8)


def _agree(
    fast: Callable[..., Kernel],
    plain: Callable[..., Kernel],
    dtype: torch.dtype,
) -> bool:
    """Try a routine on a small case; it may be missing, or wrong here."""
    generator = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(2, 64, 64, generator=generator)
    bias = torch.linspace(-1, 1, 64)
    if dtype == torch.int8:
        arguments = (*quantize(weight), bias)
    else:
        arguments = (weight.to(dtype), bias.to(dtype))
    try:
        came = fast(*arguments)(rows[:3]).float()
        alone = fast(*arguments)(rows[:1]).float()
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    expected = plain(*arguments)(rows[:3]).float()
    error = (torch.cat([came, alone]) - expected[[0, 1, 2, 0]]).abs().max()
    return bool(error < 0.02 * expected.abs().max())

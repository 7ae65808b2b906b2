"""A model made ready for writing: the same weights, packed for the processor.

The taught model keeps its weights as they lie in the file. Here they are laid
out once as the processor's fastest routines want them, and where that is asked
for, with fewer bytes: what a step of writing costs is mostly the bytes that it
reads. Everything else is the taught model.

The routines are PyTorch's own, oneDNN's and FBGEMM's, but not all are promised
to stay where they are. So all are called from this file, each is tried when a
model is packed, and each has a plain replacement, slower and no less right.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, NoReturn, Self, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.attention import KeyValueCache, MultiHeadAttention
from gpt2.linear import Linear
from gpt2.model import GPT2

Precision = Literal["float32", "bfloat16", "int8"]
"""What weights are packed as. `int8` keeps one byte for each, and a scale for
each column of a matrix."""


def for_inference(model: GPT2, precision: Precision = "bfloat16") -> GPT2:
    """Pack a model's weights for writing on a CPU.

    Args:
        model: On the CPU. It is left as it is; what is not packed is shared.
        precision: `float32` computes what the model computes. `bfloat16` reads
            half as many bytes, and `int8` a quarter; both round. `int8` also
            rounds the vectors, so that texts in one batch may differ a little
            from what they are alone.

    Returns:
        A model for `generate` and its like. It cannot be trained, saved or
        moved.

    Raises:
        ValueError: It is none of these, the model is packed already, or it is
            not on the CPU.
    """
    if precision not in get_args(Precision):
        raise ValueError(
            f"precision must be one of {', '.join(get_args(Precision))}; got "
            f"{precision!r}"
        )
    if isinstance(model, PackedGPT2):
        raise ValueError(f"the model is packed already, as {model.precision}")
    if (device := model.wte.weight.device.type) != "cpu":
        raise ValueError(
            f"weights are packed for the CPU, and the model is on {device}"
        )
    return PackedGPT2(model, precision)


class PackedGPT2(GPT2):
    """A GPT-2 whose matrices are packed; made by `for_inference`."""

    def __init__(self, model: GPT2, precision: Precision) -> None:
        """Share what can be shared with `model`, and pack the rest."""
        nn.Module.__init__(self)
        self.config, self.precision = model.config, precision
        self.n_parameters = model.num_parameters()
        half = precision == "bfloat16"
        stream = torch.bfloat16 if half else torch.float32
        exact = precision == "float32"
        self.cache_dtype = torch.float32 if exact else torch.bfloat16
        self.wte = _pack(model.wte, precision, self.cache_dtype)
        for name in ("wpe", "drop", "h", "ln_f"):
            part = _pack(getattr(model, name), precision, stream)
            setattr(self, name, part)
        for part in self.modules():
            if isinstance(part, MultiHeadAttention):
                part.fused = True
                cast(PackedLinear, part.c_attn).returned = self.cache_dtype
        table = model.wte.weight.detach()  # (V, C)
        # All logits of a trained GPT-2 lie far below 0, where bfloat16 has
        # coarse steps. So what all tokens share is computed by itself.
        self.shared = table.float().mean(dim=0) if half else None  # (C,)
        if self.shared is not None:
            table = table - self.shared
        self.output = _kernel(table.T, None, precision)
        self.eval()

    def unembed(self, hidden: Tensor) -> Tensor:
        """Compare each vector with every token's; float32."""
        rows = hidden.reshape(-1, hidden.size(-1))  # (N, C)
        logits = self.output(rows).float()
        if self.shared is not None:
            logits = logits + (rows.float() @ self.shared)[:, None]
        return logits.view(*hidden.shape[:-1], -1)

    def new_cache(
        self, batch_size: int, n_positions: int | None = None
    ) -> KeyValueCache:
        """Reserve a cache, in bfloat16 unless the weights are float32."""
        return KeyValueCache(
            self.config, batch_size, n_positions, self.cache_dtype
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


def _pack(module: nn.Module, precision: Precision, dtype: torch.dtype) -> Any:
    """Copy a module with all its parts, and pack the linear maps among them.

    Args:
        module: A part of the model.
        precision: What linear maps are packed as.
        dtype: Of all other numbers, and of what linear maps return.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        if isinstance(part, Linear):
            memo[id(part)] = PackedLinear(part, precision, dtype)
        elif isinstance(part, nn.Dropout):
            memo[id(part)] = NoDropout()
        else:
            for parameter in part.parameters(recurse=False):
                numbers = parameter.detach().to(dtype)  # shared if it is that
                memo[id(parameter)] = nn.Parameter(
                    numbers, requires_grad=False
                )
    return copy.deepcopy(module, memo)


class NoDropout(nn.Identity):
    """Dropout, where there is none."""

    p = 0.0


class PackedLinear(nn.Module):
    """`x @ W + b`, as `Linear` computes it, with W packed."""

    def __init__(
        self, linear: Linear, precision: Precision, returned: torch.dtype
    ) -> None:
        """Pack a linear map; what it returns has dtype `returned`."""
        super().__init__()
        self.returned = returned
        weight, bias = linear.weight.detach(), linear.bias.detach()
        self.kernel = _kernel(weight, bias, precision)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map to the last axis: (..., in) to (..., out)."""
        product = self.kernel(x.reshape(-1, x.size(-1)))  # (N, out)
        return product.to(self.returned).view(*x.shape[:-1], -1)


Kernel = Callable[[Tensor], Tensor]
"""Maps rows (N, in) to (N, out)."""


def _kernel(
    weight: Tensor, bias: Tensor | None, precision: Precision
) -> Kernel:
    """Pack a matrix [in, out] and return what multiplies with it."""
    if precision == "float32":
        return partial(F.linear, weight=weight.float().T, bias=bias)
    if precision == "bfloat16":
        half = None if bias is None else bias.bfloat16()
        make = _onednn_bfloat16 if _has_onednn() else _plain_bfloat16
        return make(weight.bfloat16(), half)
    full = None if bias is None else bias.float()
    pack = _dynamic_int8 if _has_dynamic_int8() else _plain_int8
    return pack(*quantize(weight.float()), full)


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
    return (weight / scale).round_().to(torch.int8), scale


# bfloat16


def _plain_bfloat16(weight: Tensor, bias: Tensor | None) -> Kernel:
    matrix = weight.T.contiguous()
    return lambda rows: F.linear(rows.bfloat16(), matrix, bias)


def _onednn_bfloat16(weight: Tensor, bias: Tensor | None) -> Kernel:
    """Let oneDNN lay the matrix out for products with few rows."""
    ops = torch.ops.mkldnn
    matrix = ops._reorder_linear_weight(weight.T.contiguous(), 1)
    return lambda rows: ops._linear_pointwise(
        rows.bfloat16(), matrix, bias, "none", [], ""
    )


@cache
def _has_onednn() -> bool:
    return _agree(_onednn_bfloat16, _plain_bfloat16, "bfloat16")


# int8


def _plain_int8(weight: Tensor, scale: Tensor, bias: Tensor | None) -> Kernel:
    def multiply(rows: Tensor) -> Tensor:
        product = rows.float() @ weight.float() * scale
        return product if bias is None else product + bias

    return multiply


def _dynamic_int8(
    weight: Tensor, scale: Tensor, bias: Tensor | None
) -> Kernel:
    """Let the processor multiply whole numbers, by way of FBGEMM.

    It rounds the rows as well, to steps between the smallest and the largest
    number of all: 256, or half of that without the newer instructions. So
    several rows are first brought to one size: a token with large numbers does
    not cost the others theirs.
    """
    ops = torch.ops.quantized
    columns = len(scale)
    with warnings.catch_warnings():  # on their way out, and not yet replaced
        warnings.simplefilter("ignore")
        matrix = torch._make_per_channel_quantized_tensor(
            weight.T.contiguous(),
            scale.double(),
            torch.zeros(columns, dtype=torch.int64, device="cpu"),
            0,
        )
    packed = ops.linear_prepack(matrix, bias)
    # Without the instructions for it, sums of full bytes would overflow. Other
    # processors than Intel's and AMD's do not add them up like that.
    fbgemm = torch.backends.quantized.engine in ("x86", "fbgemm")
    narrow = fbgemm and not torch.cpu._is_vnni_supported()

    def multiply(rows: Tensor) -> Tensor:
        rows = rows.float()
        if len(rows) == 1:
            return ops.linear_dynamic(rows, packed, narrow)
        size = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-30)
        product = ops.linear_dynamic(rows / size, packed, narrow)
        if bias is None:
            return product * size
        return torch.lerp(bias, product, size)  # the bias was not divided

    return multiply


@cache
def _has_dynamic_int8() -> bool:
    return _agree(_dynamic_int8, _plain_int8, "int8")


def _agree(
    fast: Callable[..., Kernel],
    plain: Callable[..., Kernel],
    precision: Precision,
) -> bool:
    """Try a routine on a small case; it may be missing, or wrong here."""
    generator = torch.Generator("cpu").manual_seed(0)
    draw = partial(torch.randn, generator=generator, device="cpu")
    weight, rows, bias = draw(64, 64), draw(3, 64), draw(64)
    arguments = (
        (*quantize(weight), bias)
        if precision == "int8"
        else (weight.bfloat16(), bias.bfloat16())
    )
    try:
        kernel = fast(*arguments)
        came = torch.cat([kernel(rows), kernel(rows[:1])]).float()
    except (AttributeError, RuntimeError):
        return False
    expected = plain(*arguments)(rows[[0, 1, 2, 0]]).float()
    error = (came - expected).abs().max()
    return bool(error < 0.02 * expected.abs().max())

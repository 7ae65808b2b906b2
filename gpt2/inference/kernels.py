"""Products with a matrix that is laid out for the processor.

A matrix is packed once, and then multiplied with rows by the fastest routine
there is: our own, where there is a C compiler (`compiled`), or else PyTorch's,
oneDNN's for floating point and FBGEMM's for int8. Not all of those are
promised to stay where they are. So all are called from this file, each is
tried when it is first wanted, and each has a plain replacement, slower and no
less right.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2.inference import compiled

Precision = Literal["float32", "bfloat16", "int8"]
"""What a matrix is packed as. `int8` keeps one byte for each number, and a
scale for each column."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Kernel = Callable[[Tensor], Tensor]
"""Maps rows (N, in), of any floating dtype, to (N, out), of its own."""
Maker = Callable[[Tensor, Tensor | None], Kernel]
"""Packs a matrix [in, out], and a bias that is added to each product."""


def pack(weight: Tensor, bias: Tensor | None, precision: Precision) -> Kernel:
    """Pack a matrix [in, out] and return what multiplies with it.

    Raises:
        ValueError: A number is not finite, or not once it is rounded.
    """
    way = best(precision)
    if way != "compiled":  # which finds it on its way through the matrix
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        for tensor in (weight, bias):
            if tensor is not None:
                refuse_not_finite(tensor, dtype)
    return MAKERS[way][precision](weight, bias)


def refuse_not_finite(
    tensor: Tensor, dtype: torch.dtype = torch.float32
) -> None:
    """Refuse NaN, and what is infinite, or would be once it is rounded.

    Rounded to whole numbers it would look like any other.

    Raises:
        ValueError: There is such a number.
    """
    extremes = torch.stack(tensor.aminmax()).to(dtype)
    if not extremes.isfinite().all():
        raise ValueError(
            f"{tuple(tensor.shape)} numbers are from {extremes[0]} to "
            f"{extremes[1]}, and must be finite in {dtype}"
        )


@cache
def best(precision: Precision) -> str:
    """Return the name of the first way in `MAKERS` that works here."""
    plain = MAKERS["plain"][precision]
    for name, makers in MAKERS.items():
        if agree(makers[precision], plain):
            return name
    raise AssertionError("the plain way agrees with itself")


def agree(fast: Maker, plain: Maker) -> bool:
    """Try a routine on a small case; it may be missing, or wrong here."""
    generator = torch.Generator("cpu").manual_seed(0)
    draw: Any = partial(torch.randn, generator=generator, device="cpu")
    weight, rows, bias = draw(64, 50), draw(11, 64), draw(50)
    try:
        with warnings.catch_warnings():
            # Quantized tensors warn once that they are on their way out.
            warnings.simplefilter("ignore", UserWarning)
            kernel = fast(weight, bias)
        came = torch.cat([kernel(rows), kernel(rows[:1])]).float()
    except (AttributeError, RuntimeError):
        return False
    expected = plain(weight, bias)(torch.cat([rows, rows[:1]])).float()
    error = (came - expected).abs().max()
    return bool(error < 0.02 * expected.abs().max())


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to whole numbers from -127 to 127.

    Args:
        weight: (in, out).

    Returns:
        The numbers, (in, out) of int8, and the scale of each column, (out,):
        a column's largest entry becomes 127 or -127, and 1 is a column of
        zeros' scale.
    """
    scale = torch.maximum(weight.amax(dim=0), -weight.amin(dim=0)) / 127
    # Below the smallest normal number, there is no step small enough.
    scale = scale.where(scale >= torch.finfo(scale.dtype).tiny, 1.0)
    numbers = torch.empty_like(weight, dtype=torch.int8)
    # Some rows at a time, which stay in the processor's cache meanwhile.
    for rows, rounded in zip(weight.split(64), numbers.split(64), strict=True):
        rounded.copy_((rows / scale).round_())
    return numbers, scale


# Our own.


def _compiled(
    weight: Tensor, bias: Tensor | None, *, dtype: torch.dtype
) -> Kernel:
    return compiled.PackedMatrix(weight, bias, dtype)


# PyTorch's fast ones.


def _onednn(
    weight: Tensor, bias: Tensor | None, *, dtype: torch.dtype
) -> Kernel:
    """Let oneDNN lay the matrix out for products with few rows."""
    ops = torch.ops.mkldnn
    columns = weight.T.to(dtype).contiguous()
    matrix = ops._reorder_linear_weight.default(columns, 1)
    bias = None if bias is None else bias.to(dtype)
    multiply = ops._linear_pointwise.default
    return lambda rows: multiply(rows.to(dtype), matrix, bias, "none", [], "")


def _fbgemm(weight: Tensor, bias: Tensor | None) -> Kernel:
    """Let FBGEMM multiply whole numbers.

    It rounds the rows as well, to steps between the smallest and the largest
    number of all: 256, or half of that without the newer instructions. So
    several rows are first brought to one size: a token with large numbers does
    not cost the others theirs.
    """
    ops = torch.ops.quantized
    numbers, scale = quantize(weight.float())
    matrix = torch._make_per_channel_quantized_tensor(
        numbers.T.contiguous(),
        scale.double(),
        torch.zeros(len(scale), dtype=torch.int64, device="cpu"),
        0,
    )
    packed = ops.linear_prepack.default(matrix, bias)
    # Without the instructions for it, sums of full bytes would overflow. Other
    # processors than Intel's and AMD's do not add them up like that.
    fbgemm = torch.backends.quantized.engine in ("x86", "fbgemm")
    narrow = fbgemm and not torch.cpu._is_vnni_supported()
    product = ops.linear_dynamic.default

    def multiply(rows: Tensor) -> Tensor:
        rows = rows.float()
        if len(rows) == 1:
            return product(rows, packed, narrow)
        size = rows.abs().amax(dim=1, keepdim=True).clamp_(min=1e-30)
        out = product(rows / size, packed, narrow)
        if bias is None:
            return out.mul_(size)
        return torch.lerp(bias, out, size)  # the bias was not divided

    return multiply


# As PyTorch's documented functions compute it.


def _plain(
    weight: Tensor, bias: Tensor | None, *, dtype: torch.dtype
) -> Kernel:
    matrix = weight.T.to(dtype).contiguous()
    bias = None if bias is None else bias.to(dtype)
    return lambda rows: F.linear(rows.to(dtype), matrix, bias)


def _plain_int8(weight: Tensor, bias: Tensor | None) -> Kernel:
    numbers, scale = quantize(weight.float())

    def multiply(rows: Tensor) -> Tensor:
        product = rows.float() @ numbers.float() * scale
        return product if bias is None else product + bias

    return multiply


MAKERS: dict[str, dict[Precision, Maker]] = {
    "compiled": {
        "float32": partial(_compiled, dtype=torch.float32),
        "bfloat16": partial(_compiled, dtype=torch.bfloat16),
        "int8": partial(_compiled, dtype=torch.int8),
    },
    "PyTorch": {
        "float32": partial(_onednn, dtype=torch.float32),
        "bfloat16": partial(_onednn, dtype=torch.bfloat16),
        "int8": _fbgemm,
    },
    "plain": {
        "float32": partial(_plain, dtype=torch.float32),
        "bfloat16": partial(_plain, dtype=torch.bfloat16),
        "int8": _plain_int8,
    },
}
"""The ways to multiply, the fastest first."""

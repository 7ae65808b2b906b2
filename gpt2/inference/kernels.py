"""Matrices that are packed once and multiplied many times.

`pack` makes a `CompiledMatrix` where a C compiler is available, and otherwise
a `PlainMatrix`, which uses only documented functions of PyTorch. With GPT-2
124M and after 128 tokens, one thread of a processor with AVX-512 generates 60,
110 and 201 tokens per second in C (float32, bfloat16, int8), and 32, 42 and 57
in plain PyTorch; unpacked, the model generates 32. PyTorch's packed operators
are private, and those for int8 deprecated, so they are not used; before they
were removed, they were measured at 34, 75 and 112.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.inference.compiled import CompiledMatrix, library, release

Precision = Literal["float32", "bfloat16", "int8"]
"""The format of a packed matrix. `int8` stores one byte for each value, and a
scale for each column."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Matrix(Protocol):
    """A packed matrix [in, out], and perhaps a bias (out,)."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Multiply and add the bias: (N, in) to (N, out), float32."""

    def columns(self, ids: Tensor) -> Tensor:
        """Look up columns: (...) of int to (..., in), float32."""


def pack(
    weight: Tensor,
    bias: Tensor | None,
    precision: Precision,
    offsets: Tensor | None = None,
    *,
    consume: bool = False,
) -> Matrix:
    """Pack a matrix in the fastest form that this machine supports.

    Args:
        weight: (in, out), floating point, on the CPU.
        bias: (out,), or None for zeros.
        precision: The format to round to.
        offsets: (in,), subtracted from every column before rounding.
        consume: Release the memory of `weight` when it is packed.

    Raises:
        ValueError: A value is not finite, before or after rounding.
    """
    if is_compiled(precision):
        dtype = getattr(torch, precision)
        return CompiledMatrix(weight, bias, dtype, offsets, consume=consume)
    matrix = PlainMatrix(weight, bias, precision, offsets)
    if consume:
        release(weight)
    return matrix


@cache
def is_compiled(precision: Precision) -> bool:
    """Return whether the C routines are available and correct here.

    A miscompiled library would give wrong text without an error, so one small
    product is compared with PyTorch's.
    """
    if library() is None:
        return False
    generator = torch.Generator("cpu").manual_seed(0)
    weight, bias, rows = (
        torch.randn(shape, generator=generator, device="cpu")
        for shape in ((64, 50), (50,), (11, 64))
    )
    matrix = CompiledMatrix(weight, bias, getattr(torch, precision))
    plain = PlainMatrix(weight, bias, precision)
    came = torch.cat([matrix(rows), matrix(rows[:1])])
    expected = plain(torch.cat([rows, rows[:1]]))
    error = (came - expected).abs().max()
    return bool(error < 0.02 * expected.abs().max())


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round each column of a matrix to multiples of its own scale.

    The scale is the column's largest magnitude / 127, so that one integer is
    127 or -127, and the zero point is 0: symmetric quantization.

    Args:
        weight: (in, out), floating point.

    Returns:
        The integers, (in, out) of int8, and the scales, (out,) of the dtype of
        `weight`. The scale of a column of zeros is 1.
    """
    scale = torch.maximum(weight.amax(dim=0), -weight.amin(dim=0)) / 127
    # A scale below the smallest normal number would be too inexact.
    scale = scale.where(scale >= torch.finfo(scale.dtype).tiny, 1.0)
    integers = torch.empty_like(weight, dtype=torch.int8)
    # A few rows at a time stay in the processor's cache.
    for rows, out in zip(weight.split(64), integers.split(64), strict=True):
        out.copy_((rows / scale).round_())
    return integers, scale


def check_finite(tensor: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Raise an error for NaN and infinity.

    Rounded to int8, such a value would look like any other.

    Args:
        tensor: Any shape, floating point.
        dtype: The format in which all values must be finite.

    Raises:
        ValueError: A value is not finite in that format.
    """
    extremes = torch.stack(tensor.aminmax()).to(dtype)
    if not extremes.isfinite().all():
        raise ValueError(
            f"a tensor {tuple(tensor.shape)} has values from {extremes[0]} to "
            f"{extremes[1]}, which must be finite in {dtype}"
        )


class PlainMatrix(nn.Module):
    """A matrix [in, out] and a bias, packed and multiplied by PyTorch.

    The product is computed in float32, so it needs no bfloat16 or int8
    instructions. A few columns at a time are converted, which then lie in the
    processor's cache: reading them in few bytes saves more time than
    converting them costs.
    """

    PART = 1 << 20
    """The number of values that are converted at a time."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        precision: Precision,
        offsets: Tensor | None = None,
    ) -> None:
        """Pack a matrix; arguments and errors as for `pack`."""
        super().__init__()
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        weight = weight.detach().float()
        if offsets is not None:
            weight = weight - offsets[:, None]
        check_finite(weight, dtype)
        self.bias: Tensor | None = None
        self.scale: Tensor | None = None
        if bias is not None:
            check_finite(bias)
            self.bias = bias.detach().to(torch.float32, copy=True)
        if precision == "int8":
            weight, self.scale = quantize(weight)
        rows = weight.T.to(getattr(torch, precision), copy=True)
        # float32 keeps its layout: it is used as it is.
        self.rows = rows if precision == "float32" else rows.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and add the bias: (..., in) to (..., out), float32."""
        x, n_rows = x.float(), max(1, self.PART // self.rows.size(1))
        if self.rows.dtype == torch.float32:
            return F.linear(x, self.rows, self.bias)
        parts = [F.linear(x, rows.float()) for rows in self.rows.split(n_rows)]
        product = torch.cat(parts, dim=-1)
        if self.scale is not None:
            product *= self.scale
        return product if self.bias is None else product.add_(self.bias)

    def columns(self, ids: Tensor) -> Tensor:
        """Look up columns: (...) of int to (..., in), float32."""
        values = self.rows[ids].float()
        return values if self.scale is None else values * self.scale[ids, None]

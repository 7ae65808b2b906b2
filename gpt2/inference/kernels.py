"""Matrices that are packed once and multiplied many times.

`pack` makes a `CompiledMatrix` where a C compiler is available, and otherwise
a `PlainMatrix`, which uses only documented functions of PyTorch. With GPT-2
124M and after 128 tokens, one thread of a processor with AVX-512 generates 70,
127, 253 and 400 tokens per second in C (float32, bfloat16, int8, int4), and
34, 40, 39 and 32 in plain PyTorch, where an int4 takes a byte; unpacked, the
model generates 34. PyTorch's packed operators are private, and those for int8
deprecated, so they are not used.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.inference.compiled import (
    GROUP,
    CompiledMatrix,
    Precision,
    library,
    release,
)


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
        return CompiledMatrix(
            weight, bias, precision, offsets, consume=consume
        )
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
    matrix = CompiledMatrix(weight, bias, precision)
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


def quantize_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round each group of 32 values of a column to multiples of its own scale.

    The scale is -1/8 of the value with the largest magnitude, rounded to
    bfloat16. So that value becomes -8, and the integers are from -8 to 7.

    Args:
        weight: (in, out), floating point.

    Returns:
        The integers, (groups, 32, out) of int8, padded with zeros, and the
        scales, (groups, 1, out), float32. The scale of zeros is 1.
    """
    padding = (0, 0, 0, -len(weight) % GROUP)
    groups = F.pad(weight.float(), padding).unflatten(0, (-1, GROUP))
    low = groups.amin(dim=1, keepdim=True)
    high = groups.amax(dim=1, keepdim=True)
    extreme = high.where(high > -low, low)
    scale = (extreme / -8).bfloat16().float()
    scale = scale.where(scale.abs() >= torch.finfo(scale.dtype).tiny, 1.0)
    integers = (groups / scale).round_().clamp_(-8, 7)
    return integers.to(torch.int8), scale


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
        if bias is not None:
            check_finite(bias)
            self.bias = bias.detach().to(torch.float32, copy=True)
        self.n_in = len(weight)
        self.scale: Tensor | None = None  # (out, groups, 1)
        if precision == "int8":
            integers, scale = quantize(weight)
            weight, self.scale = integers, scale[:, None, None]
        elif precision == "int4":
            integers, scale = quantize_groups(weight)
            weight, self.scale = integers.flatten(0, 1), scale.permute(2, 0, 1)
        stored = dtype if self.scale is None else torch.int8
        rows = weight.T.to(stored, copy=True)
        # float32 keeps its layout: it is used as it is.
        self.rows = rows if precision == "float32" else rows.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and add the bias: (..., in) to (..., out), float32."""
        x, n_rows = x.float(), max(1, self.PART // self.rows.size(1))
        if self.rows.dtype == torch.float32:
            return F.linear(x, self.rows, self.bias)
        starts = range(0, len(self.rows), n_rows)
        parts = [
            F.linear(x, self.columns(slice(i, i + n_rows))) for i in starts
        ]
        product = torch.cat(parts, dim=-1)
        return product if self.bias is None else product.add_(self.bias)

    def columns(self, ids: Tensor | slice) -> Tensor:
        """Look up columns: (...) of int to (..., in), float32."""
        values = self.rows[ids].float()
        if self.scale is not None:
            groups = values.unflatten(-1, (self.scale.size(1), -1))
            values = groups.mul_(self.scale[ids]).flatten(-2)
        return values[..., : self.n_in]

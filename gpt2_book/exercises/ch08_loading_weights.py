"""The exercises of chapter 8."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    act,
    call,
    describe,
    exercise,
    number,
    same,
)


@exercise("blank-table")
def blank_table(answer: Any) -> str:
    """Exercise 8.1: the loss of a model whose token table is zero."""
    right = math.log(1440)
    mistakes = [
        Mistake(
            "a loss of 0 is that of a model that is always sure and right; "
            "this one is sure of nothing",
            0.0,
        ),
        Mistake("that is in bits; the unit is the nat", math.log2(1440)),
        Mistake(
            "the softmax runs over the tokens, and there are 1,440 of them",
            math.log(192),
        ),
        Mistake("the sign is wrong; a surprise is not negative", -right),
        Mistake("that is the perplexity; take its logarithm", 1440.0),
        Mistake(
            "all logits are exactly 0, so they spread by nothing",
            right + 0.02**2 * 192 / 2,
        ),
        Mistake("that is the loss of the healthy model", 0.319),
    ]
    same(number(answer), right, "the loss", mistakes, tolerance=2e-3)
    return "ln 1440, whatever the layers do"


@exercise("file-size")
def file_size(answer: Any) -> str:
    """Exercise 8.2: the size of a checkpoint, with and without masks."""
    for masks in (False, True):
        for width, n_layer in ((768, 12), (1600, 48), (1280, 36)):
            layer = 12 * width**2 + 13 * width
            numbers = (50257 + 1024 + 2) * width + n_layer * layer
            every = numbers + masks * n_layer * 1024**2
            got = call(answer, width, n_layer, masks)
            kind = "with" if masks else "without"
            what = f"the size for C={width} and L={n_layer} {kind} masks"
            mistakes = _size_mistakes(numbers, every, width, n_layer)
            same(got, 4 * every, what, mistakes)
    return f"{answer(1600, 48, True) / 1e9:.2f} GB for XL, with masks"


def _size_mistakes(
    numbers: int, every: int, width: int, n_layer: int
) -> list[Mistake]:
    """`every` counts the parameters and, if asked for, the masks."""
    square = 1024**2
    return [
        Mistake(
            "that is the number of parameters; in float32 each has four bytes",
            every,
        ),
        Mistake("that is in bits; a byte has eight", 32 * every),
        Mistake("that is for float16; float32 has four bytes", 2 * every),
        Mistake(
            "that includes the masks; this size is without them",
            4 * (numbers + n_layer * square),
        ),
        Mistake("the masks are missing", 4 * numbers),
        Mistake(
            "you count one mask for the whole model; every layer has its own",
            4 * (numbers + square),
        ),
        Mistake(
            "you count one byte for each number of the masks; they have four, "
            "like the rest",
            4 * numbers + n_layer * square,
        ),
        Mistake(
            "you store a matrix for the output; it is the token table, which "
            "is in the file once",
            4 * (every + 50257 * width),
        ),
        Mistake("the final norm is missing", 4 * (every - 2 * width)),
        Mistake(
            "that includes the eight bytes of the header's length; count the "
            "numbers alone",
            4 * every + 8,
        ),
    ]


@exercise("read-tensor")
def read_tensor(answer: Any) -> str:
    """Try it yourself: one tensor of a safetensors file."""
    torch.manual_seed(8)
    tensors = {
        "first": torch.randn(3, 5),
        "second": torch.randn(4, 2).bfloat16(),
        "third": torch.randn(7),
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(tensors, path)
        for name, tensor in tensors.items():
            _check_read(call(answer, path, name), name, tensor, path)
    return "two types, three shapes, and places in the middle of the file"


def _check_read(got: Any, name: str, tensor: Tensor, path: Path) -> None:
    """Compare what was read of one tensor with what was written."""
    what = f"the tensor {name!r}"
    if not isinstance(got, Tensor):
        raise NotYet(f"expected a tensor; got {describe(got)}")
    if got.dtype != tensor.dtype:
        raise NotYet(
            f"{what} has dtype {got.dtype}; its header says {tensor.dtype}"
        )
    if got.shape != tensor.shape and got.numel() == tensor.numel():
        raise NotYet(
            f"{what} has shape {tuple(got.shape)}; its header says "
            f"{list(tensor.shape)}, which `view` makes of it"
        )
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    begin, end = header[name]["data_offsets"]

    def at(start: int) -> Tensor:
        raw = bytearray(content[start : start + end - begin])
        return torch.frombuffer(raw, dtype=tensor.dtype).view(tensor.shape)

    mistakes = [
        Mistake(
            "offsets count from the end of the header, not from the start of "
            "the file",
            at(begin),
        ),
        Mistake(
            "you left out the 8 bytes of the length: the data begin at "
            "8 + length",
            at(length + begin),
        ),
        Mistake("you read the first tensor of the file", at(8 + length)),
        Mistake(
            "the bytes are read in the wrong order; the least significant "
            "comes first",
            torch.frombuffer(
                bytearray(content[8 + length + begin : 8 + length + end]),
                dtype=torch.uint8,
            )
            .view(-1, tensor.element_size())
            .flip(-1)
            .contiguous()
            .view(tensor.dtype)
            .view(tensor.shape),
        ),
    ]
    same(got, tensor, what, mistakes, tolerance=0.0)


@exercise("write-tensors")
def write_tensors(answer: Any) -> str:
    """Exercise 8.3: a writer of safetensors."""
    torch.manual_seed(8)
    tensors = {
        "wide": torch.randn(3, 5),
        "turned": torch.randn(5, 2).T,
        "one": torch.randn(7),
        "number": torch.tensor(1.5),
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        act(answer, path, dict(tensors))
        if not path.is_file():
            raise NotYet(f"it wrote no file at the given path, {path.name}")
        raw = path.read_bytes()
    header, data = _split(raw)
    entries = {k: v for k, v in header.items() if k != "__metadata__"}
    if set(entries) != set(tensors):
        raise NotYet(
            f"the header names {sorted(entries)}; the tensors are "
            f"{sorted(tensors)}"
        )
    ends = [0]
    for name, tensor in tensors.items():
        ends.append(_check_offsets(name, entries[name], tensor, data))
        _check_numbers(name, tensor, data[ends[-1] - 4 * tensor.numel() :])
    starts = {entry["data_offsets"][0] for entry in entries.values()}
    if starts != set(ends) - {max(ends)}:
        raise NotYet(
            "there are gaps between the tensors, which readers refuse; each "
            "tensor should begin where another one ends"
        )
    if len(data) != max(ends):
        raise NotYet(
            f"the last tensor ends at byte {max(ends)} of {len(data)}; "
            "readers refuse bytes that belong to no tensor"
        )
    return "four tensors come back as they were"


def _split(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a file into its header and its data."""
    if raw[:1] == b"{":
        raise NotYet("the length of the header is missing, 8 bytes in front")
    if len(raw) < 8:
        raise NotYet(f"the file has only {len(raw)} bytes")
    (n,) = struct.unpack("<Q", raw[:8])
    if n > len(raw):
        _explain_length(raw, n)
    try:
        header = json.loads(raw[8 : 8 + n])
    except ValueError as error:
        if raw[8:9] != b"{":
            raise NotYet(
                "the header should begin at byte 8; the first brace is at "
                f"byte {raw.find(b'{')}"
            ) from error
        raise NotYet(
            f"the {n} bytes after the length are not JSON; the length should "
            "be that of the text in bytes, including trailing spaces"
        ) from error
    if not isinstance(header, dict):
        raise NotYet("the header should be a JSON object with a key per name")
    return header, raw[8 + n :]


def _explain_length(raw: bytes, n: int) -> None:
    """Say what is wrong with a length of `n` bytes, more than there are."""
    (other,) = struct.unpack(">Q", raw[:8])
    if other <= len(raw):
        raise NotYet(
            "the length is stored with its largest byte first; it should be "
            "little-endian, `<Q`"
        )
    if raw[4:5] == b"{":
        raise NotYet("the length has four bytes; it takes eight, `<Q`")
    raise NotYet(
        f"the first 8 bytes say that the header has {n:,} bytes, more than "
        "the file"
    )


def _check_offsets(name: str, entry: Any, tensor: Tensor, data: bytes) -> int:
    """Check the header's entry of one tensor; return where the tensor ends."""
    keys = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != keys:
        raise NotYet(
            f"the entry of {name!r} should have {', '.join(sorted(keys))}; "
            f"got {entry}"
        )
    if entry["dtype"] != "F32":
        raise NotYet(f"the dtype should read F32; got {entry['dtype']!r}")
    shape = list(tensor.shape)
    if entry["shape"] != shape:
        raise NotYet(
            f"the shape of {name!r} is {entry['shape']}; expected {shape}"
        )
    start, end = entry["data_offsets"]
    n_bytes = 4 * tensor.numel()
    if end - start == tensor.numel():
        raise NotYet(
            "the offsets count numbers; they should count bytes, four for "
            "each number"
        )
    if end - start != n_bytes and end == n_bytes:
        raise NotYet(
            "the second offset is the length of the tensor; it should be "
            "where the tensor ends"
        )
    if end - start != n_bytes:
        raise NotYet(
            f"{name!r} has {n_bytes} bytes, but its offsets are {start} and "
            f"{end}"
        )
    if end > len(data):
        raise NotYet(
            f"{name!r} ends at {end}, but there are {len(data)} bytes of "
            "data: offsets count from the end of the header"
        )
    return int(end)


def _check_numbers(name: str, tensor: Tensor, data: bytes) -> None:
    """Check the numbers of one tensor, with which the data begin."""
    raw = bytearray(data[: 4 * tensor.numel()])
    got = torch.frombuffer(raw, dtype=torch.float32).view(tensor.shape)
    if torch.equal(got, tensor):
        return
    turned = tensor.T.contiguous() if tensor.dim() == 2 else tensor
    if torch.equal(got.flatten(), turned.flatten()):
        raise NotYet(
            f"{name!r} was written in the order of its memory; it is a "
            "transposed view, and `contiguous` puts its numbers in order"
        )
    if bytes(raw) == tensor.contiguous().numpy().byteswap().tobytes():
        raise NotYet("the numbers are stored with their largest byte first")
    raise NotYet(
        f"the numbers of {name!r} come back changed; the data should be in "
        "the order that the offsets say"
    )


@exercise("bits-needed")
def bits_needed(answer: Any) -> str:
    """Exercise 8.4: the fewest bits of fraction that cost next to nothing."""
    answer = number(answer)
    if answer not in (7, 5, 3, 2, 1, 0):
        raise NotYet(f"one of 7, 5, 3, 2, 1 and 0; got {describe(answer)}")
    if answer == 0:
        raise NotYet("one more: without any, the loss rises by 0.01")
    if answer > 1:
        raise NotYet("fewer are enough: measure it")
    return "a single bit of fraction"

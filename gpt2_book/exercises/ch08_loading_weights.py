"""The exercises of chapter 8."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import NotYet, act, call, exercise, same

GPT2_SIZES = ((768, 12), (1600, 48), (1280, 36))  # C and L


@exercise("file-size")
def file_size(answer: Any) -> str:
    """Exercise 8.2: how large a checkpoint is, with and without masks."""
    for masks in (False, True):
        for width, n_layer in GPT2_SIZES:
            layer = 12 * width**2 + 13 * width
            numbers = (50257 + 1024 + 2) * width + n_layer * layer
            square = 1024**2
            right = 4 * (numbers + masks * n_layer * square)
            came = call(answer, width, n_layer, masks)
            what = (
                f"the size for C={width} and L={n_layer} "
                f"{'with' if masks else 'without'} masks"
            )
            same(came, right, what, file_mistakes(numbers, n_layer, masks))
    return f"{answer(1600, 48, True) / 1e9:.2f} GB for XL, masks included"


def file_mistakes(numbers: int, n_layer: int, masks: bool) -> dict[str, int]:
    """What known mistakes would give."""
    square = 1024**2
    every = numbers + masks * n_layer * square
    return {
        "those are numbers; each takes four bytes in float32": every,
        "those are bits; a byte has eight": 32 * every,
        "that is float16; float32 has four bytes": 2 * every,
        "that has masks, and it was to be without": (
            4 * (numbers + n_layer * square)
        ),
        "the masks are missing": 4 * numbers,
        "every layer has a mask; that is one for all of them": (
            4 * (numbers + square)
        ),
        "the masks are counted with one byte for a number; they have four, "
        "like the rest": (4 * numbers + n_layer * square),
        "the output is stored too here; it is the table of tokens, which is "
        "in the file once": (4 * (every + 50257 * width_of(numbers, n_layer))),
        "the last norm is missing": 4
        * (every - 2 * width_of(numbers, n_layer)),
    }


def width_of(numbers: int, n_layer: int) -> int:
    """Find the width again."""
    return next(
        c
        for c, depth in GPT2_SIZES
        if depth == n_layer
        and numbers == (50257 + 1026) * c + n_layer * (12 * c**2 + 13 * c)
    )


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
            raise NotYet(
                f"it wrote no file at the path it was given, {path.name}"
            )
        raw = path.read_bytes()
    header, data = cut(raw)
    entries = {k: v for k, v in header.items() if k != "__metadata__"}
    if set(entries) != set(tensors):
        raise NotYet(
            f"the header names {sorted(entries)}; the tensors are "
            f"{sorted(tensors)}"
        )
    ends = [0]
    for name, tensor in tensors.items():
        ends.append(check_entry(name, entries[name], tensor, data))
    starts = {entry["data_offsets"][0] for entry in entries.values()}
    if starts != set(ends) - {max(ends)}:
        raise NotYet(
            "there are gaps between the tensors, and readers refuse them; "
            "each begins where another one ends"
        )
    if len(data) != max(ends):
        raise NotYet(
            f"the last tensor ends at {max(ends)}, and there are {len(data)} "
            "bytes of data; readers refuse what is not accounted for"
        )
    return "four tensors come back as they were"


def cut(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Cut a file into its header and its data."""
    if raw[:1] == b"{":
        raise NotYet("the file begins with 8 bytes, the header's length")
    if len(raw) < 8:
        raise NotYet(f"the file has only {len(raw)} bytes")
    (n,) = struct.unpack("<Q", raw[:8])
    if n > len(raw):
        (other,) = struct.unpack(">Q", raw[:8])
        if other <= len(raw):
            raise NotYet(
                "the length stands there with its largest byte first; it is "
                "little-endian, `<Q`"
            )
        if raw[4:5] == b"{":
            raise NotYet("the length has four bytes; it takes eight, `<Q`")
        raise NotYet(
            f"the first 8 bytes say that the header has {n:,} bytes, more "
            "than the file"
        )
    try:
        header = json.loads(raw[8 : 8 + n])
    except ValueError as error:
        start = raw.find(b"{")
        if raw[8:9] != b"{":
            raise NotYet(
                f"the header should begin at byte 8; the first brace is at "
                f"byte {start}"
            ) from error
        raise NotYet(
            f"the {n} bytes after the length are not JSON; the length should "
            "be that of the text in bytes, with the spaces at its end"
        ) from error
    if not isinstance(header, dict):
        raise NotYet("the header should be an object, with a name for each")
    return header, raw[8 + n :]


def check_entry(name: str, entry: Any, tensor: Tensor, data: bytes) -> int:
    """Check one tensor; give where it ends."""
    keys = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != keys:
        raise NotYet(
            f"the entry of {name!r} should have {', '.join(sorted(keys))}; it "
            f"is {entry}"
        )
    if entry["dtype"] != "F32":
        raise NotYet(f"the dtype is written F32; got {entry['dtype']!r}")
    shape = list(tensor.shape)
    if entry["shape"] != shape:
        raise NotYet(
            f"the shape of {name!r} is {entry['shape']}; expected {shape}"
        )
    start, end = entry["data_offsets"]
    n_bytes = 4 * tensor.numel()
    if end - start == tensor.numel() and n_bytes != tensor.numel():
        raise NotYet(
            "the offsets count numbers; they should count bytes, four for each"
        )
    if end - start != n_bytes and end == n_bytes:
        raise NotYet(
            "the second offset is a tensor's length; it should be where the "
            "tensor ends"
        )
    if end - start != n_bytes:
        raise NotYet(
            f"{name!r} goes from {start} to {end}, and has {n_bytes} bytes"
        )
    if end > len(data):
        raise NotYet(
            f"{name!r} ends at {end}, and there are {len(data)} bytes of "
            "data: offsets count from the end of the header"
        )
    raw = bytearray(data[start:end])
    came = torch.frombuffer(raw, dtype=torch.float32).view(tensor.shape)
    if torch.equal(came, tensor):
        return int(end)
    if tensor.dim() == 2 and torch.equal(
        came.flatten(), tensor.T.contiguous().flatten()
    ):
        raise NotYet(
            f"{name!r} was written in the order of its memory; it is a view "
            "that is turned round, and `contiguous` puts it in order"
        )
    if bytes(raw) == tensor.contiguous().numpy().byteswap().tobytes():
        raise NotYet("the numbers are stored with their largest byte first")
    raise NotYet(
        f"the numbers of {name!r} come back as others; the data should lie in "
        "the order that the offsets say"
    )

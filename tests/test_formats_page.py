"""The dumps in book/checkpoint-formats.md show real files.

Every dump is made anew and compared with the page. The index comes from a
writer that imitates TensorFlow: from the entries of a checkpoint that
TensorFlow wrote, it makes TensorFlow's file, byte for byte.
"""

from __future__ import annotations

import json
import os
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from book_rules import BOOK
from test_tensorflow_checkpoint import (
    DATA_NAME,
    HEADER,
    INDEX,
    block,
    crc32c,
    field,
    fixed32,
    handle,
    masked,
    record,
    shape_proto,
    varint,
)

from gpt2.weights.errors import CheckpointError
from gpt2.weights.formats import open_weights
from gpt2.weights.gguf_writing import TYPES
from gpt2.weights.sorted_table import read_table
from gpt2.weights.tensorflow import read_index, verify_checksums

PAGE = (BOOK / "checkpoint-formats.md").read_text(encoding="utf-8")

# The final norm of a GPT-2 of width 2, under the names of both formats.
SHIFT, SCALE = [0.5, -1.0], [1.5, 1.0]
STATE = {
    "ln_f.bias": torch.tensor(SHIFT),
    "ln_f.weight": torch.tensor(SCALE),
}
VARIABLES = {"model/ln_f/b": SHIFT, "model/ln_f/g": SCALE}


# --- the files ---


def safetensors_file() -> bytes:
    return safetensors.torch.save(STATE, {"format": "pt"})


def entry(shape: list[int], offset: int, data: bytes) -> bytes:
    """Return a BundleEntryProto; protobuf omits fields that are zero."""
    written = field(1, 1) + field(2, shape_proto(*shape))
    if offset:
        written += field(4, offset)
    written += field(5, len(data))
    return written + varint(6 * 8 + 5) + fixed32(masked(data))


def body(records: Mapping[bytes, bytes], interval: int) -> bytes:
    """Return a block, whose names share prefixes except at restarts."""
    written, restarts, previous = b"", [], b""
    for number, (name, value) in enumerate(records.items()):
        agree = zip(name, previous, strict=False)
        shared = len([*takewhile(lambda pair: pair[0] == pair[1], agree)])
        if number % interval == 0:
            shared = 0
            restarts.append(len(written))
        written += record(name[shared:], value, shared)
        previous = name
    restarts = restarts or [0]
    ends = [*restarts, len(restarts)]
    return written + b"".join(map(fixed32, ends))


def index_file(records: Mapping[bytes, bytes]) -> bytes:
    """An index of one data block, as TensorFlow writes it."""
    data, meta = body(records, 16), body({}, 16)
    last = max(records)
    # The index names a block by something short that is not before its last.
    beyond = bytes([last[0] + 1])
    index = body({beyond: handle(0, len(data))}, 1)
    blocks = block(data), block(meta), block(index)
    footer = handle(len(blocks[0]), len(meta))
    footer += handle(len(blocks[0]) + len(blocks[1]), len(index))
    magic = bytes.fromhex("57fb808b247547db")
    return b"".join(blocks) + footer.ljust(40, b"\0") + magic


def tensorflow_files() -> tuple[bytes, bytes]:
    records, data = {b"": HEADER}, b""
    for name, values in VARIABLES.items():
        numbers = np.array(values, "<f4").tobytes()
        records[name.encode()] = entry([len(values)], len(data), numbers)
        data += numbers
    return index_file(records), data


def test_the_writer_writes_what_tensorflow_wrote() -> None:
    written = INDEX.read_bytes()
    assert index_file(dict(read_table(written))) == written
    data = INDEX.with_name(DATA_NAME).read_bytes()
    for one in read_index(INDEX).values():
        part = data[one.offset : one.offset + one.size]
        made = entry(list(one.shape), one.offset, part)
        assert made == dict(read_table(written))[one.name.encode()]


def test_both_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors_file())
    index, data = tensorflow_files()
    (tmp_path / "model.ckpt.index").write_bytes(index)
    (tmp_path / DATA_NAME).write_bytes(data)
    verify_checksums(tmp_path / "model.ckpt.index")
    for file, names in (
        ("model.safetensors", STATE),
        ("model.ckpt.index", VARIABLES),
    ):
        weights = open_weights(tmp_path / file)
        assert list(weights.infos) == list(names)
        found = [weights.read(name).tolist() for name in names]
        assert found == [SHIFT, SCALE]


# --- the dumps ---


def dump(data: bytes, start: int = 0) -> Iterator[str]:
    """Bytes as the page prints them: place, sixteen bytes, as text."""
    for place in range(0, len(data), 16):
        row = data[place : place + 16]
        halves = row[:8].hex(" "), row[8:].hex(" ")
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        yield f"{start + place:08x}  {halves[0]:23}  {halves[1]:23}  {text}"


# GPT-2 124M: magic, version, n_ctx, n_vocab, n_layer, n_head, n_embd, rows.
LLM_C_HEADER = struct.pack("<8i", 20240326, 3, 1024, 50257, 12, 12, 768, 50304)


def dumps() -> dict[str, list[str]]:
    index, data = tensorflow_files()
    real = INDEX.read_bytes()
    return {
        "safetensors": list(dump(safetensors_file())),
        "index": list(dump(index)),
        "data": list(dump(data)),
        "TensorFlow's own": [
            *dump(real[:0x60]),
            "...",
            *dump(real[0x340:], 0x340),
        ],
        "llm.c": list(dump(LLM_C_HEADER)),
    }


@pytest.mark.parametrize("name", dumps())
def test_the_page_shows(name: str) -> None:
    lines = dumps()[name]
    shown = "```\n" + "\n".join(line.rstrip() for line in lines) + "\n```\n"
    assert shown in PAGE, f"{name}:\n{shown}"


def test_no_other_dump_stands_on_the_page() -> None:
    known = {line.rstrip() for lines in dumps().values() for line in lines}
    shown = re.findall(r"^[0-9a-f]{8}  .+$", PAGE, flags=re.MULTILINE)
    assert shown and set(shown) <= known


# --- the rest of the page ---


def packed(header: object, data: bytes = bytes(16)) -> bytes:
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text)) + text.encode() + data


def place(
    begin: int, end: int, shape: Sequence[int] = (2,)
) -> dict[str, object]:
    return {
        "dtype": "F32",
        "shape": list(shape),
        "data_offsets": [begin, end],
    }


def malformed() -> dict[str, bytes]:
    """Return a malformed file for each row of the page's table."""
    one, other = place(0, 8), place(8, 16)
    twice = json.dumps({"ln_f.bias": one})
    return {
        "the file ends too early": safetensors_file()[:-4],
        "it is no such file at all": (
            b"<!DOCTYPE html><html><body>Sign in</body></html>\n"
        ),
        "shape and place disagree": packed(
            {"ln_f.bias": place(0, 8, [3]), "ln_f.weight": other}
        ),
        "a name comes twice": packed(f"{twice[:-1]}, {twice[1:]}", bytes(8)),
        "two tensors overlap, or leave a gap": packed(
            {"ln_f.bias": one, "ln_f.weight": place(4, 12)}, bytes(12)
        ),
        "bytes are left over": safetensors_file() + bytes(4),
    }


@pytest.mark.parametrize("fault", malformed())
def test_malformed_files(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(malformed()[fault])
    with pytest.raises(CheckpointError) as caught:
        weights = open_weights(path)
        for name in weights.infos:
            weights.read(name)
    (row,) = re.findall(
        rf"^\| {re.escape(fault)} \| `+(.*?) ?`+ \|$", PAGE, re.M
    )
    assert row == str(caught.value).replace(str(path), "...")


def test_a_gap_is_an_overlap_s_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(
        packed(
            {"ln_f.bias": place(0, 8), "ln_f.weight": place(12, 20)},
            bytes(20),
        )
    )
    with pytest.raises(CheckpointError, match="begins at byte 12 of the dat"):
        open_weights(path)


def test_the_library_takes_a_name_twice(tmp_path: Path) -> None:
    """If this fails, the library has become stricter: update the page."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(malformed()["a name comes twice"])
    assert list(safetensors.torch.load_file(path)) == ["ln_f.bias"]


def test_wide_numbers_come_first() -> None:
    tensors = {"a": torch.ones(1, dtype=torch.bfloat16), "b": torch.ones(1)}
    written = safetensors.torch.save(tensors)
    assert written.index(b'"b"') < written.index(b'"a"')
    assert int.from_bytes(written[:8], "little") % 8 == 0


def test_the_index_of_several_files(tmp_path: Path) -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(example)
    for name, file in json.loads(example)["weight_map"].items():
        safetensors.torch.save_file({name: STATE[name]}, tmp_path / file)
    weights = open_weights(path)
    assert {n: weights.read(n).tolist() for n in weights.infos} == {
        name: tensor.tolist() for name, tensor in STATE.items()
    }


def test_records_and_fields() -> None:
    """The tables that show the parts of the index."""
    data = tensorflow_files()[0]
    for start, lengths, name, value in (
        (0x00, "00 00 06", "", "08 01 1a 02 08 01"),
        (
            0x09,
            "00 0c 0f",
            "model/ln_f/b",
            "08 01 12 04 12 02 08 02 28 08 35 c5 af 21 52",
        ),
        (
            0x27,
            "0b 01 11",
            "model/ln_f/g",
            "08 01 12 04 12 02 08 02 20 08 28 08 35 f0 cf 98 a3",
        ),
    ):
        shown = f"`{name}`" if name else "(nothing)"
        assert f"| `{start:02x}` | `{lengths}` | {shown} | `{value}` |" in PAGE
        shared, _, _ = made = bytes.fromhex(lengths)
        made += name.encode()[shared:] + bytes.fromhex(value)
        assert data[start:].startswith(made)


def test_the_numbers_in_the_text() -> None:
    index, data = tensorflow_files()
    sizes = len(safetensors_file()), len(index), len(data)
    assert sizes == (184, 153, 16)
    assert "| 184 bytes | 153 + 16 bytes | nearly two thousand bytes |" in PAGE
    shift = np.array(SHIFT, "<f4").tobytes()
    assert (crc32c(shift), masked(shift)) == (0x6276D7CF, 0x5221AFC5)
    assert "`6276d7cf`" in PAGE and "`5221afc5`" in PAGE
    assert handle(841, 8) == bytes.fromhex("c90608")
    assert f"all {len(INDEX.read_bytes())} of them" in PAGE


def test_llm_cs_header(tmp_path: Path) -> None:
    """The file is as large as the page says: all but the header is a hole."""
    path = tmp_path / "gpt2_124M.bin"
    path.write_bytes(LLM_C_HEADER)
    size = 1024 + 4 * (124_439_808 + 47 * 768)
    assert f"here {size:,} bytes" in PAGE
    os.truncate(path, size)
    weights = open_weights(path)
    assert weights.infos["wte.weight"].shape == (50257, 768)
    order = list(weights.infos)
    assert order[:3] == ["wte.weight", "wpe.weight", "h.0.ln_1.weight"]
    last = [f"h.{i}.mlp.c_proj.bias" for i in range(12)]
    assert order[-14:] == [*last, "ln_f.weight", "ln_f.bias"]
    os.truncate(path, size - 1)
    with pytest.raises(CheckpointError, match=f"takes {size:,} bytes"):
        open_weights(path)


def test_what_a_pickle_says(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(STATE, path)
    assert 1500 < path.stat().st_size < 2000
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
        program = list(pickletools.genops(archive.read(name)))
    called = [arg for op, arg, _ in program if op.name == "GLOBAL"]
    assert called[0] == "torch._utils _rebuild_tensor_v2"
    assert f"`GLOBAL '{called[0]}'`" in PAGE
    assert "REDUCE" in {op.name for op, _, _ in program}


def test_the_page_quotes_what_was_measured() -> None:
    results = BOOK.parent / "benchmarks" / "results" / "gguf.md"
    rows = [
        line.split(" | ")
        for line in results.read_text("utf-8").splitlines()
        if line.startswith("| story |")
    ]
    assert [kind for _, kind, *_ in rows] == list(TYPES)
    for _, kind, difference, relative, _ in rows:
        assert f"| `{kind}` | {difference} | {relative} |" in PAGE

"""OpenAI's own checkpoints, read without TensorFlow.

`gpt2_book/data/tensorflow-tiny` was written by TensorFlow (see
`write_tensorflow_checkpoint.py`). Damaged and hostile files are made here, by
a small writer that shares no code with the reader.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gpt2
from gpt2.config import GPT2Config
from gpt2.weights.formats import open_weights
from gpt2.weights.layout import gpt2_name, our_name, parameter_shapes
from gpt2.weights.tensorflow import (
    TensorEntry,
    TensorFlowCheckpointError,
    find,
    read_index,
    read_tensors,
    verify_checksums,
)
from gpt2_book import DATA

TINY = DATA / "tensorflow-tiny"
INDEX = TINY / "model.ckpt.index"
DATA_NAME = "model.ckpt.data-00000-of-00001"


def read_gpt2(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors under our names, as the loader does."""
    weights = open_weights(path)
    return {
        our_name(name) or name: weights.read(name) for name in weights.infos
    }


# --- a writer of the format ---


def crc32c(data: bytes) -> int:
    """Long division of the bits as one polynomial, without a table."""
    flipped = "".join(f"{byte:08b}"[::-1] for byte in data) + "0" * 32
    dividend = int(flipped, 2) ^ (0xFFFFFFFF << (len(flipped) - 32))
    polynomial = 0x11EDC6F41
    for place in range(len(flipped) - 1, 31, -1):
        if dividend >> place & 1:
            dividend ^= polynomial << (place - 32)
    return int(f"{dividend ^ 0xFFFFFFFF:032b}"[::-1], 2)


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15) + (crc % 2**15 << 17) + 0xA282EAD8) % 2**32


def fixed32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def varint(value: int) -> bytes:
    value %= 2**64  # protobuf's form of a negative number
    low, rest = value % 128, value // 128
    return bytes([low + 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number * 8) + varint(value)
    return varint(number * 8 + 2) + varint(len(value)) + value


def shape_proto(*shape: int) -> bytes:
    return b"".join(field(2, field(1, size)) for size in shape)


def entry(
    shape: Sequence[int] = (2,),
    dtype: int = 1,
    shard: int = 0,
    offset: int = 0,
    size: int = 8,
    crc: int = 0,
) -> bytes:
    return (
        field(1, dtype)
        + field(2, shape_proto(*shape))
        + field(3, shard)
        + field(4, offset)
        + field(5, size)
        + varint(6 * 8 + 5)
        + fixed32(crc)
    )


HEADER = field(1, 1) + field(3, field(1, 1))


def record(key: bytes, value: bytes, shared: int = 0) -> bytes:
    lengths = varint(shared) + varint(len(key)) + varint(len(value))
    return lengths + key + value


def body(*records: bytes) -> bytes:
    return b"".join(records) + fixed32(0) + fixed32(1)


def block(body: bytes, kind: int = 0) -> bytes:
    data = body + bytes([kind])
    return data + fixed32(masked(data))


def handle(offset: int, size: int) -> bytes:
    return varint(offset) + varint(size)


def table(*bodies: bytes, handles: Sequence[bytes] | None = None) -> bytes:
    """An index with these bodies of data blocks."""
    blocks = [block(body) for body in bodies]
    offsets = [sum(map(len, blocks[:i])) for i in range(len(blocks))]
    if handles is None:
        sizes = map(len, bodies)
        handles = [*map(handle, offsets, sizes)]
    keys = [b"%04d" % i for i in range(len(handles))]
    index = body(*map(record, keys, handles))
    data = b"".join([*blocks, block(body())])
    footer = handle(len(data) - len(block(body())), len(body()))
    footer += handle(len(data), len(index))
    magic = bytes.fromhex("57fb808b247547db")
    return data + block(index) + footer.ljust(40, b"\0") + magic


def index_of(
    entries: dict[str, bytes] | None = None, header: bytes = HEADER
) -> bytes:
    """An index of one block."""
    entries = {"w": entry()} if entries is None else entries
    named = [record(name.encode(), value) for name, value in entries.items()]
    return table(body(record(b"", header), *named))


def checkpoint(folder: Path, index: bytes, data: bytes = bytes(8)) -> Path:
    (folder / DATA_NAME).write_bytes(data)
    path = folder / "model.ckpt.index"
    path.write_bytes(index)
    return path


def test_the_writer_is_right(tmp_path: Path) -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the published check value
    data = np.array([1.5, -2], "<f4").tobytes()
    path = checkpoint(tmp_path, index_of({"w": entry(crc=masked(data))}), data)
    assert read_index(path) == {
        "w": TensorEntry("w", "F32", (2,), 0, 0, 8, masked(data))
    }
    assert read_tensors(path)["w"].tolist() == [1.5, -2]
    verify_checksums(path)


# --- what TensorFlow wrote ---


def expected_variables() -> dict[str, np.ndarray]:
    """The fixture's values by TensorFlow's names, from the same seed."""
    width = 12
    shapes: dict[str, tuple[int, ...]] = {
        "wpe": (8, width),
        "wte": (17, width),
    }
    for h in ("h0", "h1"):
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{h}/{norm}/g": (width,), f"{h}/{norm}/b": (width,)}
        for name, n_in, n_out in (
            ("attn/c_attn", 12, 36),
            ("attn/c_proj", 12, 12),
            ("mlp/c_fc", 12, 48),
            ("mlp/c_proj", 48, 12),
        ):
            shapes[f"{h}/{name}/w"] = (1, n_in, n_out)
            shapes[f"{h}/{name}/b"] = (n_out,)
    shapes |= {"ln_f/g": (width,), "ln_f/b": (width,)}
    generator = np.random.RandomState(2019)
    return {
        f"model/{name}": generator.randint(-512, 513, size=shape) / 1024
        for name, shape in shapes.items()
    }


def test_lists_what_tensorflow_wrote() -> None:
    expected = expected_variables()
    entries = read_index(INDEX)
    assert list(entries) == sorted(expected)
    for name, values in expected.items():
        assert entries[name].name == name
        assert entries[name].dtype == "F32"
        assert entries[name].shape == values.shape
        assert entries[name].size == 4 * values.size
        assert entries[name].shard == 0
    for one, next_one in pairwise(entries.values()):
        assert next_one.offset == one.offset + one.size


def test_reads_what_tensorflow_wrote() -> None:
    expected = expected_variables()
    tensors = read_tensors(INDEX)
    assert tensors.keys() == expected.keys()
    for name, values in expected.items():
        assert tensors[name].dtype == torch.float32
        assert np.array_equal(tensors[name].numpy(), values)
    verify_checksums(INDEX)


def test_reads_only_the_tensors_asked_for() -> None:
    names = ["model/wte", "model/h1/ln_2/b"]
    assert read_tensors(INDEX, names).keys() == set(names)
    assert read_tensors(INDEX, []) == {}
    with pytest.raises(TensorFlowCheckpointError, match="model/wtf"):
        read_tensors(INDEX, ["model/wte", "model/wtf"])


def test_reads_a_state_dict_of_ours() -> None:
    hparams = json.loads((TINY / "hparams.json").read_text())
    state = read_gpt2(INDEX)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes == parameter_shapes(GPT2Config.from_dict(hparams))
    expected = expected_variables()
    for ours, theirs in (
        ("wte.weight", "model/wte"),
        ("ln_f.weight", "model/ln_f/g"),
        ("h.0.ln_2.bias", "model/h0/ln_2/b"),
        ("h.1.mlp.c_fc.weight", "model/h1/mlp/c_fc/w"),
        ("h.1.attn.c_proj.weight", "model/h1/attn/c_proj/w"),
    ):
        values = expected[theirs].reshape(state[ours].shape)
        assert np.array_equal(state[ours].numpy(), values)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("model/wte", "wte.weight"),
        ("model/wpe", "wpe.weight"),
        ("model/ln_f/g", "ln_f.weight"),
        ("model/ln_f/b", "ln_f.bias"),
        ("model/h0/ln_1/g", "h.0.ln_1.weight"),
        ("model/h11/ln_2/b", "h.11.ln_2.bias"),
        ("model/h47/attn/c_attn/w", "h.47.attn.c_attn.weight"),
        ("model/h10/attn/c_proj/b", "h.10.attn.c_proj.bias"),
        ("model/h0/mlp/c_fc/w", "h.0.mlp.c_fc.weight"),
        ("model/h0/mlp/c_proj/b", "h.0.mlp.c_proj.bias"),
        ("model/h00/ln_1/g", None),
        ("model/h/ln_1/g", None),
        ("model/h0/ln_1/w", None),
        ("model/h0/attn/c_attn/g", None),
        ("model/h0/attn/c_fc/w", None),
        ("model/h0/ln_3/g", None),
        ("model/wte/Adam", None),
        ("model/h0/ln_1/g\n", None),
        ("xmodel/h0/ln_1/g", None),
        ("wte.weight", None),
        ("global_step", None),
        ("", None),
    ],
)
def test_names(theirs: str, ours: str | None) -> None:
    assert gpt2_name(theirs) == ours


def test_other_variables_keep_their_name(tmp_path: Path) -> None:
    entries = {
        "model/h0/mlp/c_fc/w": entry((1, 1, 2)),
        "model/wte": entry((1, 2, 1), offset=8),
        "other/w": entry((1, 2, 1), offset=16),
    }
    path = checkpoint(tmp_path, index_of(entries), bytes(24))
    state = read_gpt2(path)
    assert state["h.0.mlp.c_fc.weight"].shape == (1, 2)
    assert state["wte.weight"].shape == (1, 2, 1)  # the caller refuses it
    assert state["other/w"].shape == (1, 2, 1)


# --- memory ---


def test_inspecting_needs_neither_torch_nor_the_data(tmp_path: Path) -> None:
    shutil.copy(INDEX, tmp_path)
    code = (
        "import sys, pathlib\n"
        "from gpt2.weights.tensorflow import find, read_index\n"
        "entries = read_index(find(pathlib.Path(sys.argv[1])))\n"
        "assert len(entries) == 28, len(entries)\n"
        "assert not {'torch', 'numpy', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    (tmp_path / DATA_NAME).chmod(0o444)
    before = (tmp_path / DATA_NAME).read_bytes()
    path = tmp_path / INDEX.name
    for tensor in read_tensors(path).values():
        tensor.fill_(7)
    assert (tmp_path / DATA_NAME).read_bytes() == before
    assert not (read_tensors(path)["model/wte"] == 7).any()


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="needs Linux's list of maps"
)
def test_tensors_are_in_the_mapped_file() -> None:
    """There is no copy: the address of every tensor is in the map."""
    tensors = read_tensors(INDEX)
    lines = Path("/proc/self/maps").read_text().splitlines()
    maps = [line.split()[0] for line in lines if line.endswith(DATA_NAME)]
    spans = [[int(end, 16) for end in span.split("-")] for span in maps]
    for tensor in tensors.values():
        address = tensor.data_ptr()
        assert any(first <= address < last for first, last in spans)


def test_all_dtypes_and_unaligned_tensors(tmp_path: Path) -> None:
    """A float32 after an odd number of float16 is misaligned."""
    values = torch.tensor([0.5, -3, 1024])
    half, brain = values.half(), values.bfloat16()
    data = (
        half.numpy().tobytes()
        + values.numpy().tobytes()
        + brain.view(torch.int16).numpy().tobytes()
        + b"."
        + half.numpy().tobytes()
    )
    path = checkpoint(
        tmp_path,
        index_of(
            {
                "brain": entry([3], 14, offset=18, size=6),
                "empty": entry([0, 5], offset=24, size=0),
                "half": entry([3], 19, offset=0, size=6),
                "huge but empty": entry([0, 2**59], offset=24, size=0),
                "odd": entry([3], 19, offset=25, size=6),
                "whole": entry([3, 1], 1, offset=6, size=12),
                "zero": entry([0], offset=0, size=0),
            }
        ),
        data,
    )
    tensors = read_tensors(path)
    assert tensors["half"].dtype == tensors["odd"].dtype == torch.float16
    assert tensors["brain"].dtype == torch.bfloat16
    assert tensors["whole"].dtype == torch.float32
    assert tensors["empty"].shape == (0, 5)
    assert tensors["huge but empty"].shape == (0, 2**59)
    assert tensors["whole"].shape == (3, 1)
    for name in ("half", "brain", "whole", "odd"):
        assert torch.equal(tensors[name].flatten().float(), values)
        assert tensors[name].data_ptr() % tensors[name].element_size() == 0


def test_a_checkpoint_of_empty_tensors(tmp_path: Path) -> None:
    index = index_of({"w": entry([0], size=0, crc=masked(b""))})
    path = checkpoint(tmp_path, index, b"")
    assert read_tensors(path)["w"].shape == (0,)
    verify_checksums(path)


def test_unknown_fields_are_skipped(tmp_path: Path) -> None:
    """A later version of TensorFlow may add fields, of any wire type."""
    fixed64 = varint(20 * 8 + 1) + b"\xff" * 8
    fixed32 = varint(21 * 8 + 5) + b"\xff" * 4
    more = fixed64 + fixed32 + field(22, 5) + field(23, b"text")
    index = index_of({"w": more + entry()}, header=more + HEADER)
    assert read_index(checkpoint(tmp_path, index))["w"].size == 8


def test_several_data_files(tmp_path: Path) -> None:
    header = field(1, 3)  # the second of the three is empty
    entries = {"a": entry(shard=2), "b": entry(shard=0), "c": entry(shard=2)}
    entries["c"] = entry(shard=2, offset=8)
    path = tmp_path / "big.ckpt-7.index"
    path.write_bytes(index_of(entries, header))
    for shard, values in {0: [1, 2], 2: [3, 4, 5, 6]}.items():
        name = f"big.ckpt-7.data-{shard:05d}-of-00003"
        (tmp_path / name).write_bytes(np.array(values, "<f4").tobytes())
    tensors = read_tensors(path)
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "a": [3, 4],
        "b": [1, 2],
        "c": [5, 6],
    }
    (tmp_path / "big.ckpt-7.data-00002-of-00003").unlink()
    message = "data-00002-of-00003 cannot be read: No such file"
    with pytest.raises(TensorFlowCheckpointError, match=message):
        read_tensors(path)


@pytest.mark.parametrize("offset", [0, 2])
def test_a_copy_is_not_released(tmp_path: Path, offset: int) -> None:
    """A tensor that is misaligned in the file is a copy of it."""
    values = np.arange(5000, dtype="<f4")
    found = entry(shape=(5000,), offset=offset, size=20000)
    data = bytes(offset) + values.tobytes()
    weights = open_weights(checkpoint(tmp_path, index_of({"w": found}), data))
    assert weights.read("w").tolist() == values.tolist()
    weights.release("w")
    assert weights.read("w").tolist() == values.tolist()


def test_several_blocks_with_shared_prefixes(tmp_path: Path) -> None:
    first = body(
        record(b"", HEADER),
        record(b"model/one", entry()),
        record(b"wo", entry(offset=8), shared=6),
    )
    second = body(record(b"model/wo/x", entry(offset=16)))
    path = checkpoint(tmp_path, table(first, body(), second))
    entries = read_index(path)
    assert list(entries) == ["model/one", "model/wo", "model/wo/x"]
    assert [entry.offset for entry in entries.values()] == [0, 8, 16]


def test_other_dtypes_are_listed_and_refused(tmp_path: Path) -> None:
    entries = {
        "global_step": entry((), dtype=9),
        "saved": entry((), dtype=7, offset=8, size=3),
        "w": entry(offset=11),
    }
    path = checkpoint(tmp_path, index_of(entries), bytes(19))
    listed = read_index(path)
    assert [e.dtype for e in listed.values()] == ["I64", "DT_7", "F32"]
    assert listed["global_step"].shape == ()
    assert read_tensors(path, ["w"])["w"].tolist() == [0, 0]
    message = "'global_step': dtype I64, expected F32 or F16 or BF16"
    with pytest.raises(TensorFlowCheckpointError, match=message):
        read_tensors(path)


# --- finding ---


def test_finds_what_the_checkpoint_file_names(tmp_path: Path) -> None:
    for name in ("model.ckpt", "model-99", "model-100"):
        (tmp_path / f"{name}.index").touch()
    pointer = tmp_path / "checkpoint"
    for written in (
        'model_checkpoint_path: "model-99"\n',
        'model_checkpoint_path: "/home/them/run 1/model-99"\n',
        'model_checkpoint_path: "../../model-99"\n',
        'model_checkpoint_path: "C:\\\\runs\\\\model-99"\r\n',
        'all_model_checkpoint_paths: "x"\n  model_checkpoint_path: "model-99"',
    ):
        pointer.write_text(written)
        assert find(tmp_path) == tmp_path / "model-99.index"


@pytest.mark.parametrize(
    "pointer",
    [
        None,
        b"",
        b'model_checkpoint_path: "missing"',
        b'model_checkpoint_path: ".."',
        b'model_checkpoint_path: ""',
        b'model_checkpoint_path: "\0"',
        b"model_checkpoint_path: " + b"x" * 5000,
        b"model_checkpoint_path: " + b"/" * 100_000,
        b"\xff\xfe\0\0",
        b"model_checkpoint_path:\n" * 5000,
    ],
)
def test_finds_the_usual_name(tmp_path: Path, pointer: bytes | None) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "folder.ckpt.index").mkdir()
    (tmp_path / "book.index").touch()
    assert find(tmp_path) is None
    if pointer is not None:
        (tmp_path / "checkpoint").write_bytes(pointer)
    assert find(tmp_path) is None
    (tmp_path / "my.ckpt-5.index").touch()
    assert find(tmp_path) == tmp_path / "my.ckpt-5.index"
    (tmp_path / "my.ckpt-6.index").touch()
    with pytest.raises(TensorFlowCheckpointError, match=r"5\.index and my"):
        find(tmp_path)
    (tmp_path / "model.ckpt.index").touch()
    assert find(tmp_path) == tmp_path / "model.ckpt.index"


def test_a_folder_called_checkpoint_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "model.ckpt.index").touch()
    assert find(tmp_path) == tmp_path / "model.ckpt.index"


def test_never_finds_outside_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "model.ckpt.index").touch()
    for written in ("../model.ckpt", str(tmp_path / "model.ckpt")):
        text = f'model_checkpoint_path: "{written}"'
        (inside / "checkpoint").write_text(text)
        assert find(inside) is None
    assert find(tmp_path / "nowhere") is None


# --- checksums ---


@pytest.mark.parametrize(
    "size", [0, 4, 8, 16380, 16384, 16388, 32768, 32772, 49156]
)
def test_checksums_of_any_length(tmp_path: Path, size: int) -> None:
    """Around the length of a row, 16384 bytes."""
    data = random.Random(size).randbytes(size)
    value = entry([size // 4], size=size, crc=masked(data))
    path = checkpoint(tmp_path, index_of({"w": value}), data)
    verify_checksums(path)
    for place in {0, size // 2, size - 1} if size else ():
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        checkpoint(tmp_path, index_of({"w": value}), bytes(damaged))
        with pytest.raises(TensorFlowCheckpointError, match="'w': CRC"):
            verify_checksums(path)


def test_checksum_errors_name_the_tensor(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    data = bytearray((TINY / DATA_NAME).read_bytes())
    for name in islice(read_index(INDEX), 0, None, 5):
        place = read_index(INDEX)[name].offset
        data[place] ^= 0x10
        (tmp_path / DATA_NAME).write_bytes(data)
        with pytest.raises(TensorFlowCheckpointError, match=f"'{name}': CRC"):
            verify_checksums(tmp_path / INDEX.name)
        data[place] ^= 0x10


def test_checksums_of_unknown_dtypes_are_not_compared(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, index_of({"text": entry(dtype=7, crc=5)}))
    verify_checksums(path)


# --- damaged and hostile files ---


def with_footer(index: bytes, meta: bytes, block: bytes) -> bytes:
    return index[:-48] + (meta + block).ljust(40, b"\0") + index[-8:]


ENOUGH = index_of()
LONG = b"\xff" * 10 + b"\1"

HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "0 bytes that end in nothing, expected 48 or more"),
    "only a magic number": (ENOUGH[-8:], "8 bytes that end in 57fb808b"),
    "cut off": (ENOUGH[:-1], "expected 48 or more, ending in 57fb808b2475"),
    "a picture": (b"\x89PNG" * 100, "400 bytes that end in 89504e4789504e47"),
    "too large": (bytes(2**20 + 1), "has more than 1,048,576 bytes"),
    "a footer and nothing else": (ENOUGH[-48:], "expected its end before"),
    "an index block beyond the end": (
        with_footer(ENOUGH, handle(0, 0), handle(10**15, 10)),
        "a block from byte 1000000000000000 .*, expected its end before byte",
    ),
    "an index block in the footer": (
        with_footer(ENOUGH, handle(0, 0), handle(len(ENOUGH) - 52, 0)),
        "expected its end before byte",
    ),
    "a footer's endless varint": (
        with_footer(ENOUGH, LONG, b""),
        "a varint of more than 64 bits",
    ),
    "a varint that never ends": (
        with_footer(ENOUGH, b"\x80" * 10 + b"\0", b""),
        "a varint of more than 64 bits",
    ),
    "a varint of 65 bits": (
        with_footer(ENOUGH, b"\xff" * 9 + b"\2", b""),
        "a varint of more than 64 bits",
    ),
    "a changed block": (
        ENOUGH.replace(b"w", b"v"),
        "a block from byte 0 to byte .* with CRC 0x.*, expected 0x",
    ),
    "snappy": (
        block(body(), 1) + with_footer(ENOUGH, b"\0\0", handle(0, 8))[-48:],
        r"of type 1 \(compressed with snappy\), expected 0",
    ),
    "an unknown type of block": (
        block(body(), 9) + with_footer(ENOUGH, b"\0\0", handle(0, 8))[-48:],
        "of type 9, expected 0",
    ),
    "an empty block": (table(b""), "a block of 0 bytes"),
    "too many restarts": (
        table(fixed32(2**32 - 1)),
        "a block of 4 bytes, expected 4294967295 restarts",
    ),
    "a data block beyond the end": (
        table(body(), handles=[handle(0, 10**9)]),
        "a block from byte 0 to byte 1000000005",
    ),
    "a data block named twice": (
        table(body(), handles=[handle(0, 8)] * 2),
        "a block at byte 0, expected from 8 on",
    ),
    "a cut handle": (table(body(), handles=[b"\1"]), "0 bytes are left"),
    "no blocks": (table(), "b'no name' first, expected the header"),
    "no records": (table(body()), "b'no name' first, expected the header"),
    "no header": (
        table(body(record(b"w", entry()))),
        "b'w' first, expected the header",
    ),
    "an empty header": (index_of(header=b""), "0 shards, expected 1 to 99999"),
    "many shards": (
        index_of(header=field(1, -1)),
        "18446744073709551615 shards",
    ),
    "big-endian": (
        index_of(header=HEADER + field(2, 1)),
        r"endianness 1, expected 0 \(little\)",
    ),
    "a key that shares too much": (
        table(body(record(b"", HEADER), record(b"w", entry(), shared=1))),
        "a name of 1 shared and 1 other bytes, expected at most 0 shared",
    ),
    "a long key": (
        table(body(record(b"", HEADER), record(b"w" * 513, entry()))),
        "a name of 0 shared and 513 other bytes",
    ),
    "a key beyond the block": (
        table(body(varint(0) + varint(100) + varint(0))),
        "0 bytes are left, expected 100",
    ),
    "a value beyond the block": (
        table(body(varint(0) + varint(0) + varint(2**63) + b"abc")),
        "3 bytes are left, expected 9223372036854775808",
    ),
    "a record's endless varint": (table(body(LONG)), "more than 64 bits"),
    "a name twice": (
        table(body(record(b"", HEADER), *[record(b"w", entry())] * 2)),
        "the name b'w' after b'w', expected ascending",
    ),
    "a header twice": (
        table(body(*[record(b"", HEADER)] * 2)),
        "the name b'' after b''",
    ),
    "descending names": (
        table(
            body(record(b"", HEADER), record(b"w", entry())),
            body(record(b"v", entry(offset=8))),
        ),
        "the name b'v' after b'w'",
    ),
    "a name that is not text": (
        table(body(record(b"", HEADER), record(b"\xff", entry()))),
        r"tensor '\\udcff': a part of a tensor",
    ),
    "a name with a control character": (
        index_of({"w\x1b[2J": entry()}),
        r"tensor 'w\\x1b\[2J': a part of a tensor",
    ),
    "a value that is no message": (
        index_of({"w": b"\7\7\7"}),
        "tensor 'w': wire type 7, expected 0 1 2 5",
    ),
    "a value's endless varint": (
        index_of({"w": b"\x08" + LONG}),
        "tensor 'w': a varint of more than 64 bits",
    ),
    "a cut value": (index_of({"w": entry()[:-1]}), "tensor 'w': 3 bytes"),
    "a part beyond the value": (
        index_of({"w": varint(2 * 8 + 2) + varint(10**18)}),
        "tensor 'w': 0 bytes are left, expected 1000000000000000000",
    ),
    "a shard that is not there": (
        index_of({"w": entry(shard=1)}),
        "tensor 'w': shard 1, expected one of 1",
    ),
    "a negative shard": (
        index_of({"w": entry(shard=-1)}),
        "tensor 'w': shard 18446744073709551615",
    ),
    "a negative dimension": (
        index_of({"w": entry([2, -1])}),
        r"tensor 'w': shape \(2, -1\), expected at most 8 dimensions",
    ),
    "an unknown rank": (
        index_of({"w": field(1, 1) + field(2, field(3, 1)) + field(5, 4)}),
        r"tensor 'w': shape \(\), expected at most 8 dimensions, known",
    ),
    "too many dimensions": (
        index_of({"w": entry([1] * 9, size=4)}),
        "tensor 'w': shape .*, expected at most 8 dimensions",
    ),
    "too many numbers": (
        index_of({"w": entry([2**31] * 3, size=0)}),
        "tensor 'w': shape .* none negative or huge",
    ),
    "many numbers in a tensor of none": (
        index_of({"w": entry([0, 2**62, 2**62], size=0)}),
        "tensor 'w': shape .* none negative or huge",
    ),
    "too few bytes": (
        index_of({"w": entry([3])}),
        r"tensor 'w': 8 bytes, expected 12 for F32 of shape \(3,\)",
    ),
    "too few bytes of a dtype that is not read": (
        index_of({"w": entry([2], dtype=9)}),
        r"tensor 'w': 8 bytes, expected 16 for I64 of shape \(2,\)",
    ),
}


@pytest.mark.parametrize("index,message", HOSTILE.values(), ids=HOSTILE)
def test_hostile_indexes(tmp_path: Path, index: bytes, message: str) -> None:
    path = checkpoint(tmp_path, index)
    message = rf"{path}(: .*| ){message}"
    for reader in (read_index, read_tensors, open_weights, verify_checksums):
        with pytest.raises(TensorFlowCheckpointError, match=message):
            reader(path)


@pytest.mark.parametrize(
    ("entries", "size", "message"),
    [
        ({"w": entry()}, 7, "tensor 'w' from byte 0 to 8, .* up to 7"),
        ({"w": entry()}, 0, "tensor 'w' from byte 0 to 8, .* up to 0"),
        ({"w": entry(offset=1)}, 8, "tensor 'w' from byte 1 to 9"),
        (
            {"w": entry(offset=-8)},
            8,
            "tensor 'w' from byte 18446744073709551608",
        ),
        (
            {"w": entry([2**40], size=2**42)},
            8,
            "tensor 'w' from byte 0 to 4398046511104, .* up to 8",
        ),
        (
            {"w": entry(dtype=7, size=2**63)},
            8,
            "tensor 'w' from byte 0 to 9223372036854775808, .* up to 8",
        ),
        (
            {"a": entry(offset=4), "b": entry(crc=masked(bytes(8)))},
            12,
            "tensor 'a' from byte 4 to 12, expected it from 8 on",
        ),
    ],
)
def test_tensors_beyond_the_data(
    tmp_path: Path, entries: dict[str, bytes], size: int, message: str
) -> None:
    path = checkpoint(tmp_path, index_of(entries), bytes(size))
    assert read_index(path).keys() == entries.keys()
    for reader in (read_tensors, read_gpt2, verify_checksums):
        with pytest.raises(
            TensorFlowCheckpointError, match=f"{DATA_NAME}: {message}"
        ):
            reader(path)


def test_overlaps_in_the_second_data_file(tmp_path: Path) -> None:
    """Tensors in the first one do not matter."""
    entries = {
        "a": entry(shard=1),
        "b": entry(shard=0, offset=2),
        "c": entry(shard=1, offset=4),
    }
    path = checkpoint(tmp_path, index_of(entries, header=field(1, 2)))
    for shard in (0, 1):
        (tmp_path / f"model.ckpt.data-0000{shard}-of-00002").write_bytes(
            bytes(12)
        )
    message = "00001-of-00002: tensor 'c' from byte 4 to 12, .* from 8 on"
    with pytest.raises(TensorFlowCheckpointError, match=message):
        read_tensors(path)


def test_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt.index"
    with pytest.raises(TensorFlowCheckpointError, match="index cannot be re"):
        read_index(path)
    with pytest.raises(TensorFlowCheckpointError, match="it is a folder"):
        read_index(tmp_path)
    shutil.copy(INDEX, path)
    with pytest.raises(
        TensorFlowCheckpointError, match=f"{DATA_NAME} cannot be read: No such"
    ):
        read_tensors(path)
    (tmp_path / DATA_NAME).mkdir()
    with pytest.raises(TensorFlowCheckpointError, match="it is a folder"):
        read_tensors(path)


@pytest.mark.skipif(os.name != "posix", reason="named pipes are POSIX's")
@pytest.mark.parametrize("name", [INDEX.name, DATA_NAME])
def test_a_pipe_is_refused(
    tmp_path: Path, name: str, make_pipe: Callable[[Path], None]
) -> None:
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    make_pipe(tmp_path / name)
    message = f"{name} cannot be read: it is a named pipe"
    with pytest.raises(TensorFlowCheckpointError, match=message):
        read_tensors(tmp_path / INDEX.name)


def test_loading_compares_the_checksums(tmp_path: Path) -> None:
    """Inspecting does not, since it reads no data."""
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    data = bytearray((TINY / DATA_NAME).read_bytes())
    data[1000] ^= 1
    (tmp_path / DATA_NAME).write_bytes(data)
    assert len(gpt2.inspect(tmp_path).names) == 28
    with pytest.raises(TensorFlowCheckpointError, match="CRC 0x") as caught:
        gpt2.load_model(tmp_path)
    assert str(tmp_path / INDEX.name) in str(caught.value)


def outcome(path: Path) -> dict[str, TensorEntry] | None:
    """The entries of an index, or None if it is refused."""
    try:
        entries = read_index(path)
    except TensorFlowCheckpointError:
        return None
    for reader in (read_tensors, verify_checksums):
        try:
            reader(path)
        except TensorFlowCheckpointError as error:
            assert str(path.parent) in str(error)
    return entries


def test_every_damaged_byte_is_caught(tmp_path: Path) -> None:
    """Each byte of TensorFlow's index, unless it does not matter."""
    generator = random.Random(0)
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    whole, sound = INDEX.read_bytes(), read_index(INDEX)
    path = tmp_path / INDEX.name
    ignored = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= generator.randrange(1, 256)
        path.write_bytes(damaged)
        entries = outcome(path)
        assert entries in (None, sound)
        ignored += entries is not None
    # What does not matter: the meta block (13 bytes), its handle (3), and the
    # footer's zeros (34).
    assert ignored <= 50


def test_every_truncation_is_caught(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    whole = INDEX.read_bytes()
    path = tmp_path / INDEX.name
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert outcome(path) is None


pieces = st.one_of(
    st.binary(max_size=12),
    st.builds(varint, st.integers(0, 2**64 - 1)),
    st.builds(
        field,
        st.integers(0, 9),
        st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=9)),
    ),
    st.builds(
        entry,
        st.lists(
            st.integers(-2, 3) | st.integers(-(2**63), 2**63), max_size=9
        ),
        st.sampled_from([0, 1, 7, 9, 14, 19, 101]),
        st.integers(-1, 2),
        st.integers(-1, 20) | st.integers(0, 2**64 - 1),
        st.integers(-1, 24) | st.integers(0, 2**64 - 1),
    ),
)
values = st.lists(pieces, max_size=3).map(b"".join)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.builds(record, st.binary(max_size=3), values, st.integers(0, 2)),
        max_size=4,
    ),
    values,
)
def test_garbage_with_a_correct_checksum(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], end: bytes
) -> None:
    """Any content of a block is read or refused."""
    folder = tmp_path_factory.getbasetemp() / "garbage"
    folder.mkdir(exist_ok=True)
    header = record(b"", HEADER)
    for bodies in (
        [body(header, *records)],
        [body(header, *records) + end],
        [body(header), *map(body, records)],
        [b"".join(records) + end],
    ):
        outcome(checkpoint(folder, table(*bodies), bytes(24)))
        outcome(checkpoint(folder, table(body(header), handles=[end])))


# --- against TensorFlow itself, where it is installed ---


def test_agrees_with_tensorflow(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    generator = np.random.RandomState(0)
    dtypes = [tf.float32, tf.float16, tf.bfloat16]
    shapes = [(), (1,), (0,), (3,), (2, 5), (1, 4, 3), (3, 0, 2), (5000,)]
    expected = {
        # Long, dissimilar names, for an index of several blocks.
        f"{generator.bytes(100).hex()}/{i}": tf.cast(
            generator.standard_normal(shapes[i % 8]), dtypes[i % 3]
        )
        for i in range(3000)
    }
    names = list(expected)
    for part in range(3):  # one data file each
        chosen = names[part::3]
        tf.raw_ops.SaveV2(
            prefix=f"{tmp_path}/part{part}",
            tensor_names=chosen,
            shape_and_slices=[""] * len(chosen),
            tensors=[expected[name] for name in chosen],
        )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[f"{tmp_path}/part{part}" for part in range(3)],
        destination_prefix=f"{tmp_path}/model.ckpt",
    )
    path = find(tmp_path)
    assert path is not None
    # TensorFlow begins another data block after 256 KiB.
    assert path.stat().st_size > 2 * 2**18
    entries = read_index(path)
    assert list(entries) == sorted(expected)
    assert {entry.shard for entry in entries.values()} == {0, 1, 2}
    tensors = read_tensors(path)
    for name, tensor in expected.items():
        assert tuple(tensor.shape) == entries[name].shape
        values = np.asarray(tf.cast(tensor, tf.float32))
        assert str(tensors[name].dtype) == f"torch.{tensor.dtype.name}"
        assert np.array_equal(tensors[name].float().numpy(), values)
    verify_checksums(path)


def test_agrees_with_tensorflow_on_other_dtypes(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    tensors = {
        "counts": tf.constant([1, 2], tf.int32),
        "flags": tf.constant([True]),
        "step": tf.constant(7, tf.int64),
        "texts": tf.constant(["one", "another"]),
        "wide": tf.constant([0.5], tf.float64),
    }
    tf.raw_ops.SaveV2(
        prefix=f"{tmp_path}/model.ckpt",
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    path = tmp_path / "model.ckpt.index"
    entries = read_index(path)
    assert {name: (e.dtype, e.shape) for name, e in entries.items()} == {
        "counts": ("I32", (2,)),
        "flags": ("DT_10", (1,)),
        "step": ("I64", ()),
        "texts": ("DT_7", (2,)),
        "wide": ("F64", (1,)),
    }
    verify_checksums(path)
    for name in tensors:
        with pytest.raises(
            TensorFlowCheckpointError, match=f"'{name}': dtype"
        ):
            read_tensors(path, [name])


def test_a_tensor_that_tensorflow_cut_in_slices(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    tf.raw_ops.SaveV2(
        prefix=f"{tmp_path}/model.ckpt",
        tensor_names=["model/wte"] * 2,
        shape_and_slices=["4 2 0,2:-", "4 2 2,2:-"],
        tensors=[tf.zeros([2, 2]), tf.ones([2, 2])],
    )
    with pytest.raises(TensorFlowCheckpointError, match="a part of a tensor"):
        read_index(tmp_path / "model.ckpt.index")

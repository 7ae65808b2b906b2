"""PyTorch's own files, read without PyTorch's reader.

PyTorch writes them, and reads them for comparison. Damaged and hostile files
are made here and never passed to PyTorch's reader: torch 2.13's
`load(mmap=True)` reads past the end of a record that is shorter than its
tensor, and the older format's reader allocates a storage of 2^50 numbers.
"""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gpt2
from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2.weights import formats
from gpt2.weights.archive import find_records
from gpt2.weights.errors import CheckpointError
from gpt2.weights.formats import open_weights
from gpt2.weights.pytorch import open_pytorch

BIN = "pytorch_model.bin"
Tensors = dict[str, Tensor]

# --- what PyTorch writes ---


def several() -> Tensors:
    """Tensors that are views of their storages in every possible way."""
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    return {
        "whole": base,
        "a part": base[2:4],
        "columns": base[:, 3:5],
        "transposed": base.T,
        "every other": base[::2, ::3],
        "the same": base,
        "one number": torch.tensor(2.5),
        "half": torch.randn(5).half(),
        "brain": torch.randn(3, 1, 2).bfloat16(),
        "empty": torch.empty(0, 7),
        "parameter": torch.nn.Parameter(torch.randn(4)),
        "counted": torch.randn(3, requires_grad=True),
        "expanded": torch.tensor([1.5]).expand(9),
        "expanded rows": base[1].expand(5, 3, 8),
        "with an attribute": with_attribute(torch.randn(3)),
        "parameter with an attribute": with_attribute(
            torch.nn.Parameter(torch.randn(3))
        ),
    }


def with_attribute(tensor: Tensor) -> Tensor:
    tensor.remark = {"of": "somebody"}  # type: ignore[attr-defined]
    return tensor


def ordered(tensors: Tensors) -> Any:
    """A module's state dict has its version as metadata."""
    state = collections.OrderedDict(tensors)
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    return state


WAYS: dict[str, Callable[[Tensors, Path], None]] = {
    "zip": torch.save,
    "zip, ordered": lambda t, p: torch.save(ordered(t), p),
    "zip, protocol 3": lambda t, p: torch.save(t, p, pickle_protocol=3),
    "zip, protocol 4": lambda t, p: torch.save(t, p, pickle_protocol=4),
    "old": lambda t, p: torch.save(t, p, _use_new_zipfile_serialization=False),
    "old, ordered": lambda t, p: torch.save(
        ordered(t), p, _use_new_zipfile_serialization=False
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_reads_what_pytorch_reads(tmp_path: Path, way: str) -> None:
    path = tmp_path / BIN
    WAYS[way](several(), path)
    # With weights_only, torch 2.13 reads protocols up to 3.
    theirs = torch.load(path, weights_only="4" not in way)
    weights = open_weights(path)
    weights.verify()
    assert list(weights.infos) == list(theirs)
    for name, tensor in theirs.items():
        found = weights.read(name)
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor), name
        assert weights.infos[name].shape == tensor.shape
        assert found.is_contiguous()


def test_lists_what_it_does_not_read(tmp_path: Path) -> None:
    path = tmp_path / BIN
    tensors = {
        "F64": torch.ones(2, dtype=torch.float64),
        "I64": torch.ones(2, dtype=torch.int64),
        "I32": torch.ones(2, dtype=torch.int32),
        "I16": torch.ones(2, dtype=torch.int16),
        "I8": torch.ones(2, dtype=torch.int8),
        "U8": torch.ones(2, dtype=torch.uint8),
        "BOOL": torch.ones(2, dtype=torch.bool),
    }
    torch.save(tensors, path)
    infos = open_weights(path).infos
    assert {name: info.dtype for name, info in infos.items()} == {
        name: name for name in tensors
    }


def test_inspecting_needs_no_torch(tmp_path: Path) -> None:
    """Nor numpy."""
    import subprocess
    import sys

    code = (
        "import sys, pathlib\n"
        "from gpt2.weights.formats import open_weights\n"
        "infos = open_weights(pathlib.Path(sys.argv[1])).infos\n"
        "assert infos['whole'].shape == (6, 8), infos\n"
        "assert not {'torch', 'numpy', 'pickle5'} & set(sys.modules)\n"
    )
    torch.save(several(), tmp_path / BIN)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(gpt2.__path__[0]).parent),
    }
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / BIN)],
        check=True,
        env=environment,
    )


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / BIN
    torch.save(several(), path)
    before = path.read_bytes()
    weights = open_weights(path)
    for name in weights.infos:
        weights.read(name).fill_(7)
    assert path.read_bytes() == before


# --- writing archives ---


def archive(
    parts: list[tuple[str, bytes]],
    *,
    sums: bool = True,
    wide: bool = False,
    method: int = 0,
    flags: int = 0,
    places: dict[str, int] | None = None,
    sizes: dict[str, int] | None = None,
    count: int | None = None,
    directory_bytes: int | None = None,
    directory_place: int | None = None,
) -> bytes:
    """A zip archive; its metadata can be wrong.

    With `wide`, all numbers are in the 64-bit fields.
    """
    places, sizes = places or {}, sizes or {}
    data, entries = b"", b""
    for name, content in parts:
        crc = zlib.crc32(content) if sums else 0
        size = sizes.get(name, len(content))
        place = places.get(name, len(data))
        text = name.encode()
        head = struct.pack("<HHHHHI", 20, flags, method, 0, 0, crc)
        narrow = 2**32 - 1
        extra = struct.pack("<HHBHHQQQ", 9, 1, 0, 1, 24, size, size, place)
        said = (narrow, narrow) if wide else (size, size)
        lengths = struct.pack("<II", *said)
        data += b"PK\3\4" + head + lengths + struct.pack("<HH", len(text), 3)
        data += text + b"pad" + content
        entries += b"PK\1\2\0\0" + head + lengths
        entries += struct.pack(
            "<HHHHHII",
            len(text),
            len(extra) if wide else 0,
            0,
            0,
            0,
            0,
            narrow if wide else place,
        )
        entries += text + (extra if wide else b"")
    numbers = (
        len(parts) if count is None else count,
        len(entries) if directory_bytes is None else directory_bytes,
        len(data) if directory_place is None else directory_place,
    )
    return data + entries + ends(numbers, len(data + entries), wide)


def ends(numbers: tuple[int, int, int], place: int, wide: bool) -> bytes:
    """The end records of an archive, with the directory's numbers."""
    wide_ends = b""
    if wide:
        wide_ends += b"PK\6\6" + struct.pack("<QHHII", 44, 45, 45, 0, 0)
        wide_ends += struct.pack("<QQQQ", numbers[0], *numbers)
        wide_ends += b"PK\6\7" + struct.pack("<IQI", 0, place, 1)
        numbers = (2**16 - 1, 2**32 - 1, 2**32 - 1)
    end_record = struct.pack("<4xHHIIH", numbers[0], *numbers, 0)
    return wide_ends + b"PK\5\6" + end_record


def parts_of(path: Path) -> list[tuple[str, bytes]]:
    """The records of one of PyTorch's archives."""
    data = memoryview(path.read_bytes())
    records = find_records(data, path)
    return [(n, bytes(data[r.begin : r.end])) for n, r in records.items()]


@pytest.fixture
def model() -> GPT2:
    torch.manual_seed(4)
    return GPT2(GPT2Config(n_vocab=5, n_ctx=4, n_embd=4, n_head=2, n_layer=1))


@pytest.fixture
def folder(tmp_path: Path, model: GPT2) -> Path:
    """A checkpoint of PyTorch's."""
    gpt2.save(model, None, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    tensors = {name: t.clone() for name, t in model.state_dict().items()}
    torch.save(tensors, tmp_path / BIN)
    return tmp_path


@pytest.mark.parametrize("wide", [False, True], ids=["32 bits", "64 bits"])
def test_the_writer_is_right(folder: Path, model: GPT2, wide: bool) -> None:
    """Python's zipfile agrees, and the model is the same."""
    import zipfile

    path = folder / BIN
    parts = parts_of(path)
    path.write_bytes(archive(parts, wide=wide))
    with zipfile.ZipFile(path) as written:
        assert [(n, written.read(n)) for n in written.namelist()] == parts
    loaded = gpt2.load_model(folder)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def refuse(folder: Path, message: str, *, inspecting: bool = True) -> None:
    """Check that loading and inspecting fail with an error about the file."""
    with pytest.raises(CheckpointError, match=message) as caught:
        gpt2.load_model(folder)
    assert str(folder / BIN) in str(caught.value)
    assert "\n" not in str(caught.value)
    if inspecting:
        with pytest.raises(CheckpointError, match=message):
            gpt2.inspect(folder)


@pytest.mark.parametrize("change", [-4, -16, 4], ids=repr)
def test_a_record_of_another_size_than_its_storage(
    folder: Path, change: int
) -> None:
    """The reader never continues into the next record."""
    path = folder / BIN
    parts = []
    for name, content in parts_of(path):
        if name.endswith("/data/0"):
            content = (content + bytes(4))[: len(content) + change]
        parts.append((name, content))
    path.write_bytes(archive(parts))
    refuse(
        folder,
        rf"'wte\.weight' should have 80 bytes, and has {80 + change}$",
    )


def test_a_missing_storage(folder: Path) -> None:
    path = folder / BIN
    kept = [part for part in parts_of(path) if part[0][-7:] != "/data/3"]
    path.write_bytes(archive(kept))
    refuse(folder, "should have 16 bytes, and has 0")


def test_no_flipped_bit_is_loaded(folder: Path, model: GPT2) -> None:
    """In any record: the archive's checksums are compared.

    Those of the storages are compared when loading; inspecting does not read
    them.
    """
    path = folder / BIN
    whole = path.read_bytes()
    records = find_records(memoryview(whole), path)
    for name, record in records.items():
        data = bytearray(whole)
        data[(record.begin + record.end) // 2] ^= 1
        path.write_bytes(data)
        own = name.partition("/")[2]
        refuse(
            folder,
            f"is damaged: its record '{own}' has CRC-32 [0-9a-f]{{8}}, expect",
            inspecting=own in ("data.pkl", "byteorder"),
        )


def test_a_file_without_checksums_is_read(folder: Path, model: GPT2) -> None:
    """PyTorch can omit them, and then writes 0 for each."""
    path = folder / BIN
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(dict(model.state_dict()), path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(gpt2.load_model(folder).wte.weight, model.wte.weight)
    path.write_bytes(archive(parts_of(path), sums=False))
    assert torch.equal(gpt2.load_model(folder).wte.weight, model.wte.weight)


ARCHIVES: dict[str, tuple[dict[str, Any], str]] = {
    "compressed": ({"method": 8}, "is compressed or encrypted"),
    "encrypted": ({"flags": 1}, "is compressed or encrypted"),
    "a record elsewhere": (
        {"places": {"x/data/1": 7}},
        "'x/data/1' is not at its offset",
    ),
    "a record beyond the end": (
        {"places": {"x/data/1": 2**31}},
        "'x/data/1' is not at its offset",
    ),
    "one record twice": (
        {"places": {"x/data/1": 0}},
        "overlaps other data",
    ),
    "a size beyond the directory": (
        {"sizes": {"x/version": 1000}},
        "'x/version' overlaps other data",
    ),
    "a size beyond the next": (
        {"sizes": {"x/data/0": 100}},
        "overlaps other data",
    ),
    "a huge size": (
        {"sizes": {"x/data/0": 2**60}, "wide": True},
        "overlaps other data",
    ),
    "a huge place": (
        {"places": {"x/data/0": 2**63}, "wide": True},
        "'x/data/0' is not at its offset",
    ),
    "fewer entries than records": ({"count": 9}, "5 entries, expected 9"),
    "a directory too long": (
        {"directory_bytes": 10**5},
        "its directory cannot have 100,000 bytes",
    ),
    "a directory far too long": (
        {"directory_bytes": 2**60, "wide": True},
        "cannot have 1,152,921,504,606,846,976 bytes at",
    ),
    "a directory elsewhere": (
        {"directory_place": 3},
        "its directory is malformed",
    ),
    "a truncated directory": (
        {"directory_bytes": 100},
        "its directory is malformed",
    ),
    "a directory beyond the end": (
        {"directory_place": 2**31},
        "its directory cannot have",
    ),
}


def small_parts() -> list[tuple[str, bytes]]:
    stream = io.BytesIO()
    torch.save({"w": torch.ones(2), "v": torch.ones(2)}, stream)
    found = find_records(memoryview(stream.getvalue()), Path("x"))
    needed = ("data.pkl", "byteorder", "data/0", "data/1", "version")
    return [
        (f"x/{name}", stream.getvalue()[record.begin : record.end])
        for name, record in (
            (n.partition("/")[2], r) for n, r in found.items()
        )
        if name in needed
    ]


@pytest.mark.parametrize("fault", ARCHIVES)
def test_damaged_archives(tmp_path: Path, fault: str) -> None:
    changes, message = ARCHIVES[fault]
    path = tmp_path / BIN
    path.write_bytes(archive(small_parts()))
    assert open_weights(path).read("w").tolist() == [1, 1]
    path.write_bytes(archive(small_parts(), **changes))
    with pytest.raises(CheckpointError, match=message) as caught:
        open_weights(path)
    assert str(path) in str(caught.value)


def with_part(name: str, content: bytes) -> list[tuple[str, bytes]]:
    """The small archive with one record added or replaced."""
    kept = [part for part in small_parts() if part[0] != name]
    return [*kept, (name, content)]


PARTS: dict[str, tuple[Callable[[], list[tuple[str, bytes]]], str]] = {
    "a name twice": (
        lambda: [*small_parts(), ("x/data/0", bytes(8))],
        "the name 'x/data/0' appears twice",
    ),
    "two folders": (
        lambda: [*small_parts(), ("y/data/0", bytes(8))],
        "expected one folder with a data.pkl",
    ),
    "no pickle": (
        lambda: small_parts()[1:],
        "expected one folder with a data.pkl",
    ),
    "nothing": (
        lambda: [("x/nothing", b"")],
        "expected one folder with a data.pkl",
    ),
    "the other order": (
        lambda: with_part("x/byteorder", b"big"),
        "its numbers are b'big'-endian",
    ),
    "a huge pickle": (
        lambda: with_part("x/data.pkl", b"N" * 1_000_001),
        "its data.pkl has 1,000,001 bytes, more than 1,000,000",
    ),
    "an empty pickle": (
        lambda: with_part("x/data.pkl", b""),
        "cannot be read as a PyTorch file",
    ),
}


@pytest.mark.parametrize("fault", PARTS)
def test_odd_archives(tmp_path: Path, fault: str) -> None:
    parts, message = PARTS[fault]
    path = tmp_path / BIN
    path.write_bytes(archive(parts()))
    with pytest.raises(CheckpointError, match=message) as caught:
        open_weights(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("wide", [False, True], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize("length", [1, 22, 65_535])
def test_an_archive_with_a_comment(
    tmp_path: Path, wide: bool, length: int
) -> None:
    path = tmp_path / BIN
    whole = archive(small_parts(), wide=wide)
    for comment in (whole[:-2] + struct.pack("<H", length), whole):
        path.write_bytes(comment + b"P" * length)
        assert open_weights(path).read("w").tolist() == [1, 1]
    path.write_bytes(whole + bytes(65_536))
    with pytest.raises(CheckpointError, match="it has no end record"):
        open_weights(path)


def test_an_archive_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / BIN
    whole = archive(small_parts())
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=BIN):
            open_weights(path)


# --- pickles ---


class Stored:
    """Pickled as a persistent id."""

    def __init__(self, saved: Any) -> None:
        self.saved = saved


class Rebuilt:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Pickler(pickle.Pickler):
    """Write what `torch.save` would write for such tensors."""

    def persistent_id(self, thing: Any) -> Any:
        return thing.saved if isinstance(thing, Stored) else None


def pickled(thing: Any) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, 2).dump(thing)
    return stream.getvalue()


def stored(n_numbers: Any = 2, key: Any = "0", *more: Any) -> Stored:
    return Stored(
        ("storage", torch.FloatStorage, key, "cpu", n_numbers, *more)
    )


def tensor(
    storage: Any = None,
    offset: Any = 0,
    shape: Any = (2,),
    strides: Any = (1,),
    *others: Any,
) -> Rebuilt:
    return Rebuilt(
        torch._utils._rebuild_tensor_v2,
        stored() if storage is None else storage,
        offset,
        shape,
        strides,
        *(others or (False, collections.OrderedDict())),
    )


TUPLE_IN_TUPLES = b"\x80\x02}N" + b"\x85" * 300_000 + b"Ns."

PICKLES: dict[str, tuple[Any, str]] = {
    "beyond the storage": (
        tensor(shape=(3,)),
        r"a tensor \[3\] needs 3 numbers, and its storage '0' has 2",
    ),
    "far beyond the storage": (
        tensor(shape=(2**31, 2**31), strides=(2**31, 1)),
        r"needs 4,611,686,018,427,387,904 numbers",
    ),
    "an offset too far": (tensor(offset=1), "needs 3 numbers, and its stora"),
    "a stride too far": (tensor(strides=(2,)), "needs 3 numbers, and its st"),
    "a stride of 0 and one too far": (
        tensor(shape=(9, 3), strides=(0, 1)),
        r"a tensor \[9, 3\] needs 3 numbers, and its storage '0' has 2",
    ),
    "a large tensor of two numbers": (
        tensor(shape=(10**6, 2), strides=(0, 1)),
        "would take 8,000,000: too many share the same storage",
    ),
    "a stride backwards": (
        tensor(offset=1, strides=(-1,)),
        "no valid storage",
    ),
    "an offset below 0": (tensor(offset=-1), "no valid storage"),
    "a size below 0": (tensor(shape=(-2,)), "no valid storage"),
    "a size with a fraction": (tensor(shape=(2.0,)), "no valid storage"),
    "a truth as a size": (tensor(shape=(True,)), "no valid storage"),
    "a size in a list": (tensor(shape=[2]), "no valid storage"),
    "a stride fewer": (tensor(shape=(2, 1)), "no valid storage"),
    "many dimensions": (
        tensor(shape=(1,) * 9, strides=(1,) * 9),
        "no valid storage",
    ),
    "huge sizes": (
        tensor(shape=(2**2000,) * 8, strides=(1,) * 8),
        "no valid storage",
    ),
    "a negated tensor": (
        tensor(None, 0, (2,), (1,), False, None, {"neg": True}),
        "a tensor has unsupported attributes",
    ),
    "no storage": (tensor("0"), "no valid storage"),
    "a storage of 2^50 numbers": (
        tensor(stored(2**50)),
        "should have 4,503,599,627,370,496 bytes, and has 8",
    ),
    "a storage below 0": (tensor(stored(-2)), "no valid name and size"),
    "a storage without a size": (tensor(stored(None)), "no valid name and s"),
    "a storage of another name": (
        tensor(stored(2, "../0")),
        "should have 8 bytes, and has 0",
    ),
    "a storage named by a number": (
        tensor(stored(2, 0)),
        "no valid name and",
    ),
    "a storage with a long name": (
        tensor(stored(2, "0" * 81)),
        "no valid name and",
    ),
    "a view of a storage": (
        tensor(stored(2, "0", ("1", 0, 2))),
        "a persistent id is not a storage",
    ),
    "something else outside": (
        tensor(Stored(("module", torch.FloatStorage, "0", "cpu", 2))),
        "a persistent id is not a storage",
    ),
    "a text outside": (
        tensor(Stored("0")),
        "a persistent id is not a storage",
    ),
    "a call with a list": (
        Rebuilt(collections.OrderedDict, [("w", 1)]),
        "cannot be read as a PyTorch file",
    ),
    "a function that is not PyTorch's": (
        Rebuilt(os.getcwd),
        r"it names '\w+\.getcwd', and unpickling anything but tensors co",
    ),
    "a function that is a name": (os.getcwd, r"it names '\w+\.getcwd'"),
    "another function of PyTorch's": (
        Rebuilt(torch._utils._rebuild_sparse_tensor, 2**40),
        r"it names 'torch\._utils\._rebuild_sparse_tensor', and unpickl",
    ),
    "a set": ({1, 2}, r"it names '\w+\.set'"),
    "bytes": (b"abc", r"it names '_codecs\.encode'"),
    "a large number": (10**700, "PyTorch does not write LONG4"),
    "a list of tensors": ([tensor()], "holds a list; expected a dictionary"),
    "a dictionary in it": ({"w": {}}, "holds a dict under 'w'; expected a"),
    "a name that is a tuple": ({(1, 2): 3}, "with a key of type tuple; exp"),
    "a name that is a number": (
        {5: 3},
        "with a key of type int; expected a dict",
    ),
    "a name that is None": ({None: 3}, "with a key of type NoneType; exp"),
    "a name that is a function": (
        {collections.OrderedDict: 3},
        "with a key of type Name; expected a dict",
    ),
    "a number as a name further in": (
        {"w": {"v": {2**61 - 1: 3}}},
        "holds a dict under 'w'; expected a plain",
    ),
    "tuples in tuples": (TUPLE_IN_TUPLES, "with a key of type tuple; exp"),
    "tuples for a module": (
        b"\x80\x04))\x86\x8c\1x\x93.",
        "a name is not a string",
    ),
    "tuples for a function": (
        b"\x80\x04\x8c\1x))\x86\x93.",
        "a name is not a string",
    ),
    "attributes of another class": (
        Rebuilt(
            torch._tensor._rebuild_from_type_v2,
            torch._utils._rebuild_tensor_v2,
            torch.FloatStorage,
            (),
            {},
        ),
        "a tensor has a class of its own",
    ),
    "attributes of attributes": (
        Rebuilt(
            torch._tensor._rebuild_from_type_v2,
            torch._tensor._rebuild_from_type_v2,
            Tensor,
            (),
            {},
        ),
        "a tensor has a class of its own",
    ),
    "attributes of a list": (
        Rebuilt(
            torch._tensor._rebuild_from_type_v2,
            torch._utils._rebuild_tensor_v2,
            Tensor,
            [],
            {},
        ),
        "a tensor has no valid arguments",
    ),
    "a name twice": (
        b"\x80\x02}(X\1\0\0\0wNX\1\0\0\0wNu.",
        "the name 'w' appears twice",
    ),
    "a call of a text": (b"\x80\x02X\1\0\0\0w)R.", "called is not a function"),
    "many arguments": (
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n(" + b"N" * 99 + b"tR.",
        "is called with invalid arguments",
    ),
    "no mark": (b"\x80\x02t.", "cannot be read as a PyTorch file"),
    "no memory": (b"\x80\x02h\x05.", "cannot be read as a PyTorch file"),
    "an empty stack": (b"\x80\x02.", "the stack does not end with one value"),
    "two things": (b"\x80\x02NN.", "the stack does not end with one value"),
    "items for a text": (
        b"\x80\x02X\1\0\0\0wNNs.",
        "not pairs for a dictionary",
    ),
    "an append to a text": (
        b"\x80\x02X\1\0\0\0wNa.",
        "appended to what is not a list",
    ),
    "an opcode of a later protocol": (b"\x80\x05\x95", "not enough data|expe"),
    "no opcode": (b"\x80\x02\xff.", "opcode"),
    "without an end": (b"\x80\x02N", "pickle exhausted before seeing STOP"),
}


@pytest.mark.parametrize("fault", PICKLES)
def test_odd_pickles(tmp_path: Path, fault: str) -> None:
    """In an archive whose checksums are right."""
    thing, message = PICKLES[fault]
    if isinstance(thing, Rebuilt) and thing.call[0] is (
        torch._utils._rebuild_tensor_v2
    ):
        thing = {"w": thing}
    made = isinstance(thing, bytes) and thing.startswith(b"\x80")
    program = thing if made else pickled(thing)
    path = tmp_path / BIN
    path.write_bytes(archive(with_part("x/data.pkl", program)))
    with pytest.raises(CheckpointError, match=message) as caught:
        open_weights(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_writer_of_pickles_is_right(tmp_path: Path) -> None:
    path = tmp_path / BIN
    program = pickled({"w": tensor(), "v": tensor(stored(2, "1"))})
    path.write_bytes(archive(with_part("x/data.pkl", program)))
    for load in (open_pytorch(path).tensor, torch.load(path).__getitem__):
        assert load("w").tolist() == load("v").tolist() == [1, 1]


# --- the older format ---

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}


def old_file(
    state: Any = None,
    *,
    magic: int = MAGIC,
    version: Any = 1001,
    system: Any = SYSTEM,
    keys: Any = ("0",),
    count: int = 2,
    data: bytes = struct.pack("<2f", 1, 2),
) -> bytes:
    state = {"w": tensor(stored(2, "0", None))} if state is None else state
    things = (magic, version, system, state, list(keys))
    return b"".join(map(pickled, things)) + struct.pack("<Q", count) + data


OLD: dict[str, tuple[dict[str, Any], str]] = {
    "another magic number": ({"magic": 5}, "it begins with another pickle"),
    "another version": ({"version": 1000}, "it has an unknown version"),
    "no system": ({"system": None}, "it has an unknown version"),
    "another machine": (
        {"system": {"little_endian": False}},
        "its numbers are big-endian",
    ),
    "no keys": ({"keys": ()}, "its storages are not those of its tensors"),
    "keys of nothing": ({"keys": "01"}, "its storages are not those of its t"),
    "a key twice": ({"keys": "00"}, "its storages are not those of its tens"),
    "a key that is a number": ({"keys": (0,)}, "it has no list of storages"),
    "a key that is a list": ({"keys": ([],)}, "it has no list of storages"),
    "a storage of 2^50 numbers": (
        {"state": {"w": tensor(stored(2**50, "0", None))}, "count": 2**50},
        "its storage '0' should end at byte 4,503,599,627,37.* of .*; the",
    ),
    "a storage promised larger": (
        {"state": {"w": tensor(stored(2**50, "0", None))}},
        "should have 4,503,599,627,370,496 bytes, and has 8",
    ),
    "a storage that is shorter": ({"count": 1}, "4 bytes are left over"),
    "a storage that is longer": ({"count": 3}, "should end at byte .* of "),
    "bytes left over": ({"data": bytes(9)}, "1 bytes are left over"),
    "cut off": ({"data": bytes(7)}, "download may be incomplete"),
    "a list": (
        {"state": [1]},
        "holds a list; expected a dictionary from names",
    ),
}


@pytest.mark.parametrize("fault", OLD)
def test_odd_files_of_the_older_format(tmp_path: Path, fault: str) -> None:
    changes, message = OLD[fault]
    path = tmp_path / BIN
    path.write_bytes(old_file())
    assert open_weights(path).read("w").tolist() == [1, 2]
    path.write_bytes(old_file(**changes))
    with pytest.raises(CheckpointError, match=message) as caught:
        open_weights(path)
    assert str(path) in str(caught.value)


# --- shared storage ---


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    """A checkpoint whose layers share their storage."""
    config = GPT2Config(n_vocab=5, n_ctx=4, n_embd=64, n_head=2, n_layer=3)
    gpt2.save(GPT2(config), None, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = {n: t.clone() for n, t in GPT2(config).state_dict().items()}
    for i in range(1, 3):
        for name, value in list(state.items()):
            if name.startswith("h.0."):
                state[name.replace("h.0.", f"h.{i}.")] = value
    torch.save(state, tmp_path / BIN)
    return tmp_path


def test_layers_may_share_storage(tied: Path) -> None:
    """Writing to one of them does not change the others."""
    loaded = gpt2.load_model(tied)
    first, second = (h.mlp.c_fc.weight.detach() for h in loaded.h[:2])
    assert torch.equal(first, second)
    kept = second.clone()
    first.add_(1)
    assert torch.equal(second, kept)


@pytest.mark.parametrize("limit", ["_MOST_REPEATS", "_MOST_REPEATED_BYTES"])
def test_a_model_takes_little_more_memory_than_its_file(
    tied: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Ten thousand layers could share one row of numbers in the file."""
    monkeypatch.setattr(formats, limit, 1)
    refuse(tied, "too many share the same storage")


def test_biases_may_be_one_number(folder: Path, model: GPT2) -> None:
    """So may a mask that the model does not need, of any size."""
    state = {n: t.clone() for n, t in model.state_dict().items()}
    zero = torch.zeros(1)
    for name in state:
        if name.endswith("bias"):
            state[name] = zero.expand(state[name].shape)
    state["h.0.attn.bias"] = torch.ones(1).expand(1, 1, 10**6, 10**6)
    torch.save(state, folder / BIN)
    loaded = gpt2.load_model(folder)
    assert loaded.ln_f.bias.tolist() == [0] * 4
    loaded.ln_f.bias.detach()[0] = 1
    assert loaded.h[0].ln_1.bias.tolist() == [0] * 4


def test_the_output_may_be_the_embedding(folder: Path, model: GPT2) -> None:
    state = {n: t.clone() for n, t in model.state_dict().items()}
    state["lm_head.weight"] = state["wte.weight"]
    torch.save(state, folder / BIN)
    assert torch.equal(gpt2.load_model(folder).wte.weight, model.wte.weight)

"""Randomly damaged files, for fuzzing every reader of files.

Each function `damaged_...` writes a small checkpoint or tokenizer with random
damage to a folder, and says which file it damaged; `outcome` reads the folder
and checks the result. All random numbers come from the `rng` passed in, so a
seed reproduces a case.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from test_tensorflow_checkpoint import body, record, table

import gpt2
from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2.tokenizer.bpe import END_OF_TEXT, TokenizerError
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights.errors import CheckpointError
from gpt2.weights.layout import parameter_shapes
from gpt2.weights.sorted_table import read_table
from gpt2_book import DATA

SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
INDEX, TF_INDEX = f"{SAFETENSORS}.index.json", "model.ckpt.index"
TF_DATA = "model.ckpt.data-00000-of-00001"
TENSORFLOW = DATA / "tensorflow-tiny"
TEXT = "the cat sat on the mat, the other cat sat\n"
SIZES = {"n_vocab": 5, "n_ctx": 4, "n_embd": 4, "n_head": 2, "n_layer": 1}

Files = dict[str, bytes]


@dataclass(frozen=True)
class Case:
    """A folder with a damaged file."""

    source: Path
    """The folder to load."""
    what: str
    """The name of the damaged file."""
    covered: bool
    """Whether a checksum covers the change: then the file must be refused, or
    nothing that matters has changed."""


# --- undamaged files ---


@cache
def sound(kind: str) -> Files:
    """The files of a small checkpoint or tokenizer of one kind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "tensorflow":
            shutil.copytree(TENSORFLOW, folder, dirs_exist_ok=True)
        elif kind in ("tokenizer", "one file"):
            Tokenizer.train(TEXT, 270).save(folder)
            if kind == "one file":
                _in_one_file(folder)
            else:
                added = {"<pad>": 270, "<sep>": 271}
                (folder / "added_tokens.json").write_text(json.dumps(added))
        else:
            with torch.random.fork_rng():
                torch.manual_seed(5)
                model = GPT2(GPT2Config(**SIZES))
            gpt2.save(model, None, folder)
            _rewrite(folder, kind, model)
        return {p.name: p.read_bytes() for p in folder.iterdir()}


def _rewrite(folder: Path, kind: str, model: GPT2) -> None:
    """Write the tensors to files of another kind."""
    tensors = {name: t.clone() for name, t in model.state_dict().items()}
    if kind in ("zip", "old"):
        (folder / SAFETENSORS).unlink()
        new = kind == "zip"
        torch.save(tensors, folder / BIN, _use_new_zipfile_serialization=new)
    elif kind == "shards":
        from safetensors.torch import save_file

        (folder / SAFETENSORS).unlink()
        weight_map = {}
        for i in range(2):
            part = dict(list(tensors.items())[i::2])
            file = f"model-{i + 1:05d}-of-00002.safetensors"
            save_file(part, folder / file)
            weight_map |= dict.fromkeys(part, file)
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index))


def _in_one_file(folder: Path) -> None:
    ids = json.loads((folder / "vocab.json").read_text("utf-8"))
    lines = (folder / "merges.txt").read_text("utf-8").split("\n")[1:-1]
    end = ids.pop(END_OF_TEXT)
    whole = {
        "version": "1.0",
        "added_tokens": [{"id": end, "content": END_OF_TEXT}],
        "model": {"type": "BPE", "vocab": ids, "merges": lines},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()


# --- damage to bytes ---


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, copy, insert, remove or overwrite bytes at random."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        # Often near the beginning or the end, where headers are.
        place = rng.choice([rng.random(), rng.random() ** 4])
        at = int(rng.choice([place, 1 - place]) * len(data))
        size = rng.choice([1, 1, 2, 4, 8, 16])
        piece = data[at : at + size]
        match rng.choice(["flip", "cut", "copy", "insert", "lose", "set"]):
            case "flip" if piece:
                flipped = piece[0] ^ 1 << rng.randrange(8)
                data = data[:at] + bytes([flipped]) + data[at + 1 :]
            case "cut":
                data = data[:at]
            case "copy":
                to = rng.randrange(len(data) + 1)
                data = data[:to] + piece + data[to:]
            case "insert":
                data = data[:at] + rng.randbytes(size) + data[at:]
            case "lose":
                data = data[:at] + data[at + size :]
            case "set":
                odd = rng.choice([b"\0", b"\xff", b"\x7f", b"\x80", b"\1"])
                data = data[:at] + odd * len(piece) + data[at + size :]
    return data


# --- damage to JSON ---

# As text, since Python's json would not write all of them.
ODD = [
    *("null", "true", "false", "0", "-1", "1", "2.0", "0.5", "-0", "1e400"),
    *("NaN", "-Infinity", "1e-400", "2e0", str(2**31), str(2**63)),
    *(str(2**64), "1" + "0" * 30, "9" * 5000, "0." + "1" * 5000),
    *('""', '"0"', '"F32"', '"\\ud800"', '"\\u0000"', '"a b"', '"é"'),
    *("[]", "{}", "[[]]", "[0]", "[1, 2]", '["a", 1]', '{"a": 1}'),
    *("[" * 40 + "]" * 40, '"' + "a" * 5000 + '"', "[" + "1," * 99 + "1]"),
    *("[1000000000000000000, 1000000000000000000]", "[0, 0]", "[0, 8]"),
]


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """Change values, names or nesting at random; or only bytes."""
    if rng.random() < 0.2:
        return damaged_bytes(data, rng)
    value = json.loads(data)
    odd: list[str] = []
    for _ in range(rng.choice([1, 1, 2])):
        value = _changed(value, rng, odd)
    text = json.dumps(value)
    for i, raw in enumerate(odd):
        text = text.replace(f'"odd {i}."', raw)
    if rng.random() < 0.1 and text.startswith("{") and '"' in text:
        name = text[: text.index('"', 2) + 1].lstrip("{ ")
        text = f"{{{name}: {rng.choice(ODD)}, {text[1:]}"  # a name twice
    return text.encode()


def _changed(value: Any, rng: random.Random, odd: list[str]) -> Any:
    """Change one part of a value; odd values get a placeholder."""

    def strange() -> str:
        odd.append(rng.choice(ODD))
        return f"odd {len(odd) - 1}."

    if not isinstance(value, dict | list) or not value or rng.random() < 0.05:
        return strange()
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    copy = value.copy()
    if rng.random() < 0.6 and isinstance(value[key], dict | list):
        copy[key] = _changed(value[key], rng, odd)
        return copy
    match rng.choice(["odd", "odd", "lose", "swap", "rename", "near", "deep"]):
        case "lose":
            del copy[key]
        case "swap":
            other = rng.choice(keys)
            copy[key], copy[other] = value[other], value[key]
        case "rename" if isinstance(copy, dict):
            copy[rng.choice(["", "a", str(key) + "a"])] = copy.pop(key)
        case "near" if type(value[key]) is int:
            copy[key] += rng.choice([-8, -1, 1, 8, 1000])
        case "deep":
            copy[key] = [value[key]]
        case _:
            copy[key] = strange()
    return copy


# --- a file of each kind ---


def damaged_safetensors(rng: random.Random, folder: Path) -> Case:
    """A safetensors file whose header, length or data are damaged."""
    files = dict(sound("safetensors"))
    data = files[SAFETENSORS]
    end = 8 + int.from_bytes(data[:8], "little")
    if rng.random() < 0.4:
        return _put(folder, files, SAFETENSORS, damaged_bytes(data, rng))
    header = damaged_json(data[8:end], rng)
    length = len(header)
    if rng.random() < 0.1:
        length = rng.choice([0, length // 2, length + 1, 2**63, 2**64 - 1])
    changed = length.to_bytes(8, "little") + header + data[end:]
    return _put(folder, files, SAFETENSORS, changed)


def damaged_index(rng: random.Random, folder: Path) -> Case:
    """Several safetensors files with a damaged index."""
    files = dict(sound("shards"))
    return _put(folder, files, INDEX, damaged_json(files[INDEX], rng))


def damaged_config(rng: random.Random, folder: Path) -> Case:
    """A damaged `config.json`."""
    files, name = dict(sound("safetensors")), "config.json"
    return _put(folder, files, name, damaged_json(files[name], rng))


def damaged_pickle(rng: random.Random, folder: Path) -> Case:
    """One of PyTorch's files, of either format."""
    kind = rng.choice(["zip", "zip", "zip", "old"])
    files = dict(sound(kind))
    data = files[BIN]
    if kind == "old" or rng.random() < 0.4:
        changed = damaged_bytes(data, rng)
        return _put(folder, files, BIN, changed, covered=kind == "zip")
    # Damage its parts, with correct checksums.
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [[i.filename, archive.read(i)] for i in archive.infolist()]
    for _ in range(rng.choice([1, 1, 2])):
        part = rng.choice([parts[0], rng.choice(parts)])
        match rng.choice(["bytes", "bytes", "lose", "twice", "rename"]):
            case "lose" if len(parts) > 1:
                parts.remove(part)
            case "twice":
                parts.append([part[0], damaged_bytes(part[1], rng)])
            case "rename":
                part[0] = rng.choice(["a", "x/" + part[0], part[0] + "0"])
            case _:
                part[1] = damaged_bytes(part[1], rng)
    compressed = zipfile.ZIP_DEFLATED if rng.random() < 0.05 else 0
    stream = io.BytesIO()
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(stream, "w", compressed) as archive,
    ):
        warnings.filterwarnings("ignore", message="Duplicate name")
        for name, content in parts:
            if name not in archive.namelist() or rng.random() < 0.5:
                archive.writestr(zipfile.ZipInfo(name), content)
    return _put(folder, files, BIN, stream.getvalue())


def damaged_tensorflow(rng: random.Random, folder: Path) -> Case:
    """A TensorFlow checkpoint with a damaged index or data file."""
    files = dict(sound("tensorflow"))
    name = rng.choice([TF_INDEX, TF_DATA])
    if name == TF_DATA or rng.random() < 0.4:
        changed = damaged_bytes(files[name], rng)
        return _put(folder, files, name, changed, covered=True)
    # Damage its entries, with correct checksums of the index.
    entries = dict(read_table(files[TF_INDEX]))
    for _ in range(rng.choice([1, 1, 2])):
        key = rng.choice([b"", *entries])
        if key not in entries:
            continue
        match rng.choice(["bytes", "bytes", "lose", "rename", "swap"]):
            case "lose":
                del entries[key]
            case "rename":
                entries[damaged_bytes(key, rng)] = entries.pop(key)
            case "swap":
                other = rng.choice(list(entries))
                pair = entries[key], entries[other]
                entries[other], entries[key] = pair
            case _:
                entries[key] = damaged_bytes(entries[key], rng)
    records = [record(k, v) for k, v in sorted(entries.items())]
    return _put(folder, files, TF_INDEX, table(body(*records)))


def damaged_tokenizer(rng: random.Random, folder: Path) -> Case:
    """The files of a tokenizer, one of them damaged."""
    kind = rng.choice(["tokenizer", "tokenizer", "one file"])
    files = dict(sound(kind))
    name = rng.choice(sorted(files))
    data = files[name]
    if name.endswith(".json"):
        changed = damaged_json(data, rng)
    elif rng.random() < 0.3:
        changed = damaged_bytes(data, rng)
    else:
        lines = data.decode().split("\n")
        at = rng.randrange(len(lines))
        odd = ["", " ", "a", "a b", "a b c", "é 語", "#version: 0.2", "a\0 b"]
        match rng.choice(["odd", "lose", "swap", "twice", "returns", "mark"]):
            case "odd":
                lines.insert(at, rng.choice(odd))
            case "lose":
                del lines[at]
            case "swap":
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case "twice":
                lines.insert(at, lines[at])
            case "returns":
                lines = [f"{line}\r" for line in lines]
            case "mark":
                lines[0] = "\ufeff" + lines[0]
        changed = "\n".join(lines).encode()
    return _put(folder, files, name, changed)


def _put(
    folder: Path,
    files: Files,
    name: str,
    changed: bytes,
    covered: bool = False,
) -> Case:
    """Write the files, with one of them changed."""
    # New files, because an earlier case may still be mapped.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for other, content in (files | {name: changed}).items():
        (folder / other).write_bytes(content)
    return Case(folder, name, covered)


CHECKPOINTS: dict[str, Callable[[random.Random, Path], Case]] = {
    "safetensors": damaged_safetensors,
    "index": damaged_index,
    "config": damaged_config,
    "pickle": damaged_pickle,
    "tensorflow": damaged_tensorflow,
}
DAMAGED = CHECKPOINTS | {"tokenizer": damaged_tokenizer}
"""Every kind of file."""

# --- outcomes ---


def outcome(case: Case) -> str:
    """Read a damaged folder.

    Returns:
        `loaded`; or `refused`, by an error of the package, in one line, that
        names a file of the folder.

    Raises:
        Exception: Any other outcome.
    """
    tokens = case.what.startswith(("voc", "mer", "tok", "add"))
    try:
        if tokens:
            _check_tokenizer(Tokenizer.load(case.source))
        else:
            gpt2.inspect(case.source)
            _check_model(gpt2.load_model(case.source), case)
    except (CheckpointError, TokenizerError) as error:
        text = str(error)
        assert str(case.source) in text, text[:300]
        assert "\n" not in text, text[:300]
        assert len(text) < 1000, text[:300]
        return "refused"
    return "loaded"


def _check_model(model: GPT2, case: Case) -> None:
    state = model.state_dict()
    shapes = parameter_shapes(model.config)
    assert {name: tuple(t.shape) for name, t in state.items()} == shapes
    assert all(tensor.isfinite().all() for tensor in state.values())
    if case.covered:
        kind = "tensorflow" if case.what in (TF_INDEX, TF_DATA) else "zip"
        expected = sound_state(kind)
        assert state.keys() == expected.keys()
        for name, tensor in state.items():
            assert torch.equal(tensor, expected[name]), name


@cache
def sound_state(kind: str) -> dict[str, torch.Tensor]:
    """The tensors of an undamaged checkpoint."""
    with tempfile.TemporaryDirectory() as name:
        for file, content in sound(kind).items():
            (Path(name) / file).write_bytes(content)
        state = gpt2.load_model(name).state_dict()
        return {key: tensor.clone() for key, tensor in state.items()}


def _check_tokenizer(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.merges) == sum(len(t) > 1 for t in tokenizer.ranks)
    if any(bytes([byte]) not in tokenizer.ranks for byte in TEXT.encode()):
        with pytest.raises(TokenizerError, match="no token for the byte"):
            tokenizer.encode(TEXT)
        return
    ids = tokenizer.encode(TEXT)
    assert ids == tokenizer.encode_slowly(TEXT)
    space = " " if tokenizer.settings.add_prefix_space else ""
    assert tokenizer.decode(ids) == space + TEXT
    assert max(ids) < tokenizer.n_vocab

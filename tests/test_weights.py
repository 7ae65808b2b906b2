"""Checkpoints in files: reading, refusing, loading and saving.

`transformers` writes most of the files that are read here, and reads those
that are written. What it would not write, such as damaged headers, is made
here.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from fuzzing import CHECKPOINTS, outcome
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel
from transformers import GPT2Config as TheirConfig

import gpt2
from gpt2.config import PRESETS, GPT2Config
from gpt2.inference.kernels import Precision, is_compiled
from gpt2.model import GPT2
from gpt2.tokenizer.tokenizer import Tokenizer, TokenizerError
from gpt2.weights import loading
from gpt2.weights.errors import CheckpointError
from gpt2.weights.formats import find_weights, open_weights
from gpt2.weights.layout import (
    TensorInfo,
    guess_config,
    our_name,
    parameter_shapes,
)
from gpt2.weights.safetensors_header import read_safetensors_header
from gpt2.weights.tensorflow import read_tensors
from gpt2_book import DATA

TENSORFLOW = DATA / "tensorflow-tiny"
TINY = {
    "vocab_size": 17,
    "n_positions": 16,
    "n_embd": 12,
    "n_head": 3,
    "n_layer": 2,
    "bos_token_id": 16,
    "eos_token_id": 16,
}
N_TENSORS = 28  # 4 outside the layers, 12 in each
PROJECT = Path(gpt2.__file__).parent.parent
SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
SAFETENSORS_INDEX, BIN_INDEX = f"{SAFETENSORS}.index.json", f"{BIN}.index.json"

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(),
    reason="needs /proc/self/status, where Linux tells a process its memory",
)
full_size = pytest.mark.xdist_group("full_size")

posix = pytest.mark.skipif(
    os.name == "nt", reason="links and open files are different there"
)


@pytest.fixture(scope="module")
def theirs() -> GPT2LMHeadModel:
    """A tiny model of transformers in which every parameter matters."""
    torch.manual_seed(1)
    model = GPT2LMHeadModel(TheirConfig(**TINY)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def written(
    theirs: GPT2LMHeadModel, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder that transformers wrote; tests copy it before changing it."""
    folder = tmp_path_factory.mktemp("written")
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A checkpoint for a test to change."""
    return Path(shutil.copytree(written, tmp_path / "checkpoint"))


@pytest.fixture
def state(theirs: GPT2LMHeadModel) -> dict[str, Tensor]:
    """The tensors of that model under our names."""
    return dict(theirs.transformer.state_dict())


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a model is built before the file is refused."""

    def refuse(config: GPT2Config) -> GPT2:
        raise AssertionError("a model was built before all checks")

    monkeypatch.setattr("gpt2.model.GPT2", refuse)


def logits(model: GPT2) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(16).reshape(2, 8))


def their_logits(model: GPT2LMHeadModel) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(16).reshape(2, 8)).logits


def close(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    assert expected.std() > 0.1  # something to be equal to
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def run_python(code: str, *arguments: object) -> str:
    """Run code in a new process, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def short(value: object) -> str:
    """Return a short name of a test case."""
    return repr(value)[:40]


# --- files made by hand ---


def pack(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    return struct.pack("<Q", len(header) if length is None else length) + (
        header + data
    )


def packed(
    tensors: dict[str, Tensor], n_spaces: int = 0, **changes: Any
) -> bytes:
    """A safetensors file; `changes` replaces entries of the header."""
    names = {torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        piece = tensor.contiguous().numpy().tobytes()
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(piece)],
        }
        data += piece
    return pack(json.dumps(header | changes).encode() + b" " * n_spaces, data)


def entry(
    dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def put(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """Replace the tensors in a folder's only file of weights."""
    path = folder / SAFETENSORS
    path.unlink(missing_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)
    return path


def put_bin(
    folder: Path, loaded: Any, name: str = BIN, **options: Any
) -> Path:
    """Replace a folder's safetensors by one of PyTorch's files."""
    (folder / SAFETENSORS).unlink(missing_ok=True)
    torch.save(loaded, folder / name, **options)
    return folder / name


def put_shards(folder: Path, tensors: dict[str, Tensor], name: str) -> Path:
    """Replace a folder's safetensors by three files and an index."""
    (folder / SAFETENSORS).unlink(missing_ok=True)
    stem, _, ending = name.partition(".")
    weight_map = {}
    for i in range(3):
        file = f"{stem}-{i + 1:05d}-of-00003.{ending}"
        part = dict(list(tensors.items())[i::3])
        weight_map |= dict.fromkeys(part, file)
        if ending == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file)
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


# --- every kind of file ---


def with_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"transformer.{name}": t for name, t in tensors.items()}


def with_buffers(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """With the buffers that older versions of transformers saved."""
    found = {prefix + name: tensor for name, tensor in tensors.items()}
    for i in range(2):
        attention = f"{prefix}h.{i}.attn"
        mask = torch.ones(16, 16, dtype=torch.uint8).tril()[None, None]
        found[f"{attention}.bias"] = mask
        found[f"{attention}.masked_bias"] = torch.tensor(-1e4)
    return found | {"lm_head.weight": tensors["wte.weight"].clone()}


WRITERS: dict[str, Callable[[Path, dict[str, Tensor]], object]] = {
    "safetensors": put,
    "safetensors with the prefix": lambda f, t: put(f, with_prefix(t)),
    "safetensors with buffers": lambda f, t: put(f, with_buffers(t, "")),
    "safetensors with prefix and buffers": (
        lambda f, t: put(f, with_buffers(t, "transformer."))
    ),
    "sharded safetensors": lambda f, t: put_shards(f, t, SAFETENSORS),
    "PyTorch": put_bin,
    "PyTorch with prefix and buffers": (
        lambda f, t: put_bin(f, with_buffers(t, "transformer."))
    ),
    "PyTorch's old format": (
        lambda f, t: put_bin(f, t, _use_new_zipfile_serialization=False)
    ),
    "PyTorch's old format with prefix": (
        lambda f, t: put_bin(
            f, with_prefix(t), _use_new_zipfile_serialization=False
        )
    ),
    "PyTorch with parameters": (
        lambda f, t: put_bin(
            f, {name: torch.nn.Parameter(x) for name, x in t.items()}
        )
    ),
    "sharded PyTorch": lambda f, t: put_shards(f, with_prefix(t), BIN),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_reads_every_kind(
    folder: Path,
    theirs: GPT2LMHeadModel,
    state: dict[str, Tensor],
    write: Callable[[Path, dict[str, Tensor]], object],
) -> None:
    write(folder, state)
    model = gpt2.load_model(folder)
    close(logits(model), their_logits(theirs))
    assert not model.training
    # The same by the file's path, and what `inspect` says of it.
    path = find_weights(folder)
    assert path is not None
    assert torch.equal(logits(gpt2.load_model(str(path))), logits(model))
    found = gpt2.inspect(path)
    assert found.file == str(path)
    assert found.config == model.config
    assert list(found.names) == list(model.state_dict())
    for ours, parameter in model.named_parameters():
        info = found.infos[found.names[ours]]
        assert info.shape == parameter.shape
        assert (info.dtype, info.n_bytes) == ("F32", 4 * parameter.numel())
        assert parameter.is_leaf and parameter.requires_grad


def test_reads_what_they_write_in_shards(
    theirs: GPT2LMHeadModel, tmp_path: Path
) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    close(logits(gpt2.load_model(tmp_path)), their_logits(theirs))
    found = gpt2.inspect(tmp_path)
    assert {info.file for info in found.infos.values()} == {
        path.name for path in tmp_path.glob("*.safetensors")
    }


def test_says_which_format(folder: Path, state: dict[str, Tensor]) -> None:
    formats = [gpt2.inspect(folder).format]
    put_bin(folder, state)
    formats.append(gpt2.inspect(folder).format)
    formats.append(gpt2.inspect(TENSORFLOW).format)
    assert formats == ["safetensors", "PyTorch", "TensorFlow"]


def test_safetensors_come_first(folder: Path, tmp_path: Path) -> None:
    """Of several formats, the one that cannot run code is preferred."""
    order = [BIN_INDEX, BIN, SAFETENSORS_INDEX, SAFETENSORS]
    place = tmp_path / "all"
    place.mkdir()
    assert find_weights(place) is None
    for name in order:
        (place / name).touch()
        assert find_weights(place) == place / name or name == BIN_INDEX
    shutil.copytree(TENSORFLOW, place, dirs_exist_ok=True)
    assert find_weights(place) == place / SAFETENSORS
    for name in order:
        (place / name).unlink()
    assert find_weights(place) == place / "model.ckpt.index"


# --- OpenAI's own folders ---


@pytest.mark.parametrize(
    "source", ["", "/model.ckpt.index", "/model.ckpt"], ids=repr
)
@pytest.mark.parametrize("relative", [False, True], ids=["whole", "relative"])
def test_reads_openais_folder(
    monkeypatch: pytest.MonkeyPatch, source: str, relative: bool
) -> None:
    """A relative prefix, `tensorflow-tiny/model.ckpt`, is not a hub id."""
    monkeypatch.chdir(TENSORFLOW.parent)
    name = f"{TENSORFLOW.name if relative else TENSORFLOW}{source}"
    model = gpt2.load_model(name)
    values = read_tensors(TENSORFLOW / "model.ckpt.index")
    assert len(model.state_dict()) == len(values) == N_TENSORS
    for variable, value in values.items():
        parameter = model.get_parameter(our_name(variable) or "")
        assert torch.equal(parameter, value.reshape(parameter.shape))
    found = gpt2.inspect(name)
    assert Path(found.file).name == "model.ckpt.index"
    assert found.config == model.config
    assert found.names["h.1.mlp.c_fc.weight"] == "model/h1/mlp/c_fc/w"
    assert found.infos["model/h1/mlp/c_fc/w"].shape == (12, 48)


def test_openais_tensors_mean_the_same(
    theirs: GPT2LMHeadModel, tmp_path: Path
) -> None:
    """With OpenAI's tensors, transformers' model and ours agree."""
    model = gpt2.load_model(TENSORFLOW)
    gpt2.save(model, None, tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    tokens = torch.arange(16).reshape(2, 8)
    with torch.no_grad():
        close(model(tokens), again(tokens).logits)


# --- dtypes ---


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", None])
def test_dtypes(
    folder: Path, state: dict[str, Tensor], stored: str, dtype: str | None
) -> None:
    in_file: torch.dtype = getattr(torch, stored)
    put(folder, {name: t.to(in_file) for name, t in state.items()})
    model = gpt2.load_model(folder, dtype=dtype)
    expected: torch.dtype = getattr(torch, dtype or stored)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == expected
        assert torch.equal(parameter, state[name].to(in_file).to(expected))
    assert logits(model).isfinite().all()


def test_dtypes_of_torch_and_wrong_ones(folder: Path) -> None:
    assert gpt2.load_model(folder, torch.bfloat16).wte.weight.dtype == (
        torch.bfloat16
    )
    for wrong in ("float64", torch.int16, "half a float"):
        with pytest.raises(ValueError, match=r"float32, bfloat16, float16"):
            gpt2.load_model(folder, wrong)


@pytest.mark.parametrize("dtype", ["int8", torch.int8, "int4"])
@pytest.mark.parametrize("read", [gpt2.load, gpt2.load_model])
def test_int8_says_what_to_call(
    read: Callable[..., object], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is located or fetched."""
    monkeypatch.delattr("gpt2.weights.loading.locate")
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=name) as caught:
        read("gpt2", dtype=dtype)
    assert f'gpt2.for_inference(model, "{name}")' in str(caught.value)


# --- memory ---


@pytest.mark.parametrize("n_spaces", range(8))
def test_unaligned_data(
    folder: Path,
    theirs: GPT2LMHeadModel,
    state: dict[str, Tensor],
    n_spaces: int,
) -> None:
    """The official file's header has 14,283 bytes, an odd number.

    The data follow a header of any length, aligned or not.
    """
    path = folder / SAFETENSORS
    path.unlink()
    path.write_bytes(packed(state, n_spaces))
    close(logits(gpt2.load_model(folder)), their_logits(theirs))


@pytest.mark.parametrize("kind", ["safetensors", "PyTorch", "sharded PyTorch"])
def test_changing_the_model_leaves_the_file_alone(
    folder: Path, state: dict[str, Tensor], kind: str
) -> None:
    WRITERS[kind](folder, state)
    files = {path: path.read_bytes() for path in folder.iterdir()}
    model = gpt2.load_model(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
    assert {path: path.read_bytes() for path in folder.iterdir()} == files
    assert not (gpt2.load_model(folder).wte.weight == 7).any()


@needs_proc
@pytest.mark.parametrize(
    "kind", ["safetensors", "sharded safetensors", "PyTorch", "TensorFlow"]
)
def test_parameters_are_in_the_mapped_file(
    folder: Path, state: dict[str, Tensor], kind: str
) -> None:
    """The address of every parameter is in the map of a file."""
    if kind == "TensorFlow":
        folder = TENSORFLOW
    else:
        WRITERS[kind](folder, state)
    model = gpt2.load_model(folder)
    maps = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, *_, name = line.split()
        if name.startswith(str(folder.resolve())):
            begin, end = (int(number, 16) for number in addresses.split("-"))
            maps.append(range(begin, end))
    for name, parameter in model.named_parameters():
        assert any(parameter.data_ptr() in part for part in maps), name


@pytest.mark.parametrize(
    "kind", ["safetensors", "sharded safetensors", "PyTorch", "TensorFlow"]
)
def test_what_is_released_is_not_lost(
    folder: Path, state: dict[str, Tensor], kind: str
) -> None:
    """Whether a tensor is mapped from the file, or a copy of its numbers."""
    if kind == "TensorFlow":
        folder = TENSORFLOW
    else:
        large = torch.randn(60, 50)  # more than a page
        more = {"large": large.T if kind == "PyTorch" else large}
        WRITERS[kind](folder, state | more)
    path = find_weights(folder)
    assert path is not None
    weights = open_weights(path)
    for name in weights.infos:
        tensor = weights.read(name)
        before = tensor.clone()
        weights.release(name)
        assert torch.equal(tensor, before)
        assert torch.equal(weights.read(name), before)


@full_size
def test_full_size_logits(full_size_checkpoint: Path) -> None:
    """Half a gigabyte, with the logits of transformers' model."""
    model = gpt2.load_model(full_size_checkpoint)
    assert len(model.state_dict()) == 148
    assert model.num_parameters() == 124_439_808
    theirs = GPT2LMHeadModel.from_pretrained(full_size_checkpoint).eval()
    tokens = torch.randint(50257, (1, 20))
    with torch.no_grad():
        close(model(tokens), theirs(tokens).logits, atol=1e-4)


MEMORY = """
import sys
from pathlib import Path
import torch
from gpt2.weights.loading import load_model

def megabytes(kind):
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(kind + ":") + 1]) / 1024

load_model(sys.argv[1])
before, addresses = megabytes("RssAnon"), megabytes("VmSize")
model = load_model(sys.argv[2])
loaded, more_addresses = megabytes("RssAnon"), megabytes("VmSize")
copy = model.wte.weight.clone()
print(loaded - before, megabytes("RssAnon") - loaded)
print(more_addresses - addresses)
"""


@needs_proc
@full_size
def test_loading_makes_no_copy(
    full_size_checkpoint: Path, written: Path
) -> None:
    """A copy of a third of the weights would show."""
    output = run_python(MEMORY, written, full_size_checkpoint)
    for_loading, for_a_copy, addresses = map(float, output.split())
    assert for_loading < 30
    assert for_a_copy > 140
    assert addresses < 1000  # the file is mapped once, not for each tensor


HELD = """
import sys
from pathlib import Path
import torch
from gpt2.inference.packed import for_inference
from gpt2.weights.loading import load_model

def megabytes(kind):
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(kind + ":") + 1]) / 1024

small, large, dtype, precision = sys.argv[1:]
def run(folder):
    model = load_model(folder, dtype)
    if precision:
        model = for_inference(model, precision, consume=True)
    model(torch.zeros(1, 4, dtype=torch.long), last_only=True)
    return model

run(small)
before = megabytes("VmRSS")
model = run(large)
print(megabytes("VmRSS") - before, megabytes("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """103 MB of token embeddings, and a layer of 13 MB."""
    config = GPT2Config(50257, 64, 512, n_head=8, n_layer=1)
    folder = tmp_path_factory.mktemp("large")
    gpt2.save(GPT2(config), None, folder)
    return folder


@needs_proc
@pytest.mark.parametrize("kind", ["safetensors", "PyTorch"])
@pytest.mark.parametrize(
    ("dtype", "precision", "weights"),
    [
        ("float32", "", 111),
        ("bfloat16", "", 56),
        ("float32", "float32", 111),
        ("float32", "bfloat16", 56),
        ("float32", "int8", 28),
        ("float32", "int4", 16),
    ],
)
def test_weights_are_never_held_twice(
    large: Path,
    written: Path,
    tmp_path: Path,
    kind: str,
    dtype: str,
    precision: str,
    weights: int,
) -> None:
    """In MiB: neither while they are read, nor while they are packed."""
    if precision and not is_compiled(cast(Precision, precision)):
        pytest.skip("there is no compiler")
    if kind == "PyTorch":
        large = Path(shutil.copytree(large, tmp_path / "large"))
        put_bin(large, load_file(large / SAFETENSORS))
    held, peak = map(
        float, run_python(HELD, written, large, dtype, precision).split()
    )
    assert weights - 5 < held < weights + 20
    # Of the file, at most the whole embedding is in memory with its copy.
    least = 98 + 49 if dtype == "bfloat16" else held
    if precision == "bfloat16":  # whose mean is computed first
        least = max(held, 98 + 15)
    assert peak < least + 45


# --- inspecting before loading ---

INSPECT = """
import sys
from pathlib import Path
from gpt2.weights.safetensors_header import read_safetensors_header
from gpt2.weights.inspecting import inspect

found = inspect(sys.argv[1])
assert len(found.names) == 28, found.names
header = read_safetensors_header(Path(sys.argv[1], "model.safetensors"))
assert found.infos == header
large = {"torch", "numpy", "safetensors", "transformers", "huggingface_hub"}
assert not large & set(sys.modules), large & set(sys.modules)
"""


def test_inspecting_needs_neither_torch_nor_the_data(folder: Path) -> None:
    """Nor does it read the data, which are a hole in a sparse file here."""
    path = folder / SAFETENSORS
    before = read_safetensors_header(path)
    contents = path.read_bytes()
    end = 8 + int.from_bytes(contents[:8], "little")
    with path.open("r+b") as file:
        file.truncate(end)
        file.truncate(len(contents))
    assert read_safetensors_header(path) == before
    run_python(INSPECT, folder)


def test_inspecting_refuses_what_does_not_fit(folder: Path) -> None:
    """Names and shapes are checked as when loading."""
    change_config(folder, n_embd=24)
    with pytest.raises(CheckpointError, match=r"needs \[17, 24\]"):
        gpt2.inspect(folder)


# --- what is refused ---


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    changed = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(changed))


def but(tensors: dict[str, Tensor], **changes: Any) -> dict[str, Tensor]:
    """Replace tensors, whose names have __ for the dots; None removes one."""
    changed = dict(tensors)
    for key, value in changes.items():
        name = key.replace("__", ".")
        changed[name] = value
        if value is None:
            del changed[name]
    return changed


WRONG_TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": (
        {"h__1__ln_2__bias": None},
        r"lacks tensor 'h\.1\.ln_2\.bias'$",
    ),
    "several missing": (
        {
            "h__0__ln_1__bias": None,
            "h__0__ln_2__bias": None,
            "h__1__ln_1__bias": None,
            "h__1__ln_2__bias": None,
            "ln_f__bias": None,
        },
        r"lacks tensors 'h\.0\.ln_1\.bias', .*, .* and 2 more",
    ),
    "unexpected": (
        {"h__2__ln_1__bias": torch.ones(12)},
        r"has unexpected tensor 'h\.2\.ln_1\.bias'",
    ),
    "of an adapter": (
        {"h__0__attn__c_attn__lora_A": torch.ones(12, 2)},
        r"is an adapter, with 'h\.0\.attn\.c_attn\.lora_A': merge it",
    ),
    "of a head for something else": (
        {"score__weight": torch.ones(2, 12)},
        r"is a GPT2ForSequenceClassification .* 'score\.weight'",
    ),
    "transposed": (
        {"h__0__attn__c_attn__weight": torch.ones(36, 12)},
        r"'h\.0\.attn\.c_attn\.weight' has shape \[36, 12\].*\[12, 36\]",
    ),
    "of one axis more": (
        {"ln_f__weight": torch.ones(1, 12)},
        r"'ln_f\.weight' has shape \[1, 12\], and the model needs \[12\]",
    ),
    "of whole numbers": (
        {"ln_f__weight": torch.ones(12, dtype=torch.int64)},
        r"'ln_f\.weight' has dtype I64; .*F32, F16, BF16",
    ),
    "of double precision": (
        {"ln_f__weight": torch.ones(12, dtype=torch.float64)},
        r"'ln_f\.weight' has dtype F64; .*F32, F16, BF16",
    ),
    "twice": (
        {"transformer__ln_f__bias": torch.ones(12)},
        r"'ln_f\.bias' and 'transformer\.ln_f\.bias' are the same tensor",
    ),
    "an output of its own": (
        {"lm_head__weight": torch.ones(17, 12)},
        r"'lm_head\.weight' differs from 'wte\.weight'",
    ),
    "a misshapen output": (
        {"lm_head__weight": torch.ones(12, 17)},
        r"'lm_head\.weight' has shape \[12, 17\]",
    ),
    "not a number": (
        {"ln_f__bias": torch.tensor([0.0] * 11 + [torch.nan])},
        r"'ln_f\.bias' holds numbers that are not finite",
    ),
    "infinite": (
        {
            "wpe__weight": torch.ones(16, 12).index_fill(
                0, torch.tensor(5), torch.inf
            )
        },
        r"'wpe\.weight' holds numbers that are not finite",
    ),
    "minus infinite, in half precision": (
        {"ln_f__bias": torch.full((12,), -torch.inf, dtype=torch.bfloat16)},
        r"'ln_f\.bias' holds numbers that are not finite",
    ),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    "write", [put, put_bin], ids=["safetensors", "PyTorch"]
)
@pytest.mark.parametrize(
    ("changes", "message"), WRONG_TENSORS.values(), ids=WRONG_TENSORS.keys()
)
def test_wrong_tensors(
    folder: Path,
    state: dict[str, Tensor],
    write: Callable[[Path, dict[str, Tensor]], Path],
    changes: dict[str, Any],
    message: str,
) -> None:
    path = write(folder, but(state, **changes))
    with pytest.raises(CheckpointError, match=message) as caught:
        gpt2.load_model(folder)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sum_that_overflows_is_no_damage(
    folder: Path, state: dict[str, Tensor]
) -> None:
    largest = torch.full((17, 12), torch.finfo(torch.float32).max)
    put(folder, but(state, wte__weight=largest))
    assert torch.equal(gpt2.load_model(folder).wte.weight, largest)


@pytest.mark.parametrize("at", [0, 49, 50, 101, 203])
@pytest.mark.parametrize("write", [put, put_bin])
def test_every_piece_of_a_tensor_is_checked(
    folder: Path,
    state: dict[str, Tensor],
    write: Callable[[Path, dict[str, Tensor]], Path],
    at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "_PIECE", 50)
    wrong = state["wte.weight"].clone()
    write(folder, but(state, wte__weight=wrong))
    assert torch.equal(gpt2.load_model(folder).wte.weight, wrong)
    for number in (torch.nan, torch.inf, -torch.inf):
        wrong.view(-1)[at] = number
        write(folder, but(state, wte__weight=wrong))
        with pytest.raises(CheckpointError, match=r"'wte\.weight' holds num"):
            gpt2.load_model(folder)
    other = state["wte.weight"].clone()
    other.view(-1)[at] += 1
    write(folder, but(state, lm_head__weight=other))
    with pytest.raises(CheckpointError, match=r"'lm_head\.weight' differs"):
        gpt2.load_model(folder)


WRONG_FILES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "its first 8 bytes say"),
    "7 bytes": (bytes(7), "its first 8 bytes say"),
    "no header": (bytes(8), "cannot be read: Expecting value"),
    "an empty header": (pack(b"{}"), "holds no tensors"),
    "a page of HTML": (b"<!doctype html><html>", "its first 8 bytes say"),
    "an absurd length": (pack(b"{}", length=2**64 - 1), "of 18,446,744,073"),
    "a length beyond the end": (
        pack(b"{}", length=3),
        "header of 3 bytes follows, and the file has 10 bytes",
    ),
    "no JSON": (pack(b"{]"), "cannot be read: Expecting property name"),
    "no text": (pack(b'{"\xff": 1}'), "cannot be read: 'utf-8' codec"),
    "a list": (pack(b"[]"), "header is not a JSON object"),
    "deep nesting": (pack(b"[" * 200_000), "nested more than 32 deep"),
    "deep enough nesting": (
        pack(b"[" * 33 + b"1" + b"]" * 33),
        "nested more than 32 deep",
    ),
    "a number of many digits": (
        pack(b'{"wte.weight": ' + b"9" * 5000 + b"}"),
        "a whole number has 5,000 digits, more than 40",
    ),
    "not a number": (pack(b'{"wte.weight": NaN}'), "NaN is not a number"),
    "a name twice in an entry": (
        pack(b'{"wte.weight": {"dtype": "F32", "dtype": "F16"}}'),
        "the name 'dtype' appears twice",
    ),
    "metadata of numbers": (
        pack(b'{"__metadata__": {"step": 1}}'),
        "field '__metadata__' must be an object of strings",
    ),
    "a list of metadata": (
        pack(b'{"__metadata__": ["pt"]}'),
        "field '__metadata__' must be an object of strings",
    ),
    "a name twice": (
        pack(b'{"wte.weight": {}, "wpe.weight": {}, "wte.weight": {}}'),
        "the name 'wte.weight' appears twice",
    ),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("contents", "message"), WRONG_FILES.values(), ids=WRONG_FILES.keys()
)
def test_not_a_safetensors_file(
    folder: Path, contents: bytes, message: str
) -> None:
    (folder / SAFETENSORS).write_bytes(contents)
    for read in (gpt2.load_model, gpt2.inspect):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(folder)
        assert str(folder / SAFETENSORS) in str(caught.value)


WRONG_ENTRIES: dict[str, tuple[Any, str]] = {
    "a number": (5, "has the entry 5, without a valid"),
    "a text": ("F32", "without a valid"),
    "nothing": (None, "has the entry None"),
    "no shape": ({"dtype": "F32", "data_offsets": [0, 8]}, "valid dtype, sh"),
    "a shape of text": (entry(shape="2"), "without a valid"),
    "a negative shape": (entry(shape=[-1, -2]), "without a valid"),
    "a broken shape": (entry(shape=[2.0]), "without a valid"),
    "a shape of truths": (entry(shape=[True, 2]), "without a valid"),
    "three offsets": (entry(offsets=[0, 4, 8]), "without a valid"),
    "offsets of text": (entry(offsets="08"), "without a valid"),
    "a negative offset": (entry(offsets=[-8, 0]), "without a valid"),
    "a dtype in a list": (entry(dtype=["F32"]), "without a valid"),
    "offsets the wrong way": (entry(offsets=[8, 0]), "takes 8 bytes.*-8"),
    "too few bytes": (entry(offsets=[0, 7]), r"F32 \[2\], takes 8 bytes.*7"),
    "another dtype's bytes": (entry(dtype="BF16"), "takes 4 bytes.*8"),
    "a dtype nobody knows": (
        entry(dtype="F33"),
        "has dtype F33; expected one of.* F32",
    ),
    "a huge shape": (entry(shape=[2**62, 2**62]), "takes 85,07"),
    "a size of thousands of digits": (
        entry(shape=[int("9" * 4000)]),
        "cannot be read: a whole number has 4,000 digits, more than 40",
    ),
    "a product of thousands of digits": (
        entry(shape=[10**39] * 200),
        "of at most 8 dimensions",
    ),
    "an offset beyond the end": (
        entry(offsets=[8, 16]),
        "at bytes 8 to 16 of the data, which has only 8",
    ),
    "a huge offset": (
        entry(offsets=[2**63, 2**63 + 8]),
        "download may be incomplete",
    ),
    "a dtype in lower case": (
        entry(dtype="f32"),
        "has dtype f32; expected one",
    ),
    "an entry in a list": (["F32", [2], [0, 8]], "without a valid"),
    "a whole number that is a float": (entry(shape=[2.0]), "without a val"),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("wrong", "message"), WRONG_ENTRIES.values(), ids=WRONG_ENTRIES.keys()
)
def test_wrong_entries_of_the_header(
    folder: Path, wrong: Any, message: str
) -> None:
    header = json.dumps({"ln_f.bias": wrong}).encode()
    (folder / SAFETENSORS).write_bytes(pack(header, bytes(8)))
    with pytest.raises(CheckpointError, match=message) as caught:
        gpt2.inspect(folder)
    assert f"{folder / SAFETENSORS}" in str(caught.value)
    if "cannot be read" not in message:
        assert ": tensor 'ln_f.bias'" in str(caught.value)
    with pytest.raises(CheckpointError, match=message):
        gpt2.load_model(folder)


@pytest.mark.usefixtures("no_model")
def test_tensors_that_overlap_or_leave_a_hole(
    folder: Path, state: dict[str, Tensor]
) -> None:
    """Every byte of the data belongs to exactly one tensor.

    The package refuses such files before calling the library, which refuses
    them, too.
    """
    path = folder / SAFETENSORS
    size = state["wte.weight"].nbytes
    for begin in (4, size + 4):  # overlaps wte; leaves a gap
        place = entry(shape=[16, 12], offsets=[begin, begin + 16 * 12 * 4])
        path.write_bytes(packed(state, **{"wpe.weight": place}) + bytes(8))
        for read in (gpt2.load_model, gpt2.inspect):
            with pytest.raises(CheckpointError, match="begins at") as caught:
                read(folder)
            assert str(path) in str(caught.value)
        with pytest.raises(SafetensorError, match="invalid offset"):
            load_file(path)
    path.write_bytes(packed(state) + b"more")
    for read in (gpt2.load_model, gpt2.inspect):
        with pytest.raises(CheckpointError, match="4 bytes of the data bel"):
            read(folder)
    with pytest.raises(SafetensorError, match="not fully covered"):
        load_file(path)


# Headers for two tensors of 8 bytes each, and whether they are valid.
AGREED: dict[str, tuple[dict[str, Any], bool]] = {
    "as it should be": ({}, True),
    "one more field": ({"a": {**entry(), "more": 1}}, True),
    "metadata": ({"__metadata__": {"format": "pt"}}, True),
    "no metadata": ({"__metadata__": None}, True),
    "metadata of numbers": ({"__metadata__": {"step": 1}}, False),
    "an empty tensor between": (
        {"c": entry(shape=[0, 7], offsets=[8, 8])},
        True,
    ),
    "an empty tensor within another": (
        {"c": entry(shape=[0, 7], offsets=[9, 9])},
        False,
    ),
    "a single number": (
        {"b": entry("F64", [], [8, 16])},
        True,
    ),
    "a name that is empty": ({"": entry(shape=[0], offsets=[0, 0])}, True),
    "one number fewer": ({"b": entry(shape=[1], offsets=[8, 12])}, False),
    "the second first": (
        {"a": entry(offsets=[8, 16]), "b": entry(offsets=[0, 8])},
        True,
    ),
    "both the same": ({"b": entry()}, False),
    "a hole between": ({"b": entry(shape=[1], offsets=[12, 16])}, False),
    "a truth as a size": ({"a": entry(shape=[True, 2])}, False),
    "a size with a fraction": ({"a": entry(shape=[2.0])}, False),
    "a size below 0": ({"a": entry(shape=[-2])}, False),
    "a product beyond 64 bits": ({"a": entry(shape=[2**62, 2**62])}, False),
}


@pytest.mark.parametrize(
    ("changes", "fine"), AGREED.values(), ids=AGREED.keys()
)
def test_agrees_with_the_library(
    tmp_path: Path, changes: dict[str, Any], fine: bool
) -> None:
    path = tmp_path / SAFETENSORS
    header = {"a": entry(), "b": entry(offsets=[8, 16]), **changes}
    path.write_bytes(pack(json.dumps(header).encode(), bytes(16)))
    if fine:
        assert set(read_safetensors_header(path)) == set(load_file(path))
        return
    with pytest.raises(CheckpointError, match=SAFETENSORS):
        read_safetensors_header(path)
    with pytest.raises(SafetensorError):
        load_file(path)


@pytest.mark.usefixtures("no_model")
def test_cut_off(folder: Path) -> None:
    """An incomplete download, of any length."""
    path = folder / SAFETENSORS
    contents = path.read_bytes()
    for length in {*range(0, len(contents), 997), len(contents) - 1}:
        path.unlink()
        path.write_bytes(contents[:length])
        with pytest.raises(CheckpointError) as caught:
            gpt2.inspect(folder)
        assert str(path) in str(caught.value)
        with pytest.raises(CheckpointError):
            gpt2.load_model(folder)


# --- pickles ---


class Trap:
    """Unpickling it creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("kind", ["new", "old", "plain"])
def test_code_in_a_pickle_does_not_run(
    folder: Path, state: dict[str, Tensor], tmp_path: Path, kind: str
) -> None:
    mark = tmp_path / "sprung"
    trap: dict[str, Any] = {**state, "ln_f.bias": Trap(mark)}
    path = put_bin(folder, trap, _use_new_zipfile_serialization=kind == "new")
    if kind == "plain":
        path.write_bytes(pickle.dumps(Trap(mark), protocol=2))
    for read in (gpt2.load_model, gpt2.inspect):
        with pytest.raises(CheckpointError) as caught:
            read(folder)
        assert str(path) in str(caught.value)
        assert not mark.exists()
    assert "could run code" in str(caught.value)
    assert f"'{os.mkdir.__module__}.mkdir'" in str(caught.value)
    if kind != "plain":
        torch.load(path, weights_only=False)  # the trap works
        assert mark.is_dir()


WRONG_PICKLES: dict[str, tuple[Any, str]] = {
    "a list": ([torch.ones(2)], "holds a list; expected a dictionary"),
    "a tensor": (torch.ones(2), "holds a Tensor; expected a dictionary"),
    "a number for a name": (
        {1: torch.ones(2)},
        "a dictionary with a key of type int",
    ),
    "a training's state": (
        {"model": {"wte.weight": torch.ones(2)}, "step": 3},
        "has 1 tensors, too few for 2 layers",
    ),
    "a sparse tensor": (
        {"wte.weight": torch.eye(3).to_sparse()},
        r"names 'torch\._utils\._rebuild_sparse_tensor', and unpickling",
    ),
    "a tensor without data": (
        {"wte.weight": torch.ones(3, device="meta")},
        r"names 'torch\._utils\._rebuild_meta_tensor_no_storage'",
    ),
    "complex numbers": (
        {"wte.weight": torch.ones(17, 12, dtype=torch.complex64)},
        r"names 'torch\.ComplexFloatStorage', and unpickling",
    ),
    "numbers to be negated": (
        {"wte.weight": torch.ones(3, dtype=torch.complex64).conj().imag},
        "cannot be read as a PyTorch file: .*unsupported attributes",
    ),
    "one number expanded to far more than the file": (
        {"wte.weight": torch.ones(1).expand(17_000, 1200)},
        "its tensors would take 81,600,000: too many share the same storage",
    ),
    "one row expanded to far more than the file": (
        {"wte.weight": torch.ones(1200).expand(17_000, 1200)},
        "its tensors would take 81,600,000: too many share the same storage",
    ),
    "nothing": (None, "holds a NoneType; expected a dictionary"),
    "a storage": (
        {"wte.weight": torch.ones(3).untyped_storage()},
        r"names 'torch\.storage\.UntypedStorage', and unpickling",
    ),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("loaded", "message"), WRONG_PICKLES.values(), ids=WRONG_PICKLES.keys()
)
def test_pickle_of_something_else(
    folder: Path, loaded: Any, message: str
) -> None:
    path = put_bin(folder, loaded)
    with pytest.raises(CheckpointError, match=message) as caught:
        gpt2.load_model(folder)
    assert str(path) in str(caught.value)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    "contents",
    [b"", b"hello", b"\x80\x02N.", b"PK\x03\x04" + bytes(60), bytes(1000)],
    ids=["empty", "text", "None", "a broken zip", "zeros"],
)
def test_not_a_pickle(folder: Path, contents: bytes) -> None:
    put_bin(folder, {}).write_bytes(contents)
    with pytest.raises(CheckpointError) as caught:
        gpt2.load_model(folder)
    assert str(folder / BIN) in str(caught.value)


# --- an index and its files ---


def test_index_only_names_files_beside_it(
    folder: Path, state: dict[str, Tensor]
) -> None:
    """A file elsewhere is not opened, even if it exists."""
    inner = folder / "inner"
    inner.mkdir()
    shutil.copy(folder / "config.json", inner)
    outer = folder / SAFETENSORS
    index = put_shards(inner, state, SAFETENSORS)
    good = json.loads(index.read_text())["weight_map"]
    assert outer.is_file()
    not_beside = "which is not a file of weights beside it"
    for wrong, expected in (
        (f"../{SAFETENSORS}", not_beside),
        (f"{inner.name}/{SAFETENSORS}", not_beside),
        (str(outer), not_beside),
        (SAFETENSORS_INDEX, not_beside),  # an endless loop
        ("other.index.json", not_beside),
        (5, not_beside),
        (None, not_beside),
        ("..", "does not have the name of a file of weights"),
        ("", "does not have the name of a file of weights"),
        ("nothing.txt", "does not have the name of a file of weights"),
        ("nul\0.safetensors", "cannot be read"),
        ("missing.safetensors", "cannot be read"),
        ("missing.bin", "cannot be read"),
    ):
        changed = {**good, "wte.weight": wrong}
        index.write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(CheckpointError, match=expected) as caught:
            gpt2.load_model(inner)
        assert str(inner) in str(caught.value)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"[" * 200_000, "nested more than 32 deep"),
        (b"\xff", "cannot be read"),
        (b"[]", "must hold a JSON object"),
        (b"{}", "has no field 'weight_map'"),
        (b'{"weight_map": {}}', "field 'weight_map' is empty"),
        (
            b'{"weight_map": ["wte.weight"]}',
            "field 'weight_map' must be an object, got a list of 1",
        ),
        (
            b'{"weight_map": {}, "weight_map": {}}',
            "'weight_map' appears twice",
        ),
    ],
    ids=short,
)
def test_broken_index(folder: Path, contents: bytes, message: str) -> None:
    (folder / SAFETENSORS).unlink()
    index = folder / SAFETENSORS_INDEX
    index.write_bytes(contents)
    with pytest.raises(CheckpointError, match=message) as caught:
        gpt2.load_model(folder)
    assert str(index) in str(caught.value)


@pytest.mark.parametrize("name", [SAFETENSORS, BIN])
def test_index_that_lists_too_much(
    folder: Path, state: dict[str, Tensor], name: str
) -> None:
    index = put_shards(folder, state, name)
    fields = json.loads(index.read_text())
    files = sorted(set(fields["weight_map"].values()))
    ours = fields["weight_map"]["ln_f.bias"]
    other = next(file for file in files if file != ours)
    fields["weight_map"]["ln_f.bias"] = other
    index.write_text(json.dumps(fields))
    with pytest.raises(
        CheckpointError, match=rf"lists tensor 'ln_f\.bias' in {other}"
    ):
        gpt2.load_model(folder)
    (folder / files[1]).unlink()
    with pytest.raises(CheckpointError, match=files[1]):
        gpt2.load_model(folder)


# --- the config beside the weights ---


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "cannot be read"),
        (b'{"n_embd": 12', "cannot be read"),
        (b"[" * 200_000, "nested more than 32 deep"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"\xef\xbb\xbf{}", "cannot be read: Unexpected UTF-8 BOM"),
        (b" " * 1_000_001, "has more than 1,000,000 bytes"),
        (b"[]", "must hold a JSON object, got a list of 0"),
        (b'{"n_head": 1, "n_head": 2}', "the name 'n_head' appears twice"),
        (b'{"n_embd": 1' + b"0" * 400 + b"}", "number has 401 digits"),
        (b'{"layer_norm_epsilon": 1e400}', "the number 1e400 is too large"),
        (b'{"layer_norm_epsilon": NaN}', "NaN is not a number"),
        (b"{}", "vocab_size or n_vocab"),
        (b'{"model_type": "llama"}', "describes a 'llama' model"),
        (b'{"model_type": ["gpt2"]}', "describes a"),
    ],
    ids=short,
)
def test_broken_config(folder: Path, contents: bytes, message: str) -> None:
    path = folder / "config.json"
    path.write_bytes(contents)
    for read in (gpt2.load_model, gpt2.inspect):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(folder)
        assert str(path) in str(caught.value)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_layer": 1}, r"has unexpected tensors? '.*h\.1\."),
        ({"n_layer": 3}, r"lacks tensors 'h\.2\."),
        ({"n_layer": 100_000}, "28 tensors, too few for 100000 layers"),
        ({"vocab_size": 10**15}, r"\[1000000000000000, 12\]"),
        ({"n_inner": 7}, r"\[12, 48\], and the model needs \[12, 7\]"),
        ({"n_head": 5}, "n_embd must be a multiple of n_head"),
        ({"n_embd": "12"}, "n_embd must be a positive whole number"),
        ({"n_embd": 12.0}, "n_embd must be a positive whole number"),
        ({"n_embd": [12]}, "n_embd must be a positive whole number"),
        ({"vocab_size": 10**30}, "n_vocab must be a positive whole number"),
        ({"embd_pdrop": False}, "embd_dropout must be a probability"),
        ({"layer_norm_epsilon": "1e-5"}, "layer_norm_epsilon must be a pos"),
        ({"activation_function": {}}, "activation must be one of"),
        ({"model_type": ["gpt2"] * 1000}, "describes a"),
        ({"tie_word_embeddings": False}, "sets tie_word_embeddings=False"),
    ],
)
def test_config_of_another_model(
    folder: Path, fields: dict[str, Any], message: str
) -> None:
    change_config(folder, **fields)
    with pytest.raises(CheckpointError, match=message) as caught:
        gpt2.load_model(folder)
    assert str(folder) in str(caught.value)


def test_hparams_will_do(folder: Path, theirs: GPT2LMHeadModel) -> None:
    (folder / "config.json").unlink()
    sizes = GPT2Config(17, 16, 12, 3, 2)
    names = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")
    (folder / "hparams.json").write_text(
        json.dumps({name: getattr(sizes, name) for name in names})
    )
    close(logits(gpt2.load_model(folder)), their_logits(theirs))


# --- paths that are not files ---


@posix
@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    "name",
    [SAFETENSORS, BIN, SAFETENSORS_INDEX, "config.json", "hparams.json"],
)
@pytest.mark.parametrize("kind", ["a named pipe", "a folder", "a socket"])
def test_only_regular_files_are_opened(
    monkeypatch: pytest.MonkeyPatch,
    make_pipe: Callable[[Path], None],
    folder: Path,
    name: str,
    kind: str,
) -> None:
    """Opening a pipe would block until somebody writes to it."""
    if name.startswith(("model", "pytorch")):
        (folder / SAFETENSORS).unlink()
    else:
        (folder / "config.json").unlink()
    if kind == "a named pipe":
        make_pipe(folder / name)
    elif kind == "a folder":
        (folder / name).mkdir()
    else:
        monkeypatch.chdir(folder)  # the absolute path would be too long
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(name)
    for read in (gpt2.load_model, gpt2.inspect):
        with pytest.raises(CheckpointError, match=f"it is {kind}, not a reg"):
            read(folder)
    with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
        gpt2.inspect(folder)


@posix
@pytest.mark.parametrize("source", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_file_of_weights(tmp_path: Path, source: str) -> None:
    link = tmp_path / SAFETENSORS
    link.symlink_to(source)
    with pytest.raises(CheckpointError, match="it is a device, not a regular"):
        gpt2.load_model(link)
    with pytest.raises(CheckpointError, match=str(link)):
        gpt2.load_model(tmp_path)


@posix
@pytest.mark.parametrize(
    ("source", "message"),
    [("a" * 5000, "cannot be read: File name too long"), ("~nobody-1/a", "~")],
    ids=short,
)
def test_a_name_that_no_file_can_have(source: str, message: str) -> None:
    for read in (gpt2.load_model, gpt2.inspect):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(source)
        assert len(str(caught.value)) < 500


# --- missing checkpoints ---


@pytest.mark.parametrize("read", [gpt2.load, gpt2.load_model, gpt2.inspect])
def test_a_folder_without_weights(
    folder: Path, read: Callable[[Path], object]
) -> None:
    (folder / SAFETENSORS).unlink()
    with pytest.raises(CheckpointError, match="holds no weights") as caught:
        read(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("read", [gpt2.load, gpt2.load_model, gpt2.inspect])
@pytest.mark.parametrize(
    "source",
    ["./gpt2", "/no/such/folder", "gpt3", "a b/c", "a/b/c", "C:\\gpt2", "é/b"],
)
def test_an_unknown_name(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: str,
    read: Callable[[str], object],
) -> None:
    """It is not looked up on the network either."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="neither a preset") as caught:
        read(source)
    assert repr(source) in str(caught.value)


def test_a_file_of_another_kind(folder: Path) -> None:
    with pytest.raises(
        CheckpointError, match="does not have the name of a file of"
    ):
        gpt2.load_model(folder / "config.json")


# --- random damage ---


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_random_damage(tmp_path: Path, kind: str) -> None:
    """A damaged file is refused, or is a complete model."""
    outcomes = Counter(
        outcome(CHECKPOINTS[kind](random.Random(seed), tmp_path / "damaged"))
        for seed in range(300)
    )
    assert outcomes.keys() == {"refused", "loaded"}
    assert outcomes["refused"] > 150


# --- which tensors there are ---


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(),
        GPT2Config(17, 16, 12, 3, 2),
        GPT2Config(17, 16, 12, 3, 2, n_inner=7),
        GPT2Config(5, 3, 4, 1, 11),
        *map(GPT2Config.from_name, PRESETS),
    ],
    ids=repr,
)
def test_parameter_shapes_are_those_of_the_model(config: GPT2Config) -> None:
    with torch.device("meta"):
        state = GPT2(config).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert list(parameter_shapes(config).items()) == list(shapes.items())


def infos_of(config: GPT2Config, prefix: str = "") -> dict[str, TensorInfo]:
    return {
        prefix + name: TensorInfo("F32", shape, SAFETENSORS)
        for name, shape in parameter_shapes(config).items()
    }


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("preset", PRESETS)
def test_guesses_a_published_config(preset: str, prefix: str) -> None:
    config = GPT2Config.from_name(preset)
    infos = infos_of(config, prefix)
    infos |= {"lm_head.weight": infos[f"{prefix}wte.weight"]}
    assert guess_config(infos, "file") == config


@pytest.mark.parametrize(
    "change",
    [{"n_layer": 11}, {"n_layer": 13}, {"n_vocab": 50258}, {"n_inner": 768}],
    ids=repr,
)
def test_guesses_no_other_config(change: dict[str, int]) -> None:
    """A size that is close to a published one is refused.

    One layer more is refused only when the names are matched.
    """
    config = replace(GPT2Config(), **change)
    infos = infos_of(config)
    if change == {"n_layer": 13}:
        assert guess_config(infos, "file") == GPT2Config()
        return
    with pytest.raises(CheckpointError, match=r"file has neither .*heads"):
        guess_config(infos, "file")


def test_a_single_file_of_no_published_size(folder: Path) -> None:
    (folder / "config.json").unlink()
    for read in (gpt2.load_model, gpt2.inspect):
        with pytest.raises(CheckpointError, match="number of heads cannot"):
            read(folder / SAFETENSORS)


@posix
@full_size
def test_a_single_file_of_a_published_size(
    full_size_checkpoint: Path, tmp_path: Path
) -> None:
    lone = tmp_path / "found-somewhere.safetensors"
    lone.symlink_to(full_size_checkpoint / SAFETENSORS)
    found = gpt2.inspect(lone)
    assert found.config == GPT2Config()
    model = gpt2.load_model(lone)
    named = gpt2.load_model(full_size_checkpoint)
    assert torch.equal(
        model.h[11].mlp.c_fc.weight, named.h[11].mlp.c_fc.weight
    )
    renamed = tmp_path / SAFETENSORS
    renamed.symlink_to(lone)
    assert gpt2.inspect(tmp_path).config == GPT2Config()


# --- the tokenizer beside the weights ---


@pytest.fixture(scope="module")
def own_tokenizer() -> Tokenizer:
    return Tokenizer.train("the cat sat on the mat, the other cat sat", 270)


@pytest.fixture
def whole(own_tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A folder with a model and its tokenizer."""
    config = GPT2Config(n_vocab=270, n_ctx=8, n_embd=4, n_head=2, n_layer=1)
    gpt2.save(GPT2(config), own_tokenizer, tmp_path / "whole")
    return tmp_path / "whole"


def put_model(folder: Path, config: GPT2Config) -> None:
    """Replace the model in a folder, but not its tokenizer."""
    gpt2.save(GPT2(config), None, folder / "other")
    for path in (folder / "other").iterdir():
        path.replace(folder / path.name)
    (folder / "other").rmdir()


def test_loads_model_and_tokenizer(
    whole: Path, own_tokenizer: Tokenizer
) -> None:
    model, tokenizer = gpt2.load(whole)
    assert model.config.n_vocab == tokenizer.n_vocab == 270
    text = "the cats sat"
    assert tokenizer.encode(text) == own_tokenizer.encode(text)
    assert len(tokenizer.encode(text)) < len(text) - 2  # some are merged


def test_openais_names_of_the_tokenizer_files(
    whole: Path, own_tokenizer: Tokenizer
) -> None:
    (whole / "vocab.json").rename(whole / "encoder.json")
    (whole / "merges.txt").rename(whole / "vocab.bpe")
    _, tokenizer = gpt2.load(whole / SAFETENSORS)
    assert tokenizer.ranks == own_tokenizer.ranks


def test_a_larger_tokenizer_is_refused(
    whole: Path, own_tokenizer: Tokenizer
) -> None:
    small = GPT2Config(n_vocab=269, n_ctx=8, n_embd=4, n_head=2, n_layer=1)
    put_model(whole, small)
    with pytest.raises(
        CheckpointError, match="has 270 entries, and the model only 269"
    ):
        gpt2.load(whole)
    with pytest.raises(ValueError, match=r"has 270 .* only 269"):
        gpt2.save(GPT2(small), own_tokenizer, whole)


def test_a_smaller_tokenizer_is_fine(whole: Path) -> None:
    """Some models pad the vocabulary to a round number."""
    padded = GPT2Config(n_vocab=320, n_ctx=8, n_embd=4, n_head=2, n_layer=1)
    put_model(whole, padded)
    model, tokenizer = gpt2.load(whole)
    assert (model.config.n_vocab, tokenizer.n_vocab) == (320, 270)


def test_no_tokenizer(
    whole: Path, monkeypatch: pytest.MonkeyPatch, own_tokenizer: Tokenizer
) -> None:
    """GPT-2's own is the default, but only for a vocabulary of its size."""
    monkeypatch.setattr(Tokenizer, "gpt2", lambda: own_tokenizer)
    (whole / "vocab.json").unlink()
    (whole / "merges.txt").unlink()
    with pytest.raises(TokenizerError, match=r"vocab\.json") as caught:
        gpt2.load(whole)
    assert str(whole) in str(caught.value)
    gpt2.load_model(whole)  # needs none
    config = GPT2Config(n_vocab=50257, n_ctx=8, n_embd=4, n_head=2, n_layer=1)
    gpt2.save(GPT2(config), None, whole)
    assert gpt2.load(whole)[1] is own_tokenizer


def test_a_damaged_tokenizer_is_not_replaced(
    whole: Path, monkeypatch: pytest.MonkeyPatch, own_tokenizer: Tokenizer
) -> None:
    monkeypatch.setattr(Tokenizer, "gpt2", lambda: own_tokenizer)
    config = GPT2Config(n_vocab=50257, n_ctx=8, n_embd=4, n_head=2, n_layer=1)
    put_model(whole, config)
    (whole / "merges.txt").unlink()
    with pytest.raises(TokenizerError, match=r"merges\.txt"):
        gpt2.load(whole)


# --- saving ---


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore:.*keras-hub")
@pytest.mark.parametrize("inner", [None, 7])
@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_what_is_saved_is_what_is_loaded(
    tmp_path: Path, model: GPT2, inner: int | None, activation: str
) -> None:
    config = replace(
        model.config,
        n_inner=inner,
        activation=activation,
        layer_norm_epsilon=0.1,
        embd_dropout=0.0,
        attn_dropout=0.25,
    )
    model = GPT2(config).eval()
    gpt2.save(model, None, tmp_path / "new" / "folder")
    again = gpt2.load_model(tmp_path / "new" / "folder")
    assert again.config == config
    assert set(contents_of(tmp_path / "new" / "folder")) == {
        "config.json",
        SAFETENSORS,
    }
    for name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter)


def test_transformers_opens_what_is_saved(
    tmp_path: Path,
    model: GPT2,
    own_tokenizer: Tokenizer,
    shake: Callable[[GPT2], GPT2],
) -> None:
    model = shake(GPT2(replace(model.config, n_vocab=270))).eval()
    gpt2.save(model, own_tokenizer, tmp_path)
    assert {"vocab.json", "merges.txt"} < set(contents_of(tmp_path))
    theirs, report = AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert isinstance(theirs, GPT2LMHeadModel)
    assert not any(report.values())  # nothing missing, unexpected or misshapen
    assert theirs.dtype == torch.float32
    close(their_logits(theirs.eval()), logits(model))
    end = own_tokenizer.end_of_text
    assert theirs.config.bos_token_id == theirs.config.eos_token_id == end
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("the cat sat on the mat", "  Größe, 日本\n\n'll 😀 "):
        ids = own_tokenizer.encode(text)
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("<|endoftext|>") == [end]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_saved_in_the_models_dtype(
    tmp_path: Path, model: GPT2, dtype: torch.dtype
) -> None:
    expected = model.wte.weight.detach().to(dtype)
    gpt2.save(model.to(dtype), None, tmp_path)
    short = {torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    header = read_safetensors_header(tmp_path / SAFETENSORS)
    assert {info.dtype for info in header.values()} == {short}
    assert torch.equal(
        load_file(tmp_path / SAFETENSORS)["wte.weight"], expected
    )
    assert gpt2.load_model(tmp_path, None).wte.weight.dtype == dtype
    assert gpt2.load_model(tmp_path).wte.weight.dtype == torch.float32
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.dtype == dtype


@posix
def test_saving_to_where_it_was_loaded_from(
    folder: Path, theirs: GPT2LMHeadModel
) -> None:
    """The model is still mapped to the file that is replaced."""
    model = gpt2.load_model(folder)
    with torch.no_grad():
        model.ln_f.bias.add_(1)
    expected = logits(model)
    gpt2.save(model, None, folder)
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(gpt2.load_model(folder)), expected)
    assert not torch.allclose(expected, their_logits(theirs), atol=0.1)


@posix
@pytest.mark.parametrize("name", ["new", "there", "link", "."])
def test_saving_to_any_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: GPT2, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    gpt2.save(model, None, name)
    assert torch.equal(
        gpt2.load_model(Path(name)).wte.weight, model.wte.weight
    )
    left = {path.name for path in tmp_path.iterdir()}
    new = {"new": {"new"}, ".": {"config.json", SAFETENSORS}}.get(name, set())
    assert left == {"there", "link"} | new
    assert (tmp_path / "link").is_symlink()


@posix
@pytest.mark.skipif(
    not os.access("/dev/shm", os.W_OK),
    reason="needs another disk, such as Linux's /dev/shm",
)
def test_saving_on_another_disk(tmp_path: Path, model: GPT2) -> None:
    """A file cannot be renamed to another disk; a link may lead to one."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if Path(elsewhere).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("/dev/shm and the tests' folder are on one disk")
        (tmp_path / "link").symlink_to(elsewhere)
        gpt2.save(model, None, tmp_path / "link")
        assert set(contents_of(Path(elsewhere))) == {
            "config.json",
            SAFETENSORS,
        }


def test_other_files_are_left_alone(folder: Path, model: GPT2) -> None:
    (folder / "README.md").write_text("mine")
    (folder / ".hidden").mkdir()
    gpt2.save(model, None, folder)
    assert (folder / "README.md").read_text() == "mine"
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        ".hidden",
        "config.json",
        "generation_config.json",
        SAFETENSORS,
    }


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_permissions_are_those_of_a_new_file(
    tmp_path: Path, model: GPT2, own_tokenizer: Tokenizer
) -> None:
    model = GPT2(replace(model.config, n_vocab=270))
    for umask, expected in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(umask)
        try:
            gpt2.save(model, own_tokenizer, tmp_path / f"{umask}")
        finally:
            os.umask(before)
        modes = {
            path.stat().st_mode & 0o777
            for path in (tmp_path / f"{umask}").iterdir()
        }
        assert modes == {expected}


def test_files_of_another_model_are_removed(
    folder: Path, model: GPT2, own_tokenizer: Tokenizer
) -> None:
    """But only those that readers prefer to the new ones."""
    model = GPT2(replace(model.config, n_vocab=270))
    index = {"weight_map": {"wte.weight": "model-00001-of-00002.safetensors"}}
    stays = {
        *("hparams.json", "model.ckpt.index", "encoder.json", "vocab.bpe"),
        *(BIN, BIN_INDEX, "pytorch_model-00001-of-00002.bin"),
        *("other-00001-of-00002.safetensors", "training_args.bin"),
    }
    leaves = {
        *("tokenizer.json", "added_tokens.json", "special_tokens_map.json"),
        *("tokenizer.model", "chat_template.jinja"),
        *("model-00001-of-00002.safetensors", SAFETENSORS_INDEX),
    }
    for name in stays | leaves:
        (folder / name).write_text("of another model")
    (folder / SAFETENSORS_INDEX).write_text(json.dumps(index))
    gpt2.save(model, own_tokenizer, folder)
    assert set(contents_of(folder)) == stays | {
        *("config.json", SAFETENSORS),
        *("vocab.json", "merges.txt", "tokenizer_config.json"),
    }
    for name in stays:
        assert (folder / name).read_text() == "of another model"
    again, tokenizer = gpt2.load(folder)
    assert torch.equal(again.wte.weight, model.wte.weight)
    assert tokenizer.ranks == own_tokenizer.ranks
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(theirs.transformer.wte.weight, model.wte.weight)
    text = "the cat sat on the mat"
    ids = AutoTokenizer.from_pretrained(folder).encode(text)
    assert ids == own_tokenizer.encode(text)


def test_transformers_reads_the_tokenizer_that_was_saved_last(
    tmp_path: Path, own_tokenizer: Tokenizer
) -> None:
    """Also if transformers wrote the files that are there."""
    text = "the cat sat on the mat"
    other = Tokenizer.train("a mat that a cat sat on, that a cat sat on", 270)
    model = GPT2(GPT2Config(270, 8, 4, 2, 1))
    for save in (
        lambda: gpt2.save(model, own_tokenizer, tmp_path),
        lambda: own_tokenizer.save(tmp_path),
    ):
        gpt2.save(model, other, tmp_path)
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        theirs.add_special_tokens({"pad_token": "<pad>"})
        theirs.save_pretrained(tmp_path)
        assert (tmp_path / "tokenizer.json").exists()
        save()
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        assert theirs.encode(text) == own_tokenizer.encode(text)
        assert len(theirs) == 270


@pytest.mark.parametrize(
    ("ids", "stays"),
    [
        ({"eos_token_id": 269, "bos_token_id": 269}, True),
        ({"eos_token_id": [269, 3]}, True),
        ({"temperature": 0.7}, True),
        ({"eos_token_id": 50256}, False),
        ({"eos_token_id": [3, 50256]}, False),
        ({"bos_token_id": 0, "eos_token_id": 269}, False),
        (["no object"], True),
    ],
)
def test_contradicting_settings_are_removed(
    tmp_path: Path, own_tokenizer: Tokenizer, ids: Any, stays: bool
) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(ids))
    gpt2.save(GPT2(GPT2Config(270, 8, 4, 2, 1)), own_tokenizer, tmp_path)
    assert path.exists() == stays


@pytest.mark.parametrize(
    "name", ["vocab.json", "tokenizer.json", "encoder.json"]
)
def test_another_models_tokenizer_is_not_taken_over(
    folder: Path, model: GPT2, name: str
) -> None:
    (folder / name).write_text("{}")
    before = contents_of(folder)
    with pytest.raises(
        ValueError, match=rf"has a tokenizer, {name}.*with its tokenizer"
    ):
        gpt2.save(model, None, folder)
    assert contents_of(folder) == before


def test_a_model_is_not_saved_beside_an_adapter(
    folder: Path, model: GPT2
) -> None:
    (folder / "adapter_config.json").write_text("{}")
    before = contents_of(folder)
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        gpt2.save(model, None, folder)
    assert contents_of(folder) == before


def test_a_half_saved_folder_is_refused(whole: Path) -> None:
    (whole / ".half-saved").mkdir()
    for load in (gpt2.load, gpt2.load_model, gpt2.inspect):
        for source in (whole, whole / SAFETENSORS):
            with pytest.raises(CheckpointError, match=rf"{whole} is half s"):
                load(source)
    with pytest.raises(TokenizerError, match=rf"{whole} is half saved"):
        Tokenizer.load(whole)


@pytest.fixture(params=["an existing folder", "a new folder"])
def target(
    request: pytest.FixtureRequest, folder: Path, tmp_path: Path
) -> Iterator[Path]:
    """A folder to save to, which the test must leave unchanged."""
    new = request.param == "a new folder"
    before = contents_of(folder)
    yield tmp_path / "new" if new else folder
    assert contents_of(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    "step", ["the weights", "the config", "the tokenizer", "on the disk"]
)
def test_a_failure_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    target: Path,
    own_tokenizer: Tokenizer,
    step: str,
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError("the disk is full")

    where = {
        "the weights": ("safetensors.torch.save_file", fail),
        "the config": ("gpt2.weights.saving.json.dumps", fail),
        "the tokenizer": ("gpt2.tokenizer.tokenizer.Tokenizer.write", fail),
        "on the disk": ("gpt2.files.writing.os.fsync", fail),
    }[step]
    monkeypatch.setattr(*where)
    config = GPT2Config(n_vocab=270, n_ctx=8, n_embd=4, n_head=2, n_layer=1)
    with pytest.raises(OSError, match="the disk is full"):
        gpt2.save(GPT2(config), own_tokenizer, target)
    monkeypatch.undo()


SAVE = """
import resource, signal, sys
from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2.weights.saving import save

model = GPT2(GPT2Config(17, 16, 48, 3, 2))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for folder in sys.argv[1:]:
    try:
        save(model, None, folder)
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs setrlimit")
def test_a_full_disk_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """The system refuses to write beyond a limit."""
    before = contents_of(folder)
    printed = run_python(SAVE, folder, tmp_path / "new").splitlines()
    assert len(printed) == 2
    for line in printed:
        assert line.startswith("OSError ")
        assert "File too large" in line
    assert contents_of(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_saving_over_a_file_is_refused(tmp_path: Path, model: GPT2) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        gpt2.save(model, None, tmp_path / "file")
    assert contents_of(tmp_path) == {"file": b"mine"}

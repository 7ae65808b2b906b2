"""Checkpoints of other programs: read right, or refused by what they are.

The files are made here as those programs make them, from the weights of one
model, and its logits are what each must give.
"""

from __future__ import annotations

import dataclasses
import io
import json
import random
import shutil
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from transformers import GPT2Config as TheirConfig
from transformers import GPT2LMHeadModel

import gpt2
from gpt2.__main__ import main
from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2.tokenizer.bpe import TokenizerError
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights import llm_c
from gpt2.weights.errors import CheckpointError
from gpt2.weights.loading import read_tokenizer
from gpt2.weights.naming import find_prefixes, without_prefix
from gpt2_book import DATA

STORY = Path(gpt2.__file__).parent / "pretrained" / "story"
Tensors = dict[str, Tensor]

SIZES = {
    "vocab_size": 64,
    "n_positions": 16,
    "n_embd": 12,
    "n_head": 3,
    "n_layer": 2,
}
# As nanoGPT names them.
MODEL_ARGS = {
    "block_size": 16,
    "vocab_size": 64,
    "n_layer": 2,
    "n_head": 3,
    "n_embd": 12,
    "dropout": 0.0,
    "bias": True,
}
LINEAR = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def model_of(**changes: Any) -> GPT2:
    """A tiny model in which every parameter matters."""
    torch.manual_seed(1)
    sizes = {"activation": "gelu", **changes}
    model = GPT2(
        GPT2Config(
            n_vocab=64, n_ctx=16, n_embd=12, n_head=3, n_layer=2, **sizes
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def model() -> GPT2:
    return model_of()


def logits(model: GPT2) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(32).reshape(2, 16))


def state_of(model: GPT2, prefix: str = "transformer.") -> Tensors:
    """Its tensors as Hugging Face's class with the output has them."""
    state = {prefix + n: t.clone() for n, t in model.state_dict().items()}
    outer = prefix.removesuffix("transformer.")
    state[f"{outer}lm_head.weight"] = state[f"{prefix}wte.weight"]
    return state


def transposed(state: Tensors) -> Tensors:
    """As `nn.Linear` has them."""
    return {
        name: tensor.T.contiguous() if name.endswith(LINEAR) else tensor
        for name, tensor in state.items()
    }


def training_state() -> dict[str, Any]:
    """What nanoGPT saves beside the model."""
    parameter = nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3)
    parameter.sum().backward()
    optimizer.step()
    return {
        "optimizer": optimizer.state_dict(),
        "iter_num": 5,
        "best_val_loss": torch.tensor(3.25),
        "config": {"dataset": "x", "block_size": 8, "compile": True},
    }


def nanogpt(model: GPT2, prefix: str = "", **changes: Any) -> dict[str, Any]:
    """The dictionary that nanoGPT saves."""
    state = transposed(state_of(model, f"{prefix}transformer."))
    args = {**MODEL_ARGS, **changes}
    return {"model": state, "model_args": args, **training_state()}


def same(path: Path | str, model: GPT2, **options: Any) -> GPT2:
    """Loaded, it has the model's config and exactly its logits."""
    loaded = gpt2.load_model(path, **options)
    assert loaded.config.activation == model.config.activation
    for ours, theirs in zip(
        loaded.named_parameters(), model.named_parameters(), strict=True
    ):
        assert ours[0] == theirs[0]
        assert torch.equal(ours[1], theirs[1]), ours[0]
    assert torch.equal(logits(loaded), logits(model))
    return loaded


def put_config(folder: Path, **changes: Any) -> None:
    fields = {"model_type": "gpt2", "activation_function": "gelu"}
    text = json.dumps({**fields, **SIZES, **changes})
    (folder / "config.json").write_text(text)


def refused(source: Path, *parts: str) -> str:
    """Loading is refused, and so is inspecting, and the message helps."""
    with pytest.raises(CheckpointError) as caught:
        gpt2.load_model(source)
    message = str(caught.value)
    with pytest.raises(CheckpointError) as again:
        gpt2.inspect(source)
    assert str(again.value) == message
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


# --- nanoGPT ---


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_nanogpt(
    model: GPT2, tmp_path: Path, prefix: str, zipped: bool
) -> None:
    path = tmp_path / "ckpt.pt"
    torch.save(
        nanogpt(model, prefix), path, _use_new_zipfile_serialization=zipped
    )
    loaded = same(path, model)
    assert loaded.config == dataclasses.replace(
        model.config, embd_dropout=0.0, attn_dropout=0.0, resid_dropout=0.0
    )
    found = gpt2.inspect(tmp_path)  # the folder has nothing else
    assert found.file == str(path)
    assert found.config == loaded.config
    said = " ".join(found.notes)
    for part in ("'model'", "'model_args'", "gelu", "[out, in]"):
        assert part in said
    assert list(found.names) == list(model.state_dict())


def test_nanogpts_activation(model: GPT2, tmp_path: Path) -> None:
    """Before there was a choice of biases it was the tanh form.

    A config beside the file says what it was in between.
    """
    whole = nanogpt(model)
    del whole["model_args"]["bias"]
    torch.save(whole, tmp_path / "ckpt.pt")
    tanh = gpt2.load_model(tmp_path)
    assert tanh.config.activation == "gelu_new"
    assert not torch.equal(logits(tanh), logits(model))
    put_config(tmp_path)
    same(tmp_path, model)


def without_biases(state: Tensors) -> Tensors:
    return {n: t for n, t in state.items() if not n.endswith(".bias")}


def test_nanogpt_without_biases(model: GPT2, tmp_path: Path) -> None:
    """Their model, written down here, gives the same logits."""
    whole = nanogpt(model, bias=False)
    state = whole["model"] = without_biases(whole["model"])
    torch.save(whole, tmp_path / "ckpt.pt")
    loaded = gpt2.load_model(tmp_path)
    for name, parameter in loaded.named_parameters():
        assert name.endswith(".bias") is not bool(parameter.any())
    tokens = torch.arange(32).reshape(2, 16)
    x = state["transformer.wte.weight"][tokens]
    x = x + state["transformer.wpe.weight"]
    for i in range(2):

        def weight(name: str, i: int = i) -> Tensor:
            return state[f"transformer.h.{i}.{name}.weight"]

        normal = nn.functional.layer_norm(x, (12,), weight("ln_1"))
        parts = (normal @ weight("attn.c_attn").T).split(12, dim=-1)
        heads = [p.view(2, 16, 3, 4).transpose(1, 2) for p in parts]
        mixed = nn.functional.scaled_dot_product_attention(
            *heads, is_causal=True
        )
        mixed = mixed.transpose(1, 2).reshape(2, 16, 12)
        x = x + mixed @ weight("attn.c_proj").T
        normal = nn.functional.layer_norm(x, (12,), weight("ln_2"))
        inner = nn.functional.gelu(normal @ weight("mlp.c_fc").T)
        x = x + inner @ weight("mlp.c_proj").T
    x = nn.functional.layer_norm(x, (12,), state["transformer.ln_f.weight"])
    expected = x @ state["lm_head.weight"].T
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=0)
    found = gpt2.inspect(tmp_path)
    assert "ln_f.bias" not in found.names
    assert any("biases" in note for note in found.notes)


def test_biases_that_the_config_contradicts(
    model: GPT2, tmp_path: Path
) -> None:
    whole = nanogpt(model, bias=False)
    torch.save(whole, tmp_path / "ckpt.pt")
    refused(tmp_path, "ckpt.pt", "bias=False", "have a bias")
    whole["model"] = without_biases(whole["model"])
    whole["model_args"]["bias"] = True
    torch.save(whole, tmp_path / "ckpt.pt")
    refused(tmp_path, "ckpt.pt", "bias=True", "lack a bias")


def test_one_bias_is_not_enough(model: GPT2, tmp_path: Path) -> None:
    whole = nanogpt(model)
    del whole["model"]["transformer.h.0.ln_1.bias"]
    torch.save(whole, tmp_path / "ckpt.pt")
    refused(tmp_path, "lacks tensor 'h.0.ln_1.bias'")


def test_biases_are_zero_in_nanogpts_world_alone(
    model: GPT2, tmp_path: Path
) -> None:
    torch.save(without_biases(state_of(model)), tmp_path / "pytorch_model.bin")
    put_config(tmp_path)
    refused(tmp_path, "lacks tensors 'h.0.ln_1.bias'")


@pytest.mark.parametrize("key", ["block_size", "vocab_size", "n_head"])
def test_two_configs_that_differ(
    model: GPT2, tmp_path: Path, key: str
) -> None:
    """In a number that no shape shows, too."""
    put_config(tmp_path)
    whole = nanogpt(model, **{key: 6})
    torch.save(whole, tmp_path / "ckpt.pt")
    refused(tmp_path, "config.json has n_", "ckpt.pt has n_", "=6")


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


NESTED = nested(1500)  # more than `repr` takes


WRONG_ARGS: dict[str, tuple[dict[str, Any], str]] = {
    "another vocabulary": ({"vocab_size": 50304}, "has shape [64, 12]"),
    "a width that heads do not share": ({"n_head": 5}, "n_head=5"),
    "no layers": ({"n_layer": 0}, "n_layer must be a positive"),
    "a billion layers": ({"n_layer": 10**9}, "too few for 1000000000 layers"),
    "a size that is none": ({"n_embd": 12.0}, "n_embd must be a positive"),
    "a size that is a tensor": (
        {"n_embd": torch.tensor(12)},
        "'model_args', has a View as n_embd",
    ),
    "a size that is nested without end": ({"n_embd": NESTED}, "a list as n_"),
    "biases that are a list": ({"bias": [True]}, "a list as bias"),
    "no dropout": ({"dropout": None}, "a NoneType as dropout"),
    "a dropout of 1": ({"dropout": 1.0}, "embd_dropout must be"),
}


@pytest.mark.parametrize("fault", WRONG_ARGS)
def test_wrong_arguments(model: GPT2, tmp_path: Path, fault: str) -> None:
    changes, message = WRONG_ARGS[fault]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        torch.save(nanogpt(model, **changes), tmp_path / "ckpt.pt")
    finally:
        sys.setrecursionlimit(limit)
    refused(tmp_path, str(tmp_path / "ckpt.pt"), message)


def test_missing_arguments(model: GPT2, tmp_path: Path) -> None:
    whole = nanogpt(model)
    del whole["model_args"]["n_head"]
    torch.save(whole, tmp_path / "ckpt.pt")
    refused(tmp_path, "ckpt.pt", "has no n_head")


@dataclasses.dataclass
class GPTConfig:
    """The config of build-nanogpt, which it pickles as it is."""

    block_size: int = 16
    vocab_size: int = 64
    n_layer: int = 2
    n_head: int = 3
    n_embd: int = 12


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_build_nanogpt(tmp_path: Path, zipped: bool) -> None:
    """Its class is never looked for, and its activation is GPT-2's own."""
    model = model_of(activation="gelu_new")
    state = transposed(state_of(model))
    for i in range(2):  # it registers its mask as a buffer
        mask = torch.ones(16, 16).tril()[None, None]
        state[f"transformer.h.{i}.attn.bias"] = mask
    whole = {"model": state, "config": GPTConfig(), "step": 9, "val_loss": 3.5}
    path = tmp_path / "model_19072.pt"
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    same(path, model)
    assert "'config'" in " ".join(gpt2.inspect(path).notes)


def test_prefers_safetensors_to_nanogpts(model: GPT2, tmp_path: Path) -> None:
    torch.save(nanogpt(model_of(n_inner=7)), tmp_path / "ckpt.pt")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    put_config(tmp_path)
    same(tmp_path, model)


@pytest.mark.parametrize("kind", ["PyTorch", "safetensors"])
@pytest.mark.parametrize("n_inner", [None, 12, 36, 5])
def test_transposed_weights_beside_a_config(
    tmp_path: Path, kind: str, n_inner: int | None
) -> None:
    """Square ones, of which the shape says nothing, are turned as well."""
    model = model_of(n_inner=n_inner)
    put_config(tmp_path, n_inner=n_inner)
    state = transposed(state_of(model))
    if kind == "PyTorch":
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        state.pop("lm_head.weight")
        save_file(state, tmp_path / "model.safetensors")
    loaded = same(tmp_path, model)
    assert all(p.is_contiguous() for p in loaded.parameters())


def test_half_of_it_transposed(model: GPT2, tmp_path: Path) -> None:
    state = transposed(state_of(model))
    name = "transformer.h.1.attn.c_attn.weight"
    state[name] = state[name].T.contiguous()
    put_config(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "h.0.attn.c_attn.weight' has shape [36, 12]")


def test_a_padded_vocabulary_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no tokenizer beside it, nanoGPT's has GPT-2's."""
    own = Tokenizer.load(STORY)
    monkeypatch.setattr(Tokenizer, "gpt2", lambda: own)
    config = GPT2Config(n_vocab=50304, n_ctx=8, n_embd=4, n_head=2, n_layer=1)
    model = GPT2(config).eval()
    args = {"block_size": 8, "vocab_size": 50304, "n_layer": 1}
    args |= {"n_head": 2, "n_embd": 4}
    state = transposed(state_of(model))
    torch.save({"model": state, "model_args": args}, tmp_path / "ckpt.pt")
    loaded, tokenizer = gpt2.load(tmp_path)
    assert torch.equal(loaded.wte.weight, model.wte.weight)
    assert tokenizer is own


# --- llm.c ---


def llm_c_file(
    model: GPT2,
    version: int = 3,
    n_padding: int = 0,
    tail: bytes = b"",
    **header: int,
) -> bytes:
    """A checkpoint as llm.c writes it."""
    config = model.config
    state = transposed(model.state_dict())
    names = list(state)
    order = [n.removeprefix("h.0.") for n in names if n.startswith("h.0.")]
    tensors = [
        nn.functional.pad(state["wte.weight"], (0, 0, 0, n_padding), value=7),
        state["wpe.weight"],
    ]
    for name in order:
        layers = range(config.n_layer)
        tensors += [state[f"h.{i}.{name}"] for i in layers]
    tensors += [state["ln_f.weight"], state["ln_f.bias"]]
    fields = {
        "magic": 20240326,
        "version": version,
        "n_ctx": config.n_ctx,
        "n_vocab": config.n_vocab,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_rows": config.n_vocab + n_padding,
        **header,
    }
    data = struct.pack("<8i", *fields.values()).ljust(1024, b"\0")
    kind = torch.bfloat16 if version == 5 else torch.float32
    for tensor in tensors:
        bits = tensor.to(kind).contiguous().view(torch.uint8)
        data += bits.numpy().tobytes()
    return data + tail


@pytest.fixture(scope="module")
def tanh() -> GPT2:
    """llm.c's activation is GPT-2's own."""
    return model_of(activation="gelu_new")


@pytest.mark.parametrize("name", ["gpt2_124M.bin", "weights", "model.pt"])
@pytest.mark.parametrize("n_padding", [0, 3])
def test_llm_c(tanh: GPT2, tmp_path: Path, name: str, n_padding: int) -> None:
    """Known by its first bytes; rows of padding are no tokens."""
    path = tmp_path / name
    path.write_bytes(llm_c_file(tanh, n_padding=n_padding))
    loaded = same(path, tanh)
    assert loaded.config == tanh.config
    found = gpt2.inspect(path)
    assert (found.format, found.config) == ("llm.c", tanh.config)
    assert found.infos["wte.weight"].shape == (64, 12)
    assert any("padding" in note for note in found.notes) is (n_padding > 0)
    shapes = {n: found.infos[n].shape for n in found.names}
    assert shapes["h.1.mlp.c_fc.weight"] == (48, 12)


def test_llm_c_in_bfloat16(tanh: GPT2, tmp_path: Path) -> None:
    path = tmp_path / "model_00019560.bin"
    path.write_bytes(llm_c_file(tanh, version=5, n_padding=2))
    half = model_of(activation="gelu_new").bfloat16()
    same(path, half, dtype=None)
    same(path, half.float())


def test_changing_the_model_leaves_llm_cs_file_alone(
    tanh: GPT2, tmp_path: Path
) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(before := llm_c_file(tanh))
    loaded = gpt2.load_model(path)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.fill_(7)
    assert path.read_bytes() == before


HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "version 1": ({"version": 1}, "of version 1; versions 3"),
    "version 2": ({"version": 2}, "of version 2; versions 3"),
    "an old version 3, without padding": ({"n_rows": 0}, "and 0 rows"),
    "fewer rows than tokens": ({"n_rows": 63}, "and 63 rows"),
    "a row more": ({"n_rows": 65}, "takes "),
    "a token fewer, and as many rows": ({"n_ctx": 17}, "takes "),
    "no layers": ({"n_layer": 0}, "n_layer=0"),
    "layers below 0": ({"n_layer": -1}, "n_layer=-1"),
    "two billion layers": ({"n_layer": 2**31 - 1}, "at most 10,000 layers"),
    "ten thousand layers": ({"n_layer": 10_000}, "takes "),
    "a huge width": ({"n_embd": 2**31 - 1}, "takes "),
    "a width below 0": ({"n_embd": -12}, "n_embd=-12"),
    "no heads": ({"n_head": 0}, "n_head=0"),
    "other heads": ({"n_head": 5}, "n_embd=12 and n_head=5"),
    "four bytes more": ({"tail": bytes(4)}, "takes "),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_wrong_headers(tanh: GPT2, tmp_path: Path, fault: str) -> None:
    changes, message = HEADERS[fault]
    path = tmp_path / "model.bin"
    path.write_bytes(llm_c_file(tanh, **changes))
    refused(path, str(path), message)


@pytest.mark.parametrize("length", [4, 8, 1023, 1024, 1025, -4, -1])
def test_llm_c_cut_off(tanh: GPT2, tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(llm_c_file(tanh)[:length])
    refused(path, str(path), "1,024 bytes" if 0 < length < 1024 else "takes")


def test_llm_c_of_layers_without_end(tmp_path: Path) -> None:
    """Numbers that fit a file exactly must still not make a huge list."""
    path = tmp_path / "model.bin"
    n_layer = llm_c._MOST_LAYERS + 1
    header = struct.pack("<8i", 20240326, 5, 1, 1, n_layer, 1, 1, 1)
    size = 1024 + 2 * (4 + 25 * n_layer)
    path.write_bytes(header.ljust(size, b"\0"))
    refused(path, "at most 10,000 layers")


def test_other_files_of_llm_c(tmp_path: Path) -> None:
    path = tmp_path / "gpt2_tokenizer.bin"
    path.write_bytes(struct.pack("<3i", 20240328, 2, 50257) + bytes(2000))
    refused(path, "the tokenizer of llm.c")


def test_infinite_numbers_of_llm_c(tmp_path: Path) -> None:
    broken = model_of(activation="gelu_new")
    with torch.no_grad():
        broken.ln_f.bias[3] = torch.inf
    path = tmp_path / "model.bin"
    path.write_bytes(llm_c_file(broken))
    with pytest.raises(CheckpointError, match=r"ln_f\.bias.* not finite"):
        gpt2.load_model(path)


# --- any damage ---


def random_change(data: bytes, begin: int, end: int, seed: int) -> bytes:
    """One to three bytes changed in a part, or the file cut off there."""
    rng = random.Random(seed)
    if rng.random() < 0.1:
        return data[: rng.randrange(begin, end)]
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(begin, end)] = rng.choice(
            [0, 1, 2, 127, 128, 255, rng.randrange(256)]
        )
    return bytes(changed)


def harmless(source: Path) -> bool:
    """It is a model, or refused by an error that names it."""
    try:
        gpt2.inspect(source)
        loaded = gpt2.load_model(source)
    except CheckpointError as error:
        assert str(source) in str(error)
        assert "\n" not in str(error)
        assert len(str(error)) < 1000
        return False
    assert all(parameter.isfinite().all() for parameter in loaded.parameters())
    return True


def test_no_damage_to_llm_cs_header_does_harm(
    tanh: GPT2, tmp_path: Path
) -> None:
    whole = llm_c_file(tanh, n_padding=1)
    loaded = 0
    for seed in range(400):
        path = tmp_path / f"{seed}.bin"  # an earlier one may still be mapped
        path.write_bytes(random_change(whole, 0, 32, seed))
        loaded += harmless(path)
        path.unlink()
    assert 0 < loaded < 200


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_no_damage_to_nanogpts_pickle_does_harm(
    model: GPT2, tmp_path: Path, zipped: bool
) -> None:
    """Without checksums, as PyTorch can be told to write."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        buffer = io.BytesIO()
        whole = {**nanogpt(model), "arguments": GPTConfig()}
        torch.save(whole, buffer, _use_new_zipfile_serialization=zipped)
    finally:
        torch.serialization.set_crc32_options(before)
    data = buffer.getvalue()
    begin, end = data.index(b"\x80\x02}"), data.rindex(b"best_val_loss")
    loaded = 0
    for seed in range(300):
        path = tmp_path / f"{seed}.pt"
        path.write_bytes(random_change(data, begin, end, seed))
        loaded += harmless(path)
        path.unlink()
    assert 0 < loaded < 200


# --- wrappers ---

PREFIXES = [
    "model.",
    "module.",
    "_orig_mod.",
    "_module.",
    "base_model.model.",
    "_forward_module.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model._fsdp_wrapped_module.",
    "anything.at.all.",
]


@pytest.mark.parametrize("inner", ["transformer.", ""])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes(
    model: GPT2, tmp_path: Path, prefix: str, inner: str
) -> None:
    put_config(tmp_path)
    state = state_of(model, prefix + inner)
    torch.save(state, tmp_path / "pytorch_model.bin")
    same(tmp_path, model)
    found = gpt2.inspect(tmp_path)
    assert found.names["wte.weight"] == f"{prefix}{inner}wte.weight"
    told = any("the names begin with" in note for note in found.notes)
    assert told is (not prefix.startswith("_orig") or "module" in prefix)


def test_parts_that_wrappers_insert(model: GPT2, tmp_path: Path) -> None:
    """torch.compile on each layer, and checkpointing in it."""
    state = {
        name.replace("h.1.", "h.1._orig_mod._checkpoint_wrapped_module."): t
        for name, t in state_of(model).items()
    }
    assert len(state) == len(state_of(model))
    put_config(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    same(tmp_path, model)


def test_a_name_that_only_looks_wrapped() -> None:
    names = ["a_orig_mod.wte.weight", "x.y_orig_mod.z"]
    assert find_prefixes(names) == ["a_orig_mod."]
    assert without_prefix(names)["x.y_orig_mod.z"] == "x.y_orig_mod.z"


def test_two_models_in_one_file(model: GPT2, tmp_path: Path) -> None:
    put_config(tmp_path)
    both = state_of(model, "policy.") | state_of(model, "reference.")
    torch.save(both, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "several models", "'policy.'", "'reference.'")


def test_something_beside_the_model(model: GPT2, tmp_path: Path) -> None:
    put_config(tmp_path)
    state = state_of(model, "model.") | {"head.weight": torch.ones(2)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "'head.weight'")


CONTAINERS: dict[str, Callable[[Tensors], Any]] = {
    "Lightning": lambda state: {
        "epoch": 3,
        "global_step": 9,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": t for name, t in state.items()},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'mode': 'min'}": {"best": "x.ckpt"}},
        **training_state(),
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 1e-3, "betas": (0.9, 0.95)},
    },
    "DeepSpeed": lambda state: {"module": state, "dp_world_size": 1},
    "a tutorial": lambda state: {
        "model_state_dict": state,
        "optimizer_state_dict": training_state()["optimizer"],
        "loss": 2.5,
    },
}


@pytest.mark.parametrize("name", ["last.ckpt", "last.pt", "medium_ft.pkl"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_containers(
    model: GPT2, tmp_path: Path, kind: str, zipped: bool, name: str
) -> None:
    put_config(tmp_path)
    path = tmp_path / name
    whole = CONTAINERS[kind](state_of(model))
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    same(path, model)


def test_a_container_needs_a_config(model: GPT2, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": state_of(model)}, path)
    refused(path, str(path), "config.json", "heads")


def test_several_models_in_a_container(model: GPT2, tmp_path: Path) -> None:
    put_config(tmp_path)
    state = state_of(model)
    torch.save({"model": state, "ema": state}, tmp_path / "ckpt.pt")
    refused(tmp_path, "several models", "'model', 'ema'")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_protocols(
    model: GPT2, tmp_path: Path, protocol: int, zipped: bool
) -> None:
    """Of a plain dictionary, and of one with everything beside it."""
    options = {"_use_new_zipfile_serialization": zipped}
    put_config(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    torch.save(state_of(model), path, pickle_protocol=protocol, **options)
    same(tmp_path, model)
    whole = {**nanogpt(model), "arguments": GPTConfig()}
    torch.save(whole, path, pickle_protocol=protocol, **options)
    same(tmp_path, model)


def test_a_pickled_model_is_refused(model: GPT2, tmp_path: Path) -> None:
    """`torch.save(model)` needs the code of its class to be read."""
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(2, 3), path)
    refused(path, str(path), "torch.save(model.state_dict()")
    torch.save(GPTConfig(), path)
    refused(path, str(path), "holds a 'GPTConfig' object")


class Trap:
    """Unpickling it calls a function, whatever is around it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.mark,)


@pytest.mark.parametrize("place", ["optimizer", "config", "model_args"])
def test_code_beside_the_model_does_not_run(
    model: GPT2, tmp_path: Path, place: str
) -> None:
    mark = tmp_path / "mark"
    whole = nanogpt(model)
    whole[place] = {"deep": [{"deeper": (Trap(mark),)}]}
    torch.save(whole, tmp_path / "ckpt.pt")
    refused(tmp_path, "could run code")
    assert not mark.exists()


CLASSES: dict[str, bytes] = {
    "kept": b"\x80\x02}X\1\0\0\0wcos\nsystem\ns.",
    "kept, from memory": b"\x80\x02}X\1\0\0\0wcos\nsystem\nq\1)\x81X\1\0\0\0v"
    b"h\1u.",
    "called": b"\x80\x02}X\1\0\0\0wcos\nsystem\n)Rs.",
    "called with an argument": b"\x80\x02}X\1\0\0\0wcos\nsystem\nK\1\x85Rs.",
    "in a tuple": b"\x80\x02}X\1\0\0\0wcos\nsystem\n\x85s.",
    "with its arguments in a tuple": b"\x80\x02}X\1\0\0\0wcos\nsystem\n)\x86s"
    b".",
    "in a list": b"\x80\x02}X\1\0\0\0w]cos\nsystem\nas.",
    "a name": b"\x80\x02}cos\nsystem\nNs.",
    "before a mark": b"\x80\x02}X\1\0\0\0wcos\nsystem\n(ts.",
    "alone": b"\x80\x02cos\nsystem\n.",
    "of an object with arguments": b"\x80\x02}X\1\0\0\0wcos\nsystem\nK\1\x85"
    b"\x81s.",
}


@pytest.mark.parametrize("use", CLASSES)
def test_an_unknown_name_can_only_describe_an_object(
    tmp_path: Path, use: str
) -> None:
    """Here as the second of the old format's pickles."""
    buffer = io.BytesIO()
    torch.save({}, buffer, _use_new_zipfile_serialization=False)
    whole = buffer.getvalue()
    path = tmp_path / "model.pt"
    magic = whole[:15]
    assert magic.endswith(b".")
    path.write_bytes(magic + CLASSES[use])
    refused(path, "could run code", "'os.system'")


# --- outputs, embeddings and other heads ---


def test_an_output_without_the_embedding(model: GPT2, tmp_path: Path) -> None:
    """`save_model` keeps one of two names for one tensor."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = model
            self.lm_head = nn.Linear(12, 64, bias=False)
            self.lm_head.weight = model.wte.weight

    put_config(tmp_path)
    save_model(Both(), str(tmp_path / "model.safetensors"))
    found = gpt2.inspect(tmp_path)
    assert found.names["wte.weight"] == "lm_head.weight"
    assert any("output" in note for note in found.notes)
    same(tmp_path, model)


@pytest.mark.parametrize("tied", [True, False])
def test_dialogpt(model: GPT2, tmp_path: Path, tied: bool) -> None:
    """Half precision, the old format, and its own name for the output."""
    half = model_of().half()
    state = state_of(half)
    output = state.pop("lm_head.weight")
    state["lm_head.decoder.weight"] = output if tied else output + 1
    for i in range(2):
        mask = torch.ones(16, 16).tril()[None, None].half()
        state[f"transformer.h.{i}.attn.bias"] = mask
    put_config(tmp_path)
    torch.save(
        state,
        tmp_path / "pytorch_model.bin",
        _use_new_zipfile_serialization=False,
    )
    if tied:
        same(tmp_path, half.float())
    else:
        with pytest.raises(CheckpointError, match=r"decoder\.weight' differs"):
            gpt2.load_model(tmp_path)


HEADS = {
    "GPT2DoubleHeadsModel": "GPT2LMHeadModel",
    "GPT2ForSequenceClassification": "no language model",
    "GPT2ForTokenClassification": "no language model",
    "GPT2ForQuestionAnswering": "no language model",
}


@pytest.mark.parametrize("kind", HEADS)
def test_other_heads(tmp_path: Path, kind: str) -> None:
    import transformers

    config = TheirConfig(**SIZES, bos_token_id=0, eos_token_id=0)
    getattr(transformers, kind)(config).save_pretrained(tmp_path)
    refused(tmp_path, "model.safetensors", kind, HEADS[kind])


@pytest.mark.parametrize(
    "name, what",
    [
        ("v_head.summary.weight", "AutoModelForCausalLMWithValueHead"),
        ("h.0.attn.c_attn.lora_A.default.weight", "merge_and_unload"),
        ("transformer.h.0.crossattention.q_attn.weight", "cross-attention"),
    ],
)
def test_other_parts(
    model: GPT2, tmp_path: Path, name: str, what: str
) -> None:
    put_config(tmp_path)
    state = state_of(model) | {name: torch.ones(2, 2)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "pytorch_model.bin", what, name.split(".")[-1])


def test_names_of_another_program(tmp_path: Path) -> None:
    put_config(tmp_path)
    state = {"tok_emb.weight": torch.ones(64, 12), "pos_emb": torch.ones(2)}
    torch.save(state, tmp_path / "gpt2-small.pth")
    refused(tmp_path / "gpt2-small.pth", "'tok_emb.weight'", "'wte.weight'")


# --- what stands in place of weights ---

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    f"oid sha256:{'7' * 64}\nsize 548105171\n"
)


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "pytorch_model.bin", "model.ckpt.index"),
        *("ckpt.pt", "config.json", "vocab.json", "merges.txt"),
    ],
)
def test_git_lfs_pointers(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(STORY, folder)
    if name.endswith((".bin", ".index", ".pt")):
        (folder / "model.safetensors").unlink()
    (folder / name).write_text(POINTER)
    with pytest.raises(ValueError, match=r"Git LFS.*git lfs pull") as caught:
        gpt2.load(folder)
    assert str(folder / name) in str(caught.value)


def test_a_pointer_of_tokenizer_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(POINTER)
    with pytest.raises(TokenizerError, match="git lfs pull"):
        Tokenizer.load(tmp_path)


FOLDERS: dict[str, tuple[str, ...]] = {
    "tf_model.h5": ("TensorFlow weights", "from_tf=True"),
    "flax_model.msgpack": ("Flax weights", "from_flax=True"),
    "rust_model.ot": ("rust-bert",),
    "model.gguf": ("GGUF",),
    "model.onnx": ("ONNX",),
    "gpt2-medium.safetensors": ("gpt2-medium.safetensors", "name the file"),
    "adapter_config.json": ("adapter", "merge_and_unload"),
    "checkpoint-500/model.safetensors": ("Trainer", "checkpoint-500"),
    "model-1000.index": ("TensorFlow", "model-1000"),
    "notes.txt": ("expected one of", "model.safetensors", "model.ckpt.index"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_without_weights(tmp_path: Path, name: str) -> None:
    put_config(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"{}")
    refused(tmp_path, str(tmp_path), *FOLDERS[name])


def test_the_last_of_several_checkpoints_is_named(tmp_path: Path) -> None:
    for step in (500, 1500, 1000):
        (tmp_path / f"checkpoint-{step}").mkdir()
    refused(tmp_path, str(tmp_path / "checkpoint-1500"), "2 earlier")


def test_an_adapter_beside_weights(model: GPT2, tmp_path: Path) -> None:
    """transformers would apply it; the weights alone are another model."""
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    put_config(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, "merge_and_unload")


@pytest.mark.parametrize(
    "name, start, what",
    [
        ("model.bin", b"GGUF", "GGUF"),
        ("model.bin", b"\x89HDF\r\n", "HDF5"),
        ("model.h5", b"", "from_tf=True"),
        ("model.txt", b"", "name of a file of weights"),
    ],
)
def test_files_of_other_kinds(
    tmp_path: Path, name: str, start: bytes, what: str
) -> None:
    path = tmp_path / name
    path.write_bytes(start + bytes(90))
    refused(path, str(path), what)


def test_one_file_of_a_tensorflow_checkpoint(tmp_path: Path) -> None:
    source = DATA / "tensorflow-tiny"
    folder = Path(shutil.copytree(source, tmp_path / "run1"))
    (path,) = folder.glob("*.data-*")
    refused(path, f"name the whole, {folder / 'model.ckpt'}")
    assert gpt2.load_model(folder / "model.ckpt").config.n_layer == 2


# --- dtypes ---


@pytest.mark.parametrize(
    "kinds, expected",
    [
        (("float32",), "float32"),
        (("bfloat16",), "bfloat16"),
        (("float16",), "float16"),
        (("float32", "bfloat16"), "float32"),
        (("float16", "bfloat16"), "float32"),
        (("float16", "float32"), "float32"),
    ],
)
def test_mixed_dtypes(
    model: GPT2, tmp_path: Path, kinds: tuple[str, ...], expected: str
) -> None:
    """All converted exactly, to one dtype, which inspecting says."""
    put_config(tmp_path)
    state = {
        name: tensor.to(getattr(torch, kinds[i % len(kinds)]))
        for i, (name, tensor) in enumerate(model.state_dict().items())
    }
    save_file(state, tmp_path / "model.safetensors")
    loaded = gpt2.load_model(tmp_path, dtype=None)
    for name, parameter in loaded.named_parameters():
        assert str(parameter.dtype) == f"torch.{expected}"
        assert torch.equal(parameter.float(), state[name].float())
    said = " ".join(gpt2.inspect(tmp_path).notes)
    assert ("dtype=None the model is float32" in said) is (len(kinds) > 1)


def test_an_output_of_another_dtype(model: GPT2, tmp_path: Path) -> None:
    """The same numbers in float32 and in bfloat16 are one matrix."""
    put_config(tmp_path)
    state = state_of(model_of().bfloat16())
    state["transformer.wte.weight"] = state["lm_head.weight"].float()
    torch.save(state, tmp_path / "pytorch_model.bin")
    found = gpt2.load_model(tmp_path).wte.weight
    assert torch.equal(found, state["transformer.wte.weight"])


# --- a token without a row ---


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story model after `add_special_tokens({"pad_token": "[PAD]"})`."""
    folder = tmp_path_factory.mktemp("padded")
    shutil.copytree(STORY, folder, dirs_exist_ok=True)
    vocabulary = Tokenizer.load(STORY)
    special = {**vocabulary.special_tokens, "[PAD]": vocabulary.n_vocab}
    Tokenizer(
        vocabulary.ranks, special, add_bos_token=vocabulary.add_bos_token
    ).save(folder)
    return folder


def test_a_token_without_a_row_is_refused_alone(padded: Path) -> None:
    model, tokenizer = gpt2.load(padded)
    plain = gpt2.load(STORY)[1]
    assert tokenizer.n_vocab == model.config.n_vocab == 1440
    text = "Ella lost [PAD] her red<|endoftext|>"
    assert tokenizer.encode(text) == plain.encode(text)
    usual = "Ella lost her red<|endoftext|>"
    ids = tokenizer.encode(usual, allow_special=True)
    assert ids == plain.encode(usual, allow_special=True)
    assert tokenizer.decode(ids) == usual
    assert tokenizer.add_bos_token == plain.add_bos_token
    with pytest.raises(TokenizerError, match=r"'\[PAD\]', token 1440, .*1440"):
        tokenizer.encode(text, allow_special=True)


def test_a_token_without_a_row_is_saved(padded: Path, tmp_path: Path) -> None:
    """The folder is as it came, and opens again."""
    model, tokenizer = gpt2.load(padded)
    gpt2.save(model, tokenizer, tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (tmp_path / name).read_text() == (padded / name).read_text()
    again = gpt2.load(tmp_path)[1]
    assert again.special_tokens["[PAD]"] == 1440


def test_an_ordinary_token_without_a_row(padded: Path) -> None:
    config = GPT2Config(n_vocab=1439, n_ctx=8, n_embd=4, n_head=2, n_layer=1)
    with pytest.raises(CheckpointError, match=r"has 1441 entries, .* 1439"):
        read_tokenizer(padded, config)


def test_commands_with_a_token_without_a_row(
    padded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = ["generate", "Ella lost her red", "-n", "4", "--temperature", "0"]
    main([*prompt, "--model", str(padded)])
    found = capsys.readouterr().out
    main([*prompt, "--model", "story"])
    assert found == capsys.readouterr().out
    main(["convert", str(padded), str(tmp_path / "out")])
    assert gpt2.load(tmp_path / "out")[1].special_tokens["[PAD]"] == 1440


# --- what other readers make of what is saved ---


def test_a_plain_model_is_saved_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gpt2.save(model_of(activation="gelu_new"), None, tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["n_ctx"] == fields["n_positions"] == 16


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"layer_norm_epsilon": 0.1}, ("CTranslate2", "keras-hub", "0.1")),
        ({"activation": "relu"}, ("llama.cpp", "keras-hub", "'relu'")),
        ({"activation": "gelu"}, ("llama.cpp", "keras-hub", "'gelu'")),
    ],
)
def test_saving_warns_of_readers_that_are_wrong_without_an_error(
    tmp_path: Path, changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    model = model_of(**{"activation": "gelu_new", **changes})
    with pytest.warns(UserWarning) as caught:
        gpt2.save(model, None, tmp_path)
    (warning,) = caught
    assert Path(warning.filename).name == "test_other_checkpoints.py"
    for part in parts:
        assert part in str(warning.message)
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = theirs(torch.arange(32).reshape(2, 16)).logits
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)


def test_converting_says_who_refuses_what_it_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of(activation="relu", n_inner=20)
    with pytest.warns(UserWarning):
        gpt2.save(model, None, tmp_path / "in")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # printed, and not warned of twice
        main(["convert", str(tmp_path / "in"), str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert "llama.cpp" in said and "n_inner=20" in said and "'relu'" in said
    # A vocabulary of 257 tokens in 300 rows.
    config = GPT2Config(n_vocab=300, n_ctx=8, n_embd=4, n_head=2, n_layer=1)
    gpt2.save(GPT2(config), Tokenizer.train("", 257), tmp_path / "rows")
    main(["convert", str(tmp_path / "rows"), str(tmp_path / "again")])
    said = capsys.readouterr().err
    assert "CTranslate2" in said and "300" in said


def test_the_command_says_what_it_found(
    model: GPT2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(nanogpt(model, "_orig_mod."), tmp_path / "ckpt.pt")
    main(["inspect", str(tmp_path), "--json"])
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert notes == list(gpt2.inspect(tmp_path).notes)
    main(["inspect", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    for note in notes:
        assert f"{note[0].upper()}{note[1:]}." in lines

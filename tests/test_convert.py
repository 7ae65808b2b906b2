"""Files that `gpt2 convert` writes for other programs.

GGUF is read back with the `gguf` package, nanoGPT's file by a small nanoGPT.
What llama.cpp itself computes from such files is compared by
`benchmarks/check_gguf.py`, outside these tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gguf import GGUFReader, GGUFWriter, dequantize
from torch import Tensor

import gpt2
from gpt2.__main__ import main
from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2.tokenizer.bpe import END_OF_TEXT, TokenizerError, spell
from gpt2.tokenizer.settings import Finding, Settings
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights import nanogpt_writing
from gpt2.weights.errors import CheckpointError
from gpt2.weights.gguf_writing import TYPES, write_gguf

SIZES = {"n_vocab": 280, "n_ctx": 16, "n_embd": 64, "n_head": 2, "n_layer": 2}
LINEAR = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
OWN = Tokenizer.train("the cat sat on the mat, the cat sat", 265)

# llama.cpp's name for each tensor of the model, written out.
NAMES = {
    "wte.weight": "token_embd.weight",
    "wpe.weight": "position_embd.weight",
    "ln_f.weight": "output_norm.weight",
    "ln_f.bias": "output_norm.bias",
}
for _layer in range(2):
    for _ours, _theirs in {
        "ln_1": "attn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "ln_2": "ffn_norm",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    }.items():
        for _kind in ("weight", "bias"):
            name = f"h.{_layer}.{_ours}.{_kind}"
            NAMES[name] = f"blk.{_layer}.{_theirs}.{_kind}"


def model_of(**changes: Any) -> GPT2:
    """A small model in which every parameter matters."""
    torch.manual_seed(1)
    model = GPT2(GPT2Config(**{**SIZES, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    gpt2.save(model_of(), OWN, folder)
    return folder


def write_in(folder: Path, model: GPT2) -> None:
    """Save a model with a tokenizer of its own, whoever misreads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gpt2.save(model, OWN, folder)


def tensors_of(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in GGUFReader(path).tensors}


def value(path: Path, key: str) -> Any:
    """A value of a GGUF file; KeyError if it has none of this name."""
    return GGUFReader(path).fields[key].contents()


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


# --- GGUF ---


@pytest.mark.parametrize("kind", TYPES)
def test_gguf_has_every_number(saved: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.gguf"
    assert main(["convert", str(saved), str(path), "--type", kind]) == 0
    found = tensors_of(path)
    state = model_of().state_dict()
    assert found.keys() == {NAMES[name] for name in state}
    for name, tensor in state.items():
        if name == "wte.weight":
            tensor = tensor[: OWN.n_vocab]
        if name.endswith(LINEAR):
            tensor = tensor.T
        theirs = found[NAMES[name]]
        matrix = tensor.dim() == 2 and name != "wpe.weight"
        assert theirs.tensor_type.name == (kind.upper() if matrix else "F32")
        # GGUF lists the dimensions from the innermost.
        assert theirs.shape.tolist() == list(tensor.shape)[::-1]
        data = dequantize(theirs.data, theirs.tensor_type)
        got = torch.from_numpy(data.copy()).view(tensor.shape)
        assert_within_rounding(got, tensor, kind if matrix else "f32")


def assert_within_rounding(got: Tensor, tensor: Tensor, kind: str) -> None:
    if kind == "q8_0":
        blocks = tensor.reshape(-1, 32)
        steps = blocks.abs().amax(1, keepdim=True) / 127
        # Half a step, and what is lost by rounding the step to a float16.
        most = steps / 2 + 127 * (steps - steps.half().float()).abs() + 1e-7
        assert ((got.reshape(-1, 32) - blocks).abs() <= most).all()
        assert (got != tensor).any()
    else:
        dtype = {"bf16": torch.bfloat16, "f16": torch.float16}.get(kind)
        assert torch.equal(got, tensor.to(dtype or torch.float32).float())


def test_ggufs_values_are_those_of_llama_cpps_converter(
    saved: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cats.gguf"
    assert main(["convert", str(saved), str(path)]) == 0
    ends = OWN.end_of_text
    expected = {
        "general.architecture": "gpt2",
        "general.type": "model",
        "general.name": "cats",
        "general.file_type": 0,
        "general.quantization_version": 2,
        "gpt2.block_count": 2,
        "gpt2.context_length": 16,
        "gpt2.embedding_length": 64,
        "gpt2.feed_forward_length": 256,
        "gpt2.attention.head_count": 2,
        "gpt2.attention.layer_norm_epsilon": float(np.float32(1e-5)),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": ends,
        "tokenizer.ggml.eos_token_id": ends,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.token_type": [1] * ends + [3],
        "tokenizer.ggml.tokens": [
            *(spell(OWN.token_bytes(i)) for i in range(ends)),
            END_OF_TEXT,
        ],
        "tokenizer.ggml.merges": [
            f"{spell(first)} {spell(second)}" for first, second in OWN.merges
        ],
    }
    fields = GGUFReader(path).fields
    assert {k for k in fields if not k.startswith("GGUF.")} == expected.keys()
    for key, wanted in expected.items():
        assert fields[key].contents() == wanted, key


@pytest.mark.parametrize(
    ("dtype", "kind", "file_type"),
    [("float32", "F32", 0), ("bfloat16", "BF16", 32), ("float16", "F16", 1)],
)
def test_gguf_keeps_the_dtype(
    tmp_path: Path, dtype: str, kind: str, file_type: int
) -> None:
    model = model_of().to(getattr(torch, dtype))
    assert write_gguf(tmp_path / "x.gguf", model, OWN) == [
        "15 rows of the embedding have no token and are left out"
    ]
    types = {
        t.tensor_type.name for t in tensors_of(tmp_path / "x.gguf").values()
    }
    assert types == {kind, "F32"}
    assert value(tmp_path / "x.gguf", "general.file_type") == file_type


@pytest.mark.parametrize("number", [0.0, 1e-42, 1e-39, 1e-30, 1e-6])
def test_q8_0_of_blocks_without_large_numbers(
    tmp_path: Path, number: float
) -> None:
    model = model_of()
    with torch.no_grad():
        model.wte.weight[5, :32] = number * torch.linspace(-1, 1, 32)
    path = tmp_path / "x.gguf"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_gguf(path, model, OWN, "q8_0")
    tensor = tensors_of(path)["token_embd.weight"]
    found = dequantize(tensor.data, tensor.tensor_type)[5, :32]
    assert np.abs(found).max() <= number * 1.1
    assert np.abs(found - model.wte.weight[5, :32].tolist()).max() <= 1e-6


def test_gguf_of_other_sizes(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    model = model_of(layer_norm_epsilon=0.25, n_ctx=7, n_vocab=265)
    assert write_gguf(path, model, OWN, "q8_0") == []
    assert value(path, "gpt2.attention.layer_norm_epsilon") == 0.25
    assert value(path, "gpt2.context_length") == 7
    assert value(path, "general.file_type") == 7


def test_gguf_of_a_tokenizer_that_begins_texts(tmp_path: Path) -> None:
    path = tmp_path / "story.gguf"
    assert main(["convert", "story", str(path)]) == 0
    assert value(path, "tokenizer.ggml.add_bos_token") is True


def test_gguf_of_bytes_has_a_merge_that_never_happens(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf", model_of(), Tokenizer.bytes_only())
    (merge,) = value(tmp_path / "x.gguf", "tokenizer.ggml.merges")
    assert merge == f"a {spell(b' ')}"


def test_gguf_leaves_out_a_token_that_the_model_has_no_row_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    special = {END_OF_TEXT: 264, "<user>": 265, "[PAD]": 266}
    gpt2.save(model_of(n_vocab=266), None, tmp_path / "in")
    Tokenizer(OWN.ranks, special).write(tmp_path / "in")
    path = tmp_path / "x.gguf"
    assert main(["convert", str(tmp_path / "in"), str(path)]) == 0
    assert "'[PAD]'" in said(capsys)
    tokens = value(path, "tokenizer.ggml.tokens")
    assert tokens[264:] == [END_OF_TEXT, "<user>"]
    assert value(path, "tokenizer.ggml.token_type")[264:] == [3, 3]
    assert len(tensors_of(path)["token_embd.weight"].data) == 266


@pytest.mark.parametrize(
    ("changes", "kind", "parts"),
    [
        ({"activation": "relu"}, "f32", ("activation='relu'", "llama.cpp")),
        ({"activation": "gelu"}, "f32", ("activation='gelu'", "llama.cpp")),
        ({"n_embd": 36}, "q8_0", ("n_embd=36", "32", "--type")),
        ({"n_inner": 100}, "q8_0", ("n_inner=100",)),
    ],
)
def test_gguf_refuses_a_model_by_name(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    kind: str,
    parts: tuple[str, ...],
) -> None:
    write_in(tmp_path / "in", model_of(**changes))
    out = tmp_path / "new" / "x.gguf"
    assert main(["convert", str(tmp_path / "in"), str(out), "--type", kind])
    message = said(capsys)
    for part in parts:
        assert part in message
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("ranks", "special", "part"),
    [
        ({bytes([b]): b for b in range(255)}, {END_OF_TEXT: 255}, "0xff"),
        (OWN.ranks, {END_OF_TEXT: 264, "a\0b": 265}, "'a\\x00b'"),
        (OWN.ranks, {END_OF_TEXT: 264, spell(b" cat"): 265}, "'Ġcat'"),
    ],
)
def test_gguf_refuses_a_vocabulary_by_name(
    tmp_path: Path,
    ranks: dict[bytes, int],
    special: dict[str, int],
    part: str,
) -> None:
    path = tmp_path / "x.gguf"
    with pytest.raises(CheckpointError) as caught:
        write_gguf(path, model_of(), Tokenizer(ranks, special))
    assert part in str(caught.value)
    assert not path.exists()


def test_gguf_of_a_tokenizer_with_settings(tmp_path: Path) -> None:
    special = {"<s>": 264, "</s>": 265, "[PAD]": 266}
    chosen = Settings(
        digits=r"\p{N}",
        before=(264,),
        after=(265,),
        bos="<s>",
        eos="</s>",
        pad="[PAD]",
        words={"catnip": 267},
        finding={"<s>": Finding(normalized=True)},
    )
    path = tmp_path / "x.gguf"
    write_gguf(
        path, model_of(), Tokenizer(OWN.ranks, special, settings=chosen)
    )
    for key, expected in {
        "pre": "starcoder",
        "bos_token_id": 264,
        "eos_token_id": 265,
        "padding_token_id": 266,
        "add_bos_token": True,
        "add_eos_token": True,
    }.items():
        assert value(path, f"tokenizer.ggml.{key}") == expected, key
    tokens = value(path, "tokenizer.ggml.tokens")
    assert tokens[264:] == ["<s>", "</s>", "[PAD]", "catnip"]
    assert value(path, "tokenizer.ggml.token_type")[264:] == [3, 3, 3, 4]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"normalizers": ("NFC",)}, "normalizers=('NFC',)"),
        ({"digits": r"\p{N}+"}, "digits"),
        ({"add_prefix_space": True}, "add_prefix_space=True"),
        ({"before": (264, 264)}, "[264, 264]"),
        ({"after": (65,)}, "[65]"),
        ({"words": {"cat": 265, "atlas": 266}}, "'catlas'"),
        ({"words": {"x<|": 265}}, "'x<|endoftext|>'"),
    ],
)
def test_gguf_refuses_settings_by_name(
    tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    chosen = Settings(**changes)
    tokenizer = Tokenizer(OWN.ranks, OWN.special_tokens, settings=chosen)
    with pytest.raises(CheckpointError) as caught:
        write_gguf(tmp_path / "x.gguf", model_of(), tokenizer)
    assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_gguf_of_words_that_overlap_without_harm(tmp_path: Path) -> None:
    chosen = Settings(words={"  ": 265, "   ": 266, "t   ": 267})
    tokenizer = Tokenizer(OWN.ranks, OWN.special_tokens, settings=chosen)
    write_gguf(tmp_path / "x.gguf", model_of(), tokenizer)


@pytest.mark.parametrize(
    ("number", "kind"), [(7e4, "f16"), (3.4e38, "bf16"), (1e7, "q8_0")]
)
def test_gguf_refuses_a_number_too_large_for_the_type(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: float,
    kind: str,
) -> None:
    model = model_of()
    with torch.no_grad():
        model.h[1].mlp.c_proj.weight[3, 5] = -number
    gpt2.save(model, OWN, tmp_path / "in")
    out = tmp_path / "x.gguf"
    out.write_bytes(b"old")
    assert main(["convert", str(tmp_path / "in"), str(out), "--type", kind])
    message = said(capsys)
    assert "'h.1.mlp.c_proj.weight'" in message and f"{number:g}" in message
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "x.gguf"]


def test_gguf_refuses_more_tokens_than_rows(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="265 entries"):
        write_gguf(tmp_path / "x.gguf", model_of(n_vocab=264), OWN)
    assert not list(tmp_path.iterdir())


def test_gguf_needs_a_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpt2.save(model_of(), None, tmp_path / "in")
    out = tmp_path / "x.gguf"
    assert main(["convert", str(tmp_path / "in"), str(out)]) == 1
    assert "vocab.json" in said(capsys)
    assert not out.exists()


# --- nanoGPT ---


def nanogpt_logits(saved: dict[str, Any], tokens: Tensor) -> Tensor:
    """What nanoGPT's model.py computes from its file, with `nn.Linear`'s maps.

    Args:
        saved: The content of the file.
        tokens: Token ids, (B, T).
    """
    state, args = saved["model"], saved["model_args"]

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, 1e-5)

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (args["n_head"], -1)).transpose(1, 2)

    x = state["transformer.wte.weight"][tokens]
    x = x + state["transformer.wpe.weight"][: tokens.shape[1]]
    for i in range(args["n_layer"]):
        h = f"transformer.h.{i}"
        qkv = linear(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn")
        mixed = F.scaled_dot_product_attention(
            *map(heads, qkv.chunk(3, -1)), is_causal=True
        )
        mixed = mixed.transpose(1, 2).flatten(2)
        x = x + linear(mixed, f"{h}.attn.c_proj")
        inner = F.gelu(linear(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc"))
        x = x + linear(inner, f"{h}.mlp.c_proj")
    return F.linear(norm(x, "transformer.ln_f"), state["lm_head.weight"])


@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_nanogpts_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], activation: str
) -> None:
    model = model_of(activation=activation, resid_dropout=0.25)
    write_in(tmp_path / "in", model)
    out = tmp_path / "ckpt.pt"
    assert main(["convert", str(tmp_path / "in"), str(out)]) == 0
    notes = said(capsys)
    assert ("exact GELU" in notes) == (activation == "gelu_new")
    assert "0.25" in notes and "tokenizer" in notes
    saved = torch.load(out, weights_only=True)
    assert saved["model_args"] == {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 64,
        "block_size": 16,
        "bias": True,
        "vocab_size": 280,
        "dropout": 0.25,
    }
    assert saved["iter_num"] == 0 and saved["best_val_loss"] == 1e9
    state = saved["model"]
    names = {f"transformer.{name}" for name in model.state_dict()}
    assert state.keys() == names | {"lm_head.weight"}
    assert state["transformer.h.0.mlp.c_fc.weight"].shape == (256, 64)
    tied = (state["lm_head.weight"], state["transformer.wte.weight"])
    assert tied[0].data_ptr() == tied[1].data_ptr()
    tokens = torch.arange(32).reshape(2, 16)
    with torch.no_grad():
        ours, theirs = model(tokens), nanogpt_logits(saved, tokens)
    # The two forms of GELU are less than 0.0005 apart.
    most = 1e-4 if activation == "gelu" else 0.05
    assert (ours - theirs).abs().max() < most

    again = gpt2.load_model(out)
    assert again.config.activation == activation
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_nanogpts_file_keeps_a_dtype(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "CKPT.PT"
    options = ["--dtype", "bfloat16"]
    assert main(["convert", str(saved), str(out), *options]) == 0
    state = torch.load(out, weights_only=True)["model"]
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"activation": "relu"}, "activation='relu'"),
        ({"n_inner": 100}, "n_inner=100"),
        ({"layer_norm_epsilon": 0.1}, "layer_norm_epsilon=0.1"),
    ],
)
def test_nanogpts_file_refuses_a_model_by_name(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    part: str,
) -> None:
    write_in(tmp_path / "in", model_of(**changes))
    out = tmp_path / "new" / "ckpt.pt"
    assert main(["convert", str(tmp_path / "in"), str(out)]) == 1
    assert part in said(capsys)
    assert not out.parent.exists()


def test_nanogpts_file_of_gpt2s_tokens_needs_no_note(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = model_of(activation="gelu")
    notes = nanogpt_writing.write_nanogpt(tmp_path / "a.pt", model, OWN)
    assert len(notes) == 1
    assert not nanogpt_writing.write_nanogpt(tmp_path / "a.pt", model, None)
    try:
        tokenizer = Tokenizer.gpt2()
    except TokenizerError as error:
        pytest.skip(str(error))
    model = model_of(activation="gelu", n_vocab=50257)
    assert not nanogpt_writing.write_nanogpt(
        tmp_path / "a.pt", model, tokenizer
    )


def test_only_a_known_activation_is_read_from_nanogpts_file(
    tmp_path: Path,
) -> None:
    nanogpt_writing.write_nanogpt(tmp_path / "ckpt.pt", model_of(), None)
    content = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    for named in ("swish", 3, content["model"], ["gelu_new"]):
        content["config"] = {"activation_function": named}
        torch.save(content, tmp_path / "ckpt.pt")
        config = gpt2.load_model(tmp_path).config
        assert config.activation == "gelu"  # nanoGPT's own


# --- what is refused, and what is left behind ---


@pytest.mark.parametrize(
    ("out", "options", "parts"),
    [
        ("x.gguf", ["--dtype", "float16"], ("--dtype", "--type")),
        ("x.pt", ["--type", "f16"], ("--type f16", "NAME.gguf")),
        ("folder", ["--type", "q8_0"], ("--type q8_0", "folder")),
        ("x.safetensors", [], (".safetensors", "NAME.gguf", "NAME.pt")),
        ("x.BIN", [], (".bin", "folder")),
        ("x.gguf", ["--type", "q4_0"], ("q4_0", "q8_0")),
    ],
)
def test_wrong_use(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    out: str,
    options: list[str],
    parts: tuple[str, ...],
) -> None:
    try:  # nothing is loaded: there is no such model
        code = main(["convert", "none", str(tmp_path / out), *options])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    assert code == 2
    message = said(capsys)
    for part in parts:
        assert part in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.gguf", "x.pt"])
def test_a_folder_is_not_replaced_by_a_file(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").touch()
    assert main(["convert", str(saved), str(tmp_path / name)]) == 1
    assert "is a folder" in said(capsys)
    assert (tmp_path / name / "mine").exists()


def test_an_existing_folder_may_have_any_name(
    saved: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.bin").mkdir()
    assert main(["convert", str(saved), str(tmp_path / "x.bin")]) == 0
    assert gpt2.load_model(tmp_path / "x.bin")


@pytest.mark.parametrize("name", ["x.gguf", "x.pt"])
@pytest.mark.parametrize("n_bytes", [100, 30_000])
def test_a_full_disk_leaves_the_old_file(
    saved: Path, tmp_path: Path, name: str, n_bytes: int
) -> None:
    """A limit for the size of files stands for the disk."""
    (tmp_path / name).write_bytes(b"old")
    script = (
        "import resource, sys\nfrom gpt2.__main__ import main\n"
        f"limit = resource.RLIMIT_FSIZE, ({n_bytes}, {n_bytes})\n"
        "resource.setrlimit(*limit)\nsys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "convert", saved, tmp_path / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("gpt2: ") and name in last, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / name).read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("name", ["x.gguf", "x.pt"])
def test_a_killed_process_leaves_no_file(
    saved: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out" / name
    assert in_a_fork(lambda: killed_while_writing(saved, out)) == 9
    assert not out.exists()
    assert main(["convert", str(saved), str(out)]) == 0
    assert [path.name for path in out.parent.iterdir()] == [name]


def in_a_fork(action: Callable[[], Any]) -> int:
    """Run an action in another process; return its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_while_writing(source: Path, out: Path) -> None:
    """Convert, and end the process in the middle of the file."""

    def write_and_die(self: Any, *_: Any) -> None:
        if len(self.tensors[0]) < 10:
            os._exit(9)
        original(self, *_)

    def save_and_die(content: Any, path: Path) -> None:
        path.write_bytes(b"PK")
        os._exit(9)

    original = GGUFWriter.write_tensor_data
    patch = pytest.MonkeyPatch()
    patch.setattr(GGUFWriter, "write_tensor_data", write_and_die)
    patch.setattr(torch, "save", save_and_die)
    main(["convert", str(source), str(out)])


def test_the_help_names_the_formats(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for word in ("NAME.gguf", "NAME.pt", "llama.cpp", "nanoGPT", *TYPES):
        assert word in text

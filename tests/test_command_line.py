"""The command line, as one who types it sees it.

Nearly all tests call `main` in this process; what needs a process of its own
(signals, pipes, what is imported) has one.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file

import gpt2
from gpt2.__main__ import CtrlC, main
from gpt2.commands.common import check_memory
from gpt2.commands.parsing import COMMANDS
from gpt2.completion import complete, predict
from gpt2.config import GPT2Config
from gpt2.inference.packed import PackedGPT2
from gpt2.layer import GPT2Layer
from gpt2.model import GPT2
from gpt2.sampling import Sampling
from gpt2.tokenizer.tokenizer import END_OF_TEXT, Tokenizer
from gpt2.training import corpus
from gpt2.training.cross_entropy import NextTokenLoss
from gpt2.weights import loading
from gpt2_book import DATA

TENSORFLOW = DATA / "tensorflow-tiny"
BYTES = Tokenizer.bytes_only()
SHARES = {"a": 0.5, "b": 0.25, " ": 0.125, "\n": 0.1, "é": 0.025, "z": 3.21e-7}


def write_model(
    folder: Path,
    shares: Mapping[str, float],
    n_ctx: int = 32,
    n_rows: int = 257,
) -> str:
    """Save a model that says each byte with its share, whatever came before.

    It is one number wide, and that number is 1: so a token's embedding is its
    logit. Of a character of several bytes, the first stands for all. Rows
    beyond the 257 tokens have larger logits than any token.
    """
    sizes = {"n_embd": 1, "n_head": 1, "n_layer": 1, "n_inner": 1}
    model = GPT2(GPT2Config(n_vocab=n_rows, n_ctx=n_ctx, **sizes))
    with torch.no_grad():
        model.wte.weight.fill_(-50)
        model.wte.weight[257:] = 5
        for text, share in shares.items():
            token = BYTES.encode(text, allow_special=True)[0]
            model.wte.weight[token] = torch.tensor(share).log()
        model.ln_f.weight.fill_(0)
        model.ln_f.bias.fill_(1)
    gpt2.save(model, BYTES, folder)
    return str(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("models") / "shares", SHARES)


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model in a table of 320 rows, as nanoGPT would make it."""
    folder = tmp_path_factory.mktemp("models") / "padded"
    return write_model(folder, SHARES, n_rows=320)


class Result(NamedTuple):
    code: int
    output: str
    errors: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """`run(*arguments)` runs a command in this process."""

    def run(*arguments: object) -> Result:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return Result(code, *capsys.readouterr())

    return run


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Put bytes into standard input."""
    stdin = io.TextIOWrapper(io.BytesIO(data), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", stdin)


# generate


def test_generate_prints_the_text_and_what_follows(
    run: Any, saved: str
) -> None:
    command = ["generate", "a b", "--model", saved, "-n", 4]
    assert run(*command, "--temperature", 0) == (0, "a baaaa\n", "")
    assert run(*command, "--top-k", 1) == (0, "a baaaa\n", "")
    assert run(*command, "-n", 0) == (0, "a b\n", "")


def test_generate_gives_what_the_library_gives(run: Any, saved: str) -> None:
    model, tokenizer = gpt2.load(saved)
    sampling = Sampling(
        temperature=1.5,
        top_k=5,
        top_p=0.9,
        min_p=0.01,
        repetition_penalty=0.8,
    )
    expected = complete(
        model, tokenizer, "ab", 20, sampling, stop=["ba\n", "b "], seed=3
    )
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in asdict(sampling).items()
    ]
    found = run(
        *("generate", "ab", "--model", saved, "--seed", 3),
        *("--max-tokens", 20, "--stop", "ba\n", "--stop", "b "),
        *options,
    )
    assert found == (0, f"ab{expected}\n", "")


def test_a_seed_gives_the_same_text(run: Any, saved: str) -> None:
    command = ["generate", "a", "--model", saved, "-n", 30]
    once = run(*command, "--seed", 1)
    assert once.code == 0
    assert run(*command, "--seed", 1) == once
    assert run(*command, "--seed", 2) != once
    assert run(*command) != run(*command)


def test_generate_json(run: Any, saved: str) -> None:
    command = ["generate", "é", "--model", saved, "-n", 9, "--seed", 4]
    found = json.loads(run(*command, "--json").output)
    plain = run(*command).output
    assert found == {
        "model": saved,
        "prompt": "é",
        "continuations": [plain.removeprefix("é").removesuffix("\n")],
        "seed": 4,
    }
    # A seed that was not given is told, so that one can come back to it.
    command = ["generate", "a", "--model", saved, "-n", 9]
    told = json.loads(run(*command, "--json").output)
    again = run(*command, "--seed", told["seed"]).output
    assert again == "a" + told["continuations"][0] + "\n"


def test_several_samples(run: Any, saved: str) -> None:
    command = ["generate", "a", "--model", saved, "-n", 9, "--seed", 4]
    found = json.loads(run(*command, "--samples", 3, "--json").output)
    texts = ["a" + text for text in found["continuations"]]
    assert len(set(texts)) == 3
    plain = run(*command, "--samples", 3).output
    assert plain == "\n\n---\n".join(texts) + "\n"
    assert run(*command).output == texts[0] + "\n"


def test_beams(run: Any, saved: str, tmp_path: Path) -> None:
    command = ["generate", "b", "--beams", 2, "-n", 4, "--model"]
    assert run(*command, saved) == (0, "baaaa\n", "")
    assert (
        run(*command, saved, "--stop", "aaa", "--stop", "aab").output == "b\n"
    )
    assert run(*command, saved, "--stop", "baa").output == "baaaa\n"
    found = json.loads(run(*command, saved, "--json").output)
    assert found["continuations"] == ["aaaa"]
    ends = write_model(tmp_path / "ends", {"a": 0.2, END_OF_TEXT: 0.8})
    assert run(*command, ends).output == "b\n"


def test_beams_draw_nothing(run: Any, saved: str) -> None:
    """What says how to draw is refused rather than passed over."""
    command = ["generate", "b", "--model", saved, "--beams", 2]
    for options in (["--samples", 2], ["--top-k", 5], ["--temperature", 0.5]):
        assert_one_line(
            run(*command, *options), 2, f"--beams .* drop {options[0]}$"
        )


def test_the_text_comes_from_standard_input(
    run: Any, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["generate", "--model", saved, "-n", 2, "--temperature", 0]
    feed(monkeypatch, "é b\n\n".encode())
    assert run(*command) == (0, "é b\naa\n", "")  # less one line end
    feed(monkeypatch, b"")
    assert run(*command) == (0, "aa\n", "")  # the beginning of a text
    feed(monkeypatch, b"not read")
    assert run(*command, "") == (0, "aa\n", "")


def test_a_person_at_the_keyboard_is_told(
    run: Any, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in ("predict", "eval text"):
        feed(monkeypatch, b"b\n")
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        code, output, errors = run(*command.split(), "--model", saved)
        assert (code, bool(output)) == (0, True)
        assert errors == "gpt2: reading the text; Ctrl-D ends it\n"


def test_generate_writes_each_piece_before_the_next_is_computed(
    saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    class Screen(io.StringIO):
        encoding = "utf-8"

        def reconfigure(self, **options: Any) -> None:
            pass

        def write(self, text: str) -> int:
            if text:
                events.append(text)
            return len(text)

        def flush(self) -> None:
            events.append("shown")

    forward = PackedGPT2.__call__

    def watched(*arguments: Any, **options: Any) -> Any:
        events.append("step")
        return forward(*arguments, **options)

    monkeypatch.setattr(PackedGPT2, "__call__", watched)
    monkeypatch.setattr(sys, "stdout", Screen())
    command = ["generate", "b", "--model", saved, "-n", "2"]
    assert main([*command, "--temperature", "0"]) == 0
    seen = "b shown step a shown step a shown \n shown"
    assert events == seen.split(" ")


@pytest.mark.parametrize(
    "options",
    [
        ["--dtype", "bfloat16"],
        ["--dtype", "float16"],
        ["--device", "cpu"],
        ["--device", "cpu:0"],
    ],
    ids=" ".join,
)
def test_dtypes_and_devices(run: Any, saved: str, options: list[str]) -> None:
    command = ["generate", "b", "--model", saved, "-n", 2, "--temperature", 0]
    assert run(*command, *options) == (0, "baa\n", "")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_which_model_runs(
    run: Any, saved: str, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """The packed one, unless `--unpacked` asks for the book's."""
    calls: list[int] = []
    forward = GPT2Layer.forward

    def watched(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return forward(*arguments, **options)

    monkeypatch.setattr(GPT2Layer, "forward", watched)
    command = ["generate", "b", "--model", saved, "-n", 2, "--dtype", dtype]
    command += ["--temperature", 0]
    assert run(*command) == (0, "baa\n", "")
    assert calls == []
    assert run(*command, "--unpacked") == (0, "baa\n", "")
    assert calls == [1, 1]


@pytest.mark.parametrize(
    "options",
    [
        ["--unpacked"],
        ["--dtype", "float32"],
        ["--dtype", "float16"],
        ["--dtype", "bfloat16", "--temperature", 0],
        ["--dtype", "int8"],
        ["--dtype", "int4"],
        ["--unpacked", "--top-k", 2, "--repetition-penalty", 1.5],
        ["--beams", 2],
        ["--unpacked", "--beams", 2],
    ],
    ids=str,
)
def test_generate_never_draws_a_row_without_a_token(
    run: Any, saved: str, padded: str, options: list[Any]
) -> None:
    command = ["generate", "b", "-n", 9, "--seed", 1, *options, "--model"]
    expected = run(*command, saved)
    assert expected.code == 0
    assert len(set(expected.output)) > 2
    assert run(*command, padded) == expected


def test_help_says_which_model_runs(run: Any) -> None:
    output = " ".join(run("generate", "--help").output.split())
    for word in ("packed", "compiled on first use", "--unpacked runs"):
        assert word in output


def test_a_file_of_weights(run: Any, saved: str) -> None:
    file = Path(saved, "model.safetensors")
    command = ["generate", "b", "-n", 2, "--temperature", 0, "--model", file]
    assert run(*command) == (0, "baa\n", "")


# predict


PREDICTED = """\
The prompt as tokens:

position   id  token
       0   64  "a"
       1  220  " "
       2  127  "\ufffd"
       3  102  "\ufffd"

The likeliest next tokens; chance is the probability of being drawn:

rank   id  token   logit  probability  chance
   1   64  "a"     -0.69        50.0%   57.1%
   2   65  "b"     -1.39        25.0%   28.6%
   3  220  " "     -2.08        12.5%   14.3%
   4  198  "\\n"    -2.30        10.0%      0%
   5  127  "\ufffd"     -3.69        2.50%      0%
   6   89  "z"    -14.95    3.21e-05%      0%

"""


def test_predict(run: Any, saved: str) -> None:
    command = ["predict", "a é", "--model", saved, "--seed", 5, "--top", 6]
    code, output, errors = run(*command, "--top-k", 3)
    assert (code, errors) == (0, "")
    table, last = output[: len(PREDICTED)], output[len(PREDICTED) :]
    assert table == PREDICTED
    prediction = predict(
        *gpt2.load(saved), "a é", 6, Sampling(top_k=3), seed=5
    )
    assert output == f"{prediction}\nSeed: 5\n"
    drawn = prediction.sampled
    shares = {
        "a": "probability 50.0%, chance 57.1%",
        "b": "probability 25.0%, chance 28.6%",
        " ": "probability 12.5%, chance 14.3%",
    }[drawn.text]
    assert last == (
        f'Drawn: "{drawn.text}" (id {drawn.id}, {shares})\nSeed: 5\n'
    )


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "bfloat16", "int8", "int4"]
)
@pytest.mark.parametrize("filters", [[], ["--top-k", 3]], ids=str)
def test_predict_shows_no_row_without_a_token(
    run: Any, saved: str, padded: str, dtype: str, filters: list[Any]
) -> None:
    command = ["predict", "a é", "--top", 300, "--dtype", dtype, *filters]
    command += ["--seed", 5, "--json", "--model"]
    found = json.loads(run(*command, padded).output)
    expected = json.loads(run(*command, saved).output)
    assert len(found["candidates"]) == 257
    assert found["sampled"]["id"] == expected["sampled"]["id"]
    if dtype != "bfloat16":  # packed without the mean, here of 63 more rows
        for i in range(5):
            one, other = found["candidates"][i], expected["candidates"][i]
            assert one == pytest.approx(other, rel=0.01)


def test_predict_writes_shares_with_three_digits(run: Any, saved: str) -> None:
    command = ["predict", "a", "--model", saved, "--seed", 5, "--top", 6]
    found = run(*command, "--temperature", 0).output.split("\n")
    assert [line.split()[-1] for line in found[8:14]] == ["100%"] + ["0%"] * 5
    found = run(*command, "--temperature", 0.5).output.split("\n")
    assert [line.split()[-1] for line in found[8:14]] == [
        *("73.8%", "18.5%", "4.61%", "2.95%", "0.185%", "3.04e-11%")
    ]


def test_predict_json(run: Any, saved: str) -> None:
    command = ["predict", "a é", "--model", saved, "--seed", 5]
    found = json.loads(run(*command, "--top", 2, "--json").output)
    assert found.keys() == {
        *("model", "prompt", "ids", "texts", "candidates", "sampled"),
    }
    assert found["model"] == saved
    assert found["prompt"] == "a é"
    assert found["ids"] == [64, 220, 127, 102]
    assert found["texts"] == ["a", " ", "\ufffd", "\ufffd"]
    first, second = found["candidates"]
    assert first["text"] == "a"
    assert second == {
        "id": 65,
        "text": "b",
        "logit": pytest.approx(-1.386294),
        "probability": pytest.approx(0.25),
        "chance": pytest.approx(0.25),
    }
    assert found["sampled"].keys() == second.keys()


@pytest.mark.parametrize(
    "command", ["predict", "generate", "generate --beams 2"]
)
def test_special_tokens_in_a_prompt(
    run: Any, saved: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are tokens, unless the option says that they are characters."""
    prompt = END_OF_TEXT * 3
    options = [*command.split(), "--model", saved]
    assert run(*options, prompt).code == 0
    feed(monkeypatch, prompt.encode())
    assert run(*options).code == 0
    found = run(*options, prompt, "--no-special-tokens")
    assert_one_line(found, 2, f"{len(prompt)} tokens")
    if command == "predict":
        found = json.loads(run(*options, f"{END_OF_TEXT}b", "--json").output)
        assert found["ids"] == [256, 65]


# inspect


INSPECTED = """\
file                {file} (TensorFlow)
n_vocab             17
n_ctx               8
n_embd              12
n_head              3
n_layer             2
activation          gelu_new
layer_norm_epsilon  1e-05
embd_dropout        0.1
attn_dropout        0.1
resid_dropout       0.1
parameters          4,092 in 28 tensors, F32, 16,368 bytes

in the file             shape     dtype  bytes  in the model
model/wte               [17, 12]  F32      816  wte.weight
model/wpe               [8, 12]   F32      384  wpe.weight
model/h0/ln_1/g         [12]      F32       48  h.0.ln_1.weight
model/h0/ln_1/b         [12]      F32       48  h.0.ln_1.bias
model/h0/attn/c_attn/w  [12, 36]  F32    1,728  h.0.attn.c_attn.weight
"""


def test_inspect(run: Any) -> None:
    code, output, errors = run("inspect", TENSORFLOW)
    assert (code, errors) == (0, "")
    expected = INSPECTED.format(file=TENSORFLOW / "model.ckpt.index")
    assert output.startswith(expected)
    rows = output.split("\n\n")[1].splitlines()
    # In the order of the model, whatever that of the file.
    model = gpt2.load_model(TENSORFLOW)
    assert [row.split()[-1] for row in rows[1:]] == list(model.state_dict())
    assert len({row.index("F32") for row in rows[1:]}) == 1


def test_inspect_json(run: Any) -> None:
    found = json.loads(run("inspect", TENSORFLOW, "--json").output)
    model = gpt2.load_model(TENSORFLOW)
    assert GPT2Config(**found["config"]) == model.config
    assert found["parameters"] == model.num_parameters()
    assert found["format"] == "TensorFlow"
    assert found["file"] == str(TENSORFLOW / "model.ckpt.index")
    tensors = found["tensors"]
    assert [tensor["name_in_model"] for tensor in tensors.values()] == list(
        model.state_dict()
    )
    assert tensors["model/h1/mlp/c_fc/w"] == {
        "dtype": "F32",
        "shape": [12, 48],
        "file": "model.ckpt.index",
        "name_in_model": "h.1.mlp.c_fc.weight",
    }


def test_inspect_says_what_the_model_does_not_need(
    run: Any, saved: str, tmp_path: Path
) -> None:
    model = gpt2.load_model(saved)
    weights = {f"transformer.{n}": x for n, x in model.state_dict().items()}
    save_file(
        {
            "lm_head.weight": model.wte.weight.detach().clone(),
            "transformer.h.0.attn.bias": torch.ones(1, 1, 32, 32).bool(),
            **weights,
        },
        tmp_path / "model.safetensors",
    )
    config = json.dumps(model.config.to_dict())
    (tmp_path / "config.json").write_text(config)
    output = run("inspect", tmp_path).output
    n_parameters, n_bytes = model.num_parameters(), 4 * model.num_parameters()
    assert (
        f"parameters          {n_parameters} in {len(weights)} tensors, F32, "
        f"{n_bytes:,} bytes\n"
    ) in output
    rows = output.splitlines()[-len(weights) - 2 :]
    assert rows[0].split()[0] == "transformer.wte.weight"
    assert rows[-2].split() == [
        *("lm_head.weight", "[257,", "1]", "F32", "1,028", "(not", "needed)"),
    ]
    assert rows[-1].split() == [
        *("transformer.h.0.attn.bias", "[1,", "1,", "32,", "32]", "BOOL"),
        *("1,024", "(not", "needed)"),
    ]


def test_what_needs_no_torch_does_not_wait_for_it(saved: str) -> None:
    script = f"""
import contextlib, sys
from gpt2.__main__ import main
from gpt2.commands.parsing import COMMANDS
assert main(["inspect", {str(TENSORFLOW)!r}]) == 0
assert main(["inspect", {saved!r}, "--json"]) == 0
for command in [[], *([name] for name in COMMANDS)]:
    for options in (["--help"], ["--no-such-option"]):
        with contextlib.suppress(SystemExit):
            main([*command, *options])
slow = {{"torch", "transformers", "huggingface_hub", "safetensors"}}
assert not slow & sys.modules.keys(), slow & sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: gpt2 generate" in done.stdout


# convert


def assert_equal_models(found: GPT2, expected: GPT2) -> None:
    assert found.config == expected.config
    theirs = expected.state_dict()
    assert found.state_dict().keys() == theirs.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_convert_from_tensorflow(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    code, output, errors = run("convert", TENSORFLOW, out)
    assert (code, output) == (0, f"{out}: 4,092 parameters, float32\n")
    assert errors.startswith("gpt2: no tokenizer is saved: ")
    assert errors.count("\n") == 1
    assert_equal_models(gpt2.load_model(out), gpt2.load_model(TENSORFLOW))
    assert {path.name for path in out.iterdir()} == {
        *("config.json", "model.safetensors"),
    }


def test_convert_from_a_pickle(run: Any, saved: str, tmp_path: Path) -> None:
    model, tokenizer = gpt2.load(saved)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    weights = {f"transformer.{n}": x for n, x in model.state_dict().items()}
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    torch.save(weights, old / "pytorch_model.bin")
    (old / "config.json").write_text(json.dumps(model.config.to_dict()))
    tokenizer.save(old)
    summary = f"{new}: {model.num_parameters()} parameters, float32\n"
    code, output, errors = run("convert", old, new)
    assert (code, output) == (0, summary)
    assert all(line.startswith("gpt2: note: ") for line in errors.splitlines())
    again, its_tokenizer = gpt2.load(new)
    assert_equal_models(again, model)
    assert its_tokenizer.ranks == tokenizer.ranks
    assert its_tokenizer.special_tokens == tokenizer.special_tokens

    code, output, _ = run("convert", old, new, "--dtype", "float16")
    assert (code, output) == (0, summary.replace("float32", "float16"))
    assert_equal_models(gpt2.load_model(new, None), model.half())


def test_convert_keeps_the_dtype(run: Any, saved: str, tmp_path: Path) -> None:
    model, tokenizer = gpt2.load(saved, "bfloat16")
    gpt2.save(model, tokenizer, tmp_path / "a")
    output = run("convert", tmp_path / "a", tmp_path / "b").output
    assert output.endswith("bfloat16\n")
    assert_equal_models(gpt2.load_model(tmp_path / "b", None), model)


def test_convert_does_not_pass_over_a_broken_tokenizer(
    run: Any, saved: str, tmp_path: Path
) -> None:
    model = gpt2.load_model(saved)
    gpt2.save(model, None, tmp_path / "a")
    (tmp_path / "a" / "vocab.json").write_text("{")
    code, output, errors = run("convert", tmp_path / "a", tmp_path / "b")
    assert (code, output) == (1, "")
    assert "vocab.json" in errors
    assert not (tmp_path / "b").exists()


# eval


def say(text: str, letter: str) -> dict[str, Any]:
    """A question of which every ending is one letter said four times."""
    return {"ctx": text, "endings": ["zzzz", "aaaa", "bbbb"], "label": letter}


def test_eval_of_documents(
    run: Any, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`<|endoftext|>` ends one, as in texts for training."""
    for options, tokens, n_bytes in (
        ((), 4, 4),
        (("--no-special-tokens",), 17, 17),
    ):
        feed(monkeypatch, b"ab<|endoftext|>ba")
        told = run("eval", "text", "--model", saved, "--json", *options)
        found = json.loads(told.output)
        assert (found["tokens"], found["bytes"]) == (tokens, n_bytes)


def test_eval_of_json_lines(
    run: Any, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--model", saved, "--json"]
    lines = [say("b", "1"), say("a", 1), say("a", 2)]
    text = "\r\n".join(map(json.dumps, lines)) + "\n\n"
    feed(monkeypatch, text.encode())
    found = json.loads(run("eval", "hellaswag", *options).output)
    assert (found["n_questions"], found["n_right"]) == (3, 2)
    feed(monkeypatch, b'{"text": "a b"}\n{"text": "a a", "more": [1]}')
    found = json.loads(run("eval", "lambada", *options).output)
    assert (found["n_passages"], found["n_right"]) == (2, 0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"red cap", "line 2"),
        (b"[1]", "line 2.*object.*1"),
        (b"[" * 100_000, "line 2.*nested"),
        (b"{}", "line 2.*'endings'"),
        (b'{"label": 1e400}', "line 2.*1e400"),
        (b'{"label": 1, "label": 2}', "line 2.*'label'"),
        (b"\xff", "UTF-8"),
        *(
            (
                json.dumps({**say("a", "1"), name: value}).encode(),
                f"line 2.*'{name}'",
            )
            for name, values in {
                "ctx": (5, None),
                "endings": ("red", [1, 2], {}, [], ["red"], ["red", " "]),
                "label": ("", None, [], "x", 1.5, True),
            }.items()
            for value in values
        ),
        (
            json.dumps(say("a", "7")).encode(),
            r"line 2.*'label' .*\b2\b.*\b7\b",
        ),
        (json.dumps(say("a", "-1")).encode(), "line 2.*'label' .*'-1'"),
    ],
    ids=lambda value: f"{value!r:.50}",
)
def test_eval_of_other_lines(
    run: Any, saved: str, tmp_path: Path, line: bytes, message: str
) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b"\n" + line)
    found = run("eval", "hellaswag", file, "--model", saved)
    assert_one_line(found, 2, message)
    assert str(file) in found.errors


@pytest.mark.parametrize(
    "label", ["", None, "none at all"], ids=["empty", "null", "missing"]
)
def test_a_split_without_labels_is_recognized(
    run: Any, saved: str, tmp_path: Path, label: str | None
) -> None:
    line = say("a", "1") | {"label": label}
    if label == "none at all":
        del line["label"]
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps(say("b", "1")) + "\n" + json.dumps(line))
    found = run("eval", "hellaswag", file, "--model", saved)
    message = f"{file}, line 2 .*'label'.*test split .*validation split"
    assert_one_line(found, 2, message)


@pytest.mark.parametrize("value", [5, None, ["a b"], "Ella", " Ella", ""])
def test_eval_of_other_passages(
    run: Any, saved: str, tmp_path: Path, value: Any
) -> None:
    file = tmp_path / "lines.jsonl"
    lines = [{"text": "a b"}, {"text": value}]
    file.write_text("\n".join(map(json.dumps, lines)))
    found = run("eval", "lambada", file, "--model", saved)
    assert_one_line(found, 2, f"{file}, line 2: field 'text'")


def test_the_encoding_of_a_text_does_not_matter_to_eval(
    run: Any, saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte-order mark, line ends, and from where the text comes."""
    options = ["--model", saved, "--json"]
    found = []
    for data in ("a b\né", "\ufeffa b\né", "a b\r\né", "\ufeffa b\ré"):
        file = tmp_path / "text.txt"
        file.write_bytes(data.encode())
        found.append(run("eval", "text", file, *options))
        feed(monkeypatch, data.encode())
        found.append(run("eval", "text", *options))
    assert found == [found[0]] * 8
    assert json.loads(found[0].output)["bytes"] == 6
    question = json.dumps(say("b", "1"))
    file.write_text(f"\ufeff{question}")
    assert run("eval", "hellaswag", file, "--model", saved).code == 0


def test_eval_separates_documents(
    run: Any, shake: Callable[[GPT2], GPT2], tmp_path: Path
) -> None:
    """By an end of text, and where one file ends."""
    config = GPT2Config(257, n_ctx=32, n_embd=12, n_head=3, n_layer=2)
    gpt2.save(shake(GPT2(config)), BYTES, tmp_path / "model")
    texts = ["a b", "é", "ab" * 20]
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    (folder / "model.bin").write_bytes(b"\xff")
    (tmp_path / "all.txt").write_text(END_OF_TEXT.join(texts))
    options = ["--model", tmp_path / "model", "--json"]
    whole, *others = (
        run("eval", "text", *files, *options)
        for files in (
            [tmp_path / "all.txt"],
            sorted(folder.glob("*.txt")),
            [folder],
        )
    )
    assert others == [whole] * 2
    facts = json.loads(whole.output)
    assert facts["tokens"] == facts["bytes"] == 3 + 2 + 40


@pytest.mark.parametrize("task", ["text", "hellaswag", "lambada"])
def test_eval_of_nothing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    file = tmp_path / "empty"
    file.touch()
    monkeypatch.setattr(loading, "load", None)  # it is not got so far
    found = run("eval", task, file)
    assert_one_line(found, 2, f"{file}.*no (text|lines)")


# What goes wrong.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "required: COMMAND"),
        ("sing", "invalid choice: 'sing'"),
        ("--verbose", "COMMAND"),
        ("generate x --verbose", "unrecognized arguments: --verbose"),
        ("generate x y", "unrecognized arguments: y"),
        ("generate x --temperature hot", "invalid float value: 'hot'"),
        ("generate x --beams 2 --samples 2", "drop --samples"),
        ("generate x --dtype int8 --unpacked", "int8 .* drop --unpacked"),
        ("generate x --dtype int4 --unpacked", "int4 .* drop --unpacked"),
        ("generate LONG --model MODEL", "33 tokens, .* at most 32"),
        ("generate LONG --model MODEL --beams 2", "33 tokens, .* at most 32"),
        ("predict LONG --model MODEL", r"\b32\b.*33 tokens"),
        ("inspect", "required: MODEL"),
        ("convert MODEL", "required: OUT"),
        ("eval text FILE --model MODEL --stride 33", "--stride must be from"),
        ("eval stories x", "files.* x$"),
        ("train out --snapshots 0 3 6 --n-steps 5", "at most --n-steps, 5;"),
        ("train out --n-embd 10", "--n-embd must be a multiple of --n-head"),
        ("train out --n-ctx 8 --context 9", "at most --n-ctx, 8; got 9"),
        ("train out --n-accumulate 5", "divisor of --batch-size, 48; got 5"),
        ("train out --data x --held-out 0 --patience 1", "got --held-out 0"),
        ("train out --model story --tokenizer bytes", "got --tokenizer bytes"),
        ("train out --final-learning-rate 1", "to --learning-rate, 0.004;"),
    ],
)
def test_bad_use(run: Any, saved: str, arguments: str, message: str) -> None:
    words = {"MODEL": saved, "LONG": "x" * 33, "FILE": __file__}
    found = run(*(words.get(word, word) for word in arguments.split()))
    assert_one_line(found, 2, message)


# What is no whole number, or far out of any range, and the same for others.
NOT_WHOLE = ("", "x", "1.5", "1e3", "nan", "-1", "-99", "9" * 20, "9" * 5000)
NOT_FINITE = ("", "x", "nan", "inf", "-inf", "1e400", "-1")
NO_SHARE = (*NOT_FINITE, "1", "1.5")
NO_SEED = (*NOT_WHOLE, str(2**32), str(2**32 + 1))
NO_COUNT = (*NOT_WHOLE, "0")
NO_PART = (*NOT_FINITE, "0", "5e-324", "1.5")
NO_CHOICE = ("", "x", "int2")
TEXT_OPTIONS = {
    "--temperature": (*NOT_FINITE, "1e-38", "5e-324", "1e38"),
    "--top-k": NO_COUNT,
    "--top-p": NO_PART,
    "--min-p": NO_PART,
    "--repetition-penalty": (*NOT_FINITE, "0", "1e-38", "1e39"),
    "--seed": NO_SEED,
    "--device": ("", "moon", "cuda:99", "meta", "\udcff", "a" * 5000),
    "--dtype": NO_CHOICE,
}
HOSTILE: dict[str, dict[str, tuple[str, ...]]] = {
    "generate x": {
        **TEXT_OPTIONS,
        "--max-tokens": NOT_WHOLE,
        "--samples": (*NO_COUNT, "2000000"),
        "--beams": (*NO_COUNT, "100000"),
        "--stop": ("",),
    },
    "predict x": {**TEXT_OPTIONS, "--top": NO_COUNT},
    "convert x out": {"--dtype": (*NO_CHOICE, "int8")},
    "convert x out.gguf": {"--type": (*NO_CHOICE, "F16", "float16", "q4_0")},
    "eval text": {"--stride": NO_COUNT, "--dtype": NO_CHOICE},
    "eval stories": {
        "--stories": (*NO_COUNT, "1", "2000000"),
        "--samples": (*NO_COUNT, "2000000"),
        "--probes": (*NO_COUNT, "2000000"),
        "--seed": NO_SEED,
        "--device": TEXT_OPTIONS["--device"],
    },
    "train out": {
        **dict.fromkeys(
            [
                *("--stories", "--n-ctx", "--n-embd", "--n-head", "--n-layer"),
                *("--n-steps", "--batch-size", "--n-accumulate", "--context"),
                *("--evaluate-every", "--evaluate-rows", "--patience"),
                "--save-every",
            ],
            NO_COUNT,
        ),
        **dict.fromkeys(["--held-out", "--dropout"], NO_SHARE),
        **dict.fromkeys(["--learning-rate", "--clip"], (*NOT_FINITE, "0")),
        **dict.fromkeys(
            ["--final-learning-rate", "--weight-decay"], NOT_FINITE
        ),
        **dict.fromkeys(
            [
                *("--tokenizer", "--activation", "--optimizer", "--precision"),
                *("--attention", "--sharing"),
            ],
            NO_CHOICE,
        ),
        "--n-vocab": (*NO_COUNT, "256"),
        "--n-warmup": NOT_WHOLE,
        "--snapshots": (*NOT_WHOLE, "-5"),
        "--seed": NO_SEED,
        "--device": TEXT_OPTIONS["--device"],
    },
}


def hostile_command_lines() -> Iterator[tuple[list[str], str]]:
    """Command lines that are refused before any work, and the option named."""
    for command, options in HOSTILE.items():
        for option, values in options.items():
            for value in values:
                yield [*command.split(), f"{option}={value}"], option


@pytest.mark.parametrize("command", HOSTILE)
def test_hostile_values_are_refused_before_any_work(
    run: Any,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """In one line, which names the option and is no wall of digits."""

    def work(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("work has begun")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stdin, "read", work, raising=False)
    monkeypatch.setattr(loading, "load", work)
    monkeypatch.setattr(loading, "load_model", work)
    monkeypatch.setattr(corpus, "prepare", work)
    if command == "eval text":
        feed(monkeypatch, b"some text")
    lines = [
        line
        for line in hostile_command_lines()
        if line[0][: len(command.split())] == command.split()
    ]
    assert lines
    for arguments, option in lines:
        found = run(*arguments)
        code = 1 if option == "--device" else 2
        assert_one_line(found, code, option)
        assert len(found.errors) < 500, arguments
    assert not list(tmp_path.iterdir())


def test_every_option_has_met_hostile_values() -> None:
    """But for those that take any text, or nothing."""
    for name, command in COMMANDS.items():
        parser = argparse.ArgumentParser()
        command.add_options(parser)
        met = {
            option
            for line, options in HOSTILE.items()
            if line.startswith(name)
            for option in options
        } | {"--model", "--data"}
        for action in parser._actions:
            if action.option_strings and action.nargs != 0:
                assert met & {*action.option_strings}, (name, action)


def test_what_memory_cannot_hold_is_refused(
    run: Any, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with one gigabyte."""
    pages = {"SC_PHYS_PAGES": 10**6, "SC_PAGE_SIZE": 1000}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(os, "sysconf_names", pages)
    for options, size in (
        ("--n-embd 4096", "--n-embd 4096, --n-layer 4 .* at least 9.7 GB"),
        ("--n-layer 100000", "--n-layer 100000"),
        ("--n-ctx 2000000", "--n-ctx 2000000"),
        ("--batch-size 3000000", "--batch-size 3000000 .* has 1.0 GB"),
        ("--evaluate-rows 1000000 --data x", "--evaluate-rows 1000000"),
    ):
        found = run("train", "out", *options.split())
        assert_one_line(found, 2, size)
    command = ["generate", "b", "--model", saved, "--beams", "1000"]
    monkeypatch.setitem(pages, "SC_PHYS_PAGES", 10**2)
    found = run(*command, "-n", "400")
    assert_one_line(found, 2, "--beams 1000 would take at least 0.0 GB")
    monkeypatch.setitem(pages, "SC_PHYS_PAGES", 10**6)
    assert run(*command, "-n", "1").code == 0
    monkeypatch.setattr(os, "sysconf_names", {})
    check_memory(10**30, "nothing")  # this machine does not say what it has


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("generate x --model {folder}/none", "neither a preset .* nor"),
        ("generate x --model {folder}", "holds no weights"),
        (
            "generate x --model {folder}/broken.safetensors",
            "not a safetensors",
        ),
        ("generate x --model {folder}/text.txt", "the name of a file of"),
        ("generate x --model {saved} --device moon", "'moon' cannot be used"),
        ("generate x --model {saved} --device cuda:99", "cannot be used"),
        ("predict x --model {folder}/none", "neither a preset .* nor"),
        ("inspect {folder}/none", "neither a preset .* nor"),
        ("inspect {folder}/broken.safetensors", "not a safetensors file"),
        ("convert {folder}/none {folder}/out", "neither a preset .* nor"),
        (
            "convert {tensorflow} {folder}/text.txt",
            "text.txt",
        ),  # a file in the way
    ],
)
def test_failures(
    run: Any, saved: str, tmp_path: Path, arguments: str, message: str
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "text.txt").write_text("text")
    places = {"saved": saved, "folder": tmp_path, "tensorflow": TENSORFLOW}
    words = [word.format(**places) for word in arguments.split()]
    code, output, errors = run(*words)
    if arguments.startswith("convert"):  # what it says of the tokenizer
        errors = errors[errors.rindex("gpt2: ") :]
    assert_one_line(Result(code, output, errors), 1, message)
    assert not (tmp_path / "out").exists()


def assert_one_line(found: Result, code: int, message: str) -> None:
    assert (found.code, found.output) == (code, "")
    assert found.errors.startswith("gpt2: ")
    assert found.errors.count("\n") == 1
    assert found.errors.endswith("\n")
    assert re.search(message, found.errors), found.errors


def test_text_that_is_not_utf8(
    run: Any, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, b"caf\xe9")
    assert_one_line(run("generate", "--model", saved), 2, "not UTF-8.*0xe9")
    # As Python hands over a byte of the command line that is no UTF-8.
    found = run("predict", "caf\udce9", "--model", saved)
    assert_one_line(found, 2, "not UTF-8")


def test_an_error_without_a_message_is_named(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: Any) -> None:
        raise OSError

    monkeypatch.setattr(COMMANDS["inspect"], "run", fail)
    assert run("inspect", "x") == (1, "", "gpt2: OSError\n")


def test_a_message_of_several_lines_becomes_one(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: Any) -> None:
        raise RuntimeError("one\n  two\n\nthree\n")

    monkeypatch.setattr(COMMANDS["inspect"], "run", fail)
    assert run("inspect", "x") == (1, "", "gpt2: one two three\n")


def test_a_mistake_of_ours_is_not_hidden(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: Any) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(COMMANDS["inspect"], "run", fail)
    with pytest.raises(KeyError, match="oops"):
        run("inspect", "x")


# Other terminals.


def test_json_is_whole_whatever_the_encoding(
    saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for encoding, raw in (("ascii", b"\\u00e9"), ("utf-8", "é".encode())):
        screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", screen)
        assert main(["generate", "é", "--model", saved, "--json"]) == 0
        written = screen.buffer.getvalue()
        assert b'"prompt": "' + raw + b'"' in written
        assert json.loads(written)["prompt"] == "é"


def environment(**more: str) -> dict[str, str]:
    """Where a process finds this package, and one thread to run on."""
    package = Path(gpt2.__file__).parent.parent
    return {
        "PYTHONPATH": str(package),
        "OMP_NUM_THREADS": "1",
        "PATH": "",
        **more,
    }


def test_as_a_module_on_a_terminal_without_utf8(run: Any, saved: str) -> None:
    command = ["generate", "--model", saved, "-n", "20", "--seed", "6"]
    done = subprocess.run(
        [sys.executable, "-m", "gpt2", *command],
        input="Café b\n".encode(),
        capture_output=True,
        env=environment(PYTHONIOENCODING="ascii"),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    here = run(*command, "Café b").output
    assert done.stdout == here.encode("ascii", "replace")
    assert done.stdout.startswith(b"Caf? b")


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command that would write for a long time."""
    folder = tmp_path_factory.mktemp("models") / "endless"
    saved = write_model(folder, SHARES, n_ctx=50_000)
    options = ["--model", saved, "-n", "50000"]
    return [sys.executable, "-m", "gpt2", "generate", "b", *options]


# Python's own handler, though whoever runs the tests may ignore the signal,
# which would be inherited.
LISTENS = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(endless: list[str], times: int) -> None:
    script = LISTENS + "import sys; from gpt2.__main__ import main\n"
    python, _, _, *arguments = endless
    with subprocess.Popen(
        [python, "-c", script + "sys.exit(main())", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(5)  # it streams: text is here, not all
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    # At its very end, Python lets the signal end the process; to a shell that
    # is 130 as well.
    assert process.returncode in (130, -signal.SIGINT)[:times]
    # What follows begins on a line of its own.
    assert errors in [b"\n", b"\n\n"][:times]


# Ctrl-C is pressed when a module is looked for; and as C code would, somebody
# may take the exception away.
PRESSED = (
    LISTENS
    + """
import os, runpy, sys
name, swallow, *sys.argv[1:] = sys.argv[1:]
class Finder:
    def find_spec(self, wanted, path, target=None):
        if wanted == name:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(9):
                    pass
            except KeyboardInterrupt:
                if swallow == "no":
                    raise
sys.meta_path.insert(0, Finder())
runpy.run_module("gpt2", run_name="__main__")
"""
)


@pytest.mark.parametrize(
    ("module", "swallow", "arguments"),
    [
        ("gpt2.commands", "no", "--help"),
        ("gpt2.commands.common", "no", "inspect story"),
        ("json", "yes", "inspect story"),
        ("gpt2.sampling", "no", "generate x"),
        ("torch", "yes", "predict x"),
        ("torch._C", "yes", "eval stories"),
        ("torch", "no", "convert story {folder}"),
        ("torch", "no", "train {folder}"),
    ],
)
def test_ctrl_c_while_something_is_imported(
    tmp_path: Path, module: str, swallow: str, arguments: str
) -> None:
    words = arguments.format(folder=tmp_path / "out").split()
    done = subprocess.run(
        [sys.executable, "-c", PRESSED, module, swallow, *words],
        capture_output=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, b"\n")
    assert done.stdout == b""
    assert not list(tmp_path.iterdir())


def test_a_second_ctrl_c_does_not_wait(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    ctrl_c = CtrlC()
    ctrl_c.at_once = False  # a command has begun
    with pytest.raises(KeyboardInterrupt):
        ctrl_c(signal.SIGINT, None)
    assert codes == []
    with pytest.raises(KeyboardInterrupt):
        ctrl_c(signal.SIGINT, None)  # goes on here, as it did not really exit
    assert codes == [130]
    assert capfd.readouterr().err == "\n"


@pytest.fixture
def pressed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`pressed(n)` presses Ctrl-C when a model runs for the nth time."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    places: list[tuple[type, str]]
    places = [
        *((GPT2, "forward"), (PackedGPT2, "__call__")),
        (NextTokenLoss, "forward"),
    ]

    def pressed(n: int) -> None:
        calls = iter(range(1, 10**9))

        def interrupted(forward: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **options: Any) -> Any:
                if next(calls) == n:
                    signal.raise_signal(signal.SIGINT)
                return forward(*arguments, **options)

            return run

        for model, name in places:
            forward = interrupted(getattr(model, name))
            monkeypatch.setattr(model, name, forward)

    yield pressed
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("arguments", "n"),
    [
        ("generate b --samples 3", 20),
        ("generate b --beams 2", 3),
        ("generate b --json", 3),
        ("predict b", 1),
        ("eval text FILE", 2),
    ],
)
def test_ctrl_c_while_a_model_runs(
    run: Any,
    saved: str,
    pressed: Callable[..., None],
    arguments: str,
    n: int,
) -> None:
    pressed(n)
    words = [{"FILE": __file__}.get(word, word) for word in arguments.split()]
    found = run(*words, "--model", saved, "--dtype", "float16")
    assert (found.code, found.errors) == (130, "\n")
    assert found.output[:1] == ("b" if "--samples" in arguments else "")


def test_training_goes_on_after_ctrl_c(
    run: Any, tmp_path: Path, pressed: Callable[..., None]
) -> None:
    """From the last checkpoint, to the same end."""
    text = tmp_path / "text.txt"
    text.write_text("Ann saw two cats, and Bob saw three.\n" * 20)
    options = [
        *("--data", text, "--tokenizer=bytes", "--precision=float32"),
        *("--n-ctx=8", "--n-embd=8", "--n-head=1", "--n-layer=1", "--quiet"),
        *("--batch-size=2", "--evaluate-rows=2", "--n-steps=6"),
        *("--evaluate-every=6", "--save-every=2", "--dropout=0.1"),
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run("train", whole, *options).code == 0
    pressed(4)
    found = run("train", broken, *options)
    assert found == (130, "", "\n")
    assert (broken / "checkpoints").exists()
    assert run("train", broken, *options, "--resume").code == 0
    for name in ("model.safetensors", "config.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def shell(redirections: str, *arguments: str) -> Any:
    """Run a command as a shell does that closes standard streams."""
    return subprocess.run(
        [
            *("/bin/sh", "-c", f'exec "$@" {redirections}', "sh"),
            *(sys.executable, "-m", "gpt2", *arguments),
        ],
        input=b"",
        capture_output=True,
        env=environment(),
        timeout=60,
        check=False,
    )


unix = pytest.mark.skipif(
    not Path("/bin/sh").exists(), reason="it takes a shell to close a stream"
)


@unix
def test_closed_standard_output() -> None:
    done = shell(">&-", "inspect", "story")
    assert (done.returncode, done.stderr) == (0, b"")
    # An error is still told, and none is told where there is no output.
    done = shell(">&-", "inspect", "/nothing/here.bin")
    assert done.returncode == 1
    assert done.stderr.startswith(b"gpt2: ") and done.stderr.count(b"\n") == 1
    done = shell("2>&-", "inspect", "/nothing/here.bin")
    assert (done.returncode, done.stdout) == (1, b"")
    done = shell("2>&-", "generate", "x", "--top-k", "x")
    assert (done.returncode, done.stdout) == (2, b"")


@unix
def test_closed_streams_leave_their_numbers_to_nobody(tmp_path: Path) -> None:
    """A file that is opened gets none that others write to."""
    script = (
        "import sys; import gpt2.__main__ as line; "
        "line.open_closed_streams(); file = open(sys.argv[1], 'w'); "
        "sys.exit(file.fileno())"
    )
    done = subprocess.run(
        [
            *("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"),
            *(sys.executable, "-c", script, str(tmp_path / "file")),
        ],
        env=environment(),
        check=False,
    )
    assert done.returncode == 3


@pytest.mark.parametrize("arguments", ["generate", "predict", "eval text"])
def test_closed_standard_input(
    run: Any, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    """As Python has it then: there is no such stream."""
    monkeypatch.setattr(sys, "stdin", None)
    found = run(*arguments.split())
    assert_one_line(found, 2, "standard input is closed")


def test_nobody_reads_the_error(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    def interrupt(options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stderr", Closed())
    assert run("inspect", "nothing/here.bin").code == 1
    monkeypatch.setattr(COMMANDS["inspect"], "run", interrupt)
    assert run("inspect", "x").code == 130


def test_training_that_nobody_follows_says_that_it_stopped(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(options: Any) -> None:
        raise BrokenPipeError

    for name, code in (("train", 141), ("inspect", 0)):
        monkeypatch.setattr(COMMANDS[name], "run", stop)
        assert run(name, "x") == (code, "", "")


def test_out_of_memory_is_a_failure(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: Any) -> None:
        raise MemoryError("Unable to allocate 2 TiB")

    monkeypatch.setattr(COMMANDS["inspect"], "run", fail)
    assert run("inspect", "x") == (1, "", "gpt2: Unable to allocate 2 TiB\n")


def test_a_reader_that_has_seen_enough(endless: list[str]) -> None:
    with subprocess.Popen(
        endless,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"b"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    "arguments",
    ["--completion bash", "--help", "inspect --help", "--version"],
)
def test_nobody_reads_what_is_printed_while_parsing(arguments: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "gpt2", *arguments.split()],
            stdout=closed,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_names_every_command_and_option(run: Any) -> None:
    code, output, errors = run("--help")
    assert (code, errors) == (0, "")
    for name, command in COMMANDS.items():
        assert f"\n    {name} " in output
        assert command.HELP in output
    output = run("generate", "--help").output
    assert "usage: gpt2 generate" in output
    for option in (
        "--model",
        "--temperature",
        "--top-k",
        "--top-p",
        "--min-p",
    ):
        assert output.count(f"\n  {option} ") == 1


def test_pytorch_is_loaded_without_collecting_garbage() -> None:
    """What it makes is left alone; what is made later is collected."""
    code = """
import gc, sys
from gpt2.commands.starting import load_torch
phases = []
gc.callbacks.append(lambda phase, info: phases.append("torch" in sys.modules))
gc.disable() if sys.argv[1:] else gc.enable()
load_torch()
assert not any(phases) and "torch" in sys.modules
assert gc.get_freeze_count() > 100_000
assert gc.isenabled() != bool(sys.argv[1:])
gc.unfreeze()
load_torch()  # it is loaded already
assert gc.get_freeze_count() == 0
"""
    for arguments in ([], ["disabled"]):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)

"""The names of the package, and the calls that users may rely on."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch

import gpt2
from gpt2.__main__ import main

every_name = pytest.mark.parametrize("name", gpt2.__all__)


@every_name
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    thing = getattr(gpt2, name)
    assert thing.__name__ == name
    assert inspect.getdoc(thing)
    assert thing.__doc__.strip()[0].isupper()
    home = import_module(thing.__module__)
    assert getattr(home, name) is thing  # the same object from either place
    assert thing.__module__.startswith("gpt2.")


@every_name
def test_signatures_are_typed(name: str) -> None:
    signature = inspect.signature(getattr(gpt2, name))
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


def test_type_checkers_see_the_same_names() -> None:
    """They read a second list, of imports that never happen."""
    tree = ast.parse(Path(gpt2.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    homes = {name: getattr(gpt2, name).__module__ for name in gpt2.__all__}
    assert seen == homes


def test_names_can_be_listed_and_star_imported() -> None:
    assert set(gpt2.__all__) <= set(dir(gpt2))
    assert len(set(gpt2.__all__)) == len(gpt2.__all__)
    names: dict[str, Any] = {}
    exec("from gpt2 import *", names)
    assert names.keys() - {"__builtins__"} == set(gpt2.__all__)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'gpt2' has no attribute 'GPT3'"):
        gpt2.GPT3  # noqa: B018 (the look-up is the test)


def test_the_version_is_that_of_the_metadata() -> None:
    project = Path(gpt2.__file__).parents[1] / "pyproject.toml"
    written = tomllib.loads(project.read_text("utf-8"))["project"]
    assert written["name"] == "gpt2-from-scratch"
    assert gpt2.__version__ == version(written["name"]) == written["version"]
    assert "__version__" in dir(gpt2)


def test_the_version_without_an_installation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert gpt2.__version__ == "0+unknown"


def test_the_command_shows_the_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code in (0, None)
    assert capsys.readouterr() == (f"gpt2 {gpt2.__version__}\n", "")


def test_importing_is_quick_until_a_model_is_needed() -> None:
    script = """
import sys
before = set(sys.modules)
import gpt2
assert "importlib.metadata" not in sys.modules.keys() - before
gpt2.__version__
gpt2.GPT2Config.from_name("gpt2")
gpt2.Tokenizer.bytes_only().encode("text")
gpt2.load, gpt2.inspect
slow = {"torch", "numpy", "safetensors", "huggingface_hub"}
assert not slow & sys.modules.keys()
gpt2.GPT2
assert "torch" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_stable_calls(tmp_path: Path) -> None:
    """Calls as users write them."""
    assert gpt2.GPT2Config.from_name("gpt2") == gpt2.GPT2Config()
    config = gpt2.GPT2Config(
        n_vocab=257, n_ctx=16, n_embd=12, n_head=3, n_layer=2
    )
    assert (config.n_vocab, config.n_layer) == (257, 2)
    tokenizer = gpt2.Tokenizer.bytes_only()
    folder = tmp_path / "model"
    gpt2.save(gpt2.GPT2(config), tokenizer, folder)

    for source in (str(folder), folder):
        model, tokenizer = gpt2.load(source, dtype="float32", device="cpu")
    assert isinstance(model, gpt2.GPT2)
    assert isinstance(tokenizer, gpt2.Tokenizer)
    assert model.config == config
    assert not model.training

    ids = tokenizer.encode("Hé")
    assert type(ids) is list
    assert [type(token) for token in ids] == [int, int, int]
    assert tokenizer.decode(ids) == "Hé"

    tokens = torch.tensor([ids, ids])
    logits = model(tokens, attention_mask=None)
    assert logits.shape == (2, 3, 257)
    assert logits.dtype == torch.float32
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    padded = model(tokens, attention_mask=mask)
    torch.testing.assert_close(padded[1], logits[1])
    assert not torch.allclose(padded[0, 1:], logits[0, 1:])

    settings: dict[str, Any] = {
        "max_new_tokens": 5,
        "sampling": gpt2.Sampling(temperature=0.9, top_k=40, top_p=0.95),
        "seed": 1,
    }
    tokens = gpt2.generate(model, tokens, **settings, attention_mask=mask)
    assert tokens.shape == (2, 8)
    assert tokens.dtype == torch.int64
    alone = torch.tensor([ids])
    once = gpt2.generate(model, alone, **settings)
    assert torch.equal(once, gpt2.generate(model, alone, **settings))
    assert isinstance(tokenizer.decode(once[0].tolist()), str)

    again, _ = gpt2.load(folder)
    assert torch.equal(again(alone), model(alone))
    half, _ = gpt2.load(folder, "bfloat16")
    assert half.wte.weight.dtype == torch.bfloat16


def test_the_other_calls(tmp_path: Path) -> None:
    config = gpt2.GPT2Config(
        n_vocab=257, n_ctx=16, n_embd=12, n_head=3, n_layer=2
    )
    gpt2.save(gpt2.GPT2(config), gpt2.Tokenizer.bytes_only(), tmp_path)
    assert gpt2.inspect(tmp_path).config == config
    assert gpt2.load_model(tmp_path).config == config
    model, tokenizer = gpt2.load(tmp_path)
    text = gpt2.complete(model, tokenizer, "a", 5, seed=1, stop=["\n\n"])
    assert isinstance(text, str)
    pieces = gpt2.stream_text(model, tokenizer, "a", 5, seed=1, stop=["\n\n"])
    assert "".join(pieces) == text
    greedy = gpt2.Sampling(temperature=0)
    assert gpt2.complete(model, tokenizer, "a", 5, greedy)
    assert gpt2.predict(model, tokenizer, "a", 3, greedy).texts == ("a",)
    best, score = gpt2.beam_search(model, torch.tensor([[1, 2]]), 3)
    assert best.shape == (1, 5)
    assert score.shape == (1,)
    assert gpt2.next_token_loss(model, best).dim() == 0


def test_the_example_of_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example in `help(gpt2)` runs, here with a small model."""
    config = gpt2.GPT2Config(
        n_vocab=257, n_ctx=200, n_embd=12, n_head=3, n_layer=2
    )
    gpt2.save(gpt2.GPT2(config), gpt2.Tokenizer.bytes_only(), tmp_path)
    example = [
        line[4:]
        for line in (gpt2.__doc__ or "").splitlines()
        if line.startswith("    ")
    ]
    assert example
    script = "\n".join(example).replace('"gpt2"', repr(str(tmp_path)))
    assert repr(str(tmp_path)) in script
    exec(script, {"gpt2": gpt2, "torch": torch})
    assert capsys.readouterr().out.startswith("The answer is")

"""The cells of the page on the real GPT-2, without its weights and with some.

What they compute is compared where the answer is known: with the shipped
model, with heads made by hand, and with the sums that the parts must give.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from book_rules import BOOK
from IPython.core.inputtransformer2 import TransformerManager
from matplotlib import pyplot as plt
from torch import Tensor

import gpt2
from gpt2 import GPT2, GPT2Config, Tokenizer
from gpt2.evaluation import circuits
from gpt2.tokenizer.bpe import TokenizerError
from gpt2.weights.errors import CheckpointError
from gpt2.weights.pins import HUB_PRESETS, Pin
from gpt2_book import published
from gpt2_book.real import from_cache, later, table

PAGE = BOOK / "the-real-gpt2.ipynb"
CODE = [c for c in nbformat.read(PAGE, 4).cells if c.cell_type == "code"]
PIN = HUB_PRESETS["gpt2"]


def run_page() -> dict[str, Any]:
    """Run the page's cells, and return what they define."""
    names: dict[str, Any] = {}
    transform = TransformerManager().transform_cell  # of `%pip`
    with plt.rc_context():
        for number, cell in enumerate(CODE, start=1):
            source = transform(cell.source)
            exec(compile(source, f"cell {number}", "exec"), names)
    torch.set_printoptions(profile="default")
    return names


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the checkpoint in an empty cache, without a network."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the page wants to download something")

    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub")
    )
    monkeypatch.setattr("gpt2.weights.hub._fetch", refuse)
    monkeypatch.setattr("tiktoken.get_encoding", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)
    repository = "models--" + PIN.repo.replace("/", "--")
    return tmp_path / "hub" / repository / "snapshots" / PIN.revision


@pytest.fixture(scope="module")
def vocabulary() -> Tokenizer:
    try:
        return Tokenizer.gpt2()
    except TokenizerError as error:
        pytest.skip(str(error))


@pytest.fixture
def put_into_cache(
    cache: Path, vocabulary: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> Callable[[GPT2], None]:
    """`put_into_cache(model)` lets it pass for the real one."""

    def put(model: GPT2) -> None:
        gpt2.save(model, vocabulary, cache)
        digests = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in cache.iterdir()
        }
        pin = Pin(PIN.repo, PIN.revision, digests)
        monkeypatch.setitem(HUB_PRESETS, "gpt2", pin)

    return put


@pytest.fixture
def narrow(shake: Callable[..., Any]) -> GPT2:
    """A random model with GPT-2's layers, heads and tokens, but narrow."""
    config = GPT2Config(n_embd=24, n_ctx=256)
    return shake(GPT2(config), 0.2).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page defines where there are no weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
        return run_page()


# --- the cache ---


def test_without_the_weights_the_page_is_the_stored_one(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_page()["real"] is None
    printed = capsys.readouterr().out
    outputs = [output for cell in CODE for output in cell.outputs]
    assert printed == "".join(output.text for output in outputs)
    measuring = [cell for cell in CODE if "if real is None" in cell.source]
    assert len(measuring) == len(outputs) > 8
    for output in outputs:
        assert 'gpt2.load("gpt2")' in output.text


def test_with_weights_every_cell_measures(
    put_into_cache: Callable[[GPT2], None],
    narrow: GPT2,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_into_cache(narrow)
    lines = [{"text": f"{word} and then"} for word in ("Now", "Here", "So")]
    Path("lambada_test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    names = run_page()
    assert names["real"].model.config == narrow.config
    printed = capsys.readouterr().out
    assert "No weights" not in printed
    assert printed.count("measured") == len(tables()) > 8
    for number in ("6.48%", "5.3319", "32.56 %", "3.56", "0.59", "-43.432"):
        assert number in printed
    assert "548,105,171" in printed
    size = (names["real"].folder / "model.safetensors").stat().st_size
    assert f"{size:,}" in printed


def tables() -> list[str]:
    """The cells that show a table."""
    return [c.source for c in CODE if "print(table(" in c.source]


def test_lambada_needs_its_file(
    put_into_cache: Callable[[GPT2], None],
    narrow: GPT2,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_into_cache(narrow)
    run_page()
    assert "lambada_test.jsonl is not here" in capsys.readouterr().out


def test_weights_without_a_tokenizer_are_not_enough(
    put_into_cache: Callable[[GPT2], None], cache: Path, narrow: GPT2
) -> None:
    put_into_cache(narrow)
    assert from_cache() is not None
    for path in cache.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    assert from_cache() is None


def test_another_file_is_refused(
    put_into_cache: Callable[[GPT2], None], cache: Path, narrow: GPT2
) -> None:
    put_into_cache(narrow)
    gpt2.save(GPT2(narrow.config), Tokenizer.load(cache), cache)
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*SHA-256"):
        from_cache()


# --- what is printed ---


def test_a_table_has_columns() -> None:
    assert table([("one", "1.25", "3"), ("another", "2", "1.5000")]) == (
        "         published  measured\n"
        "one           1.25         3\n"
        "another          2    1.5000"
    )


def test_what_is_missing_is_said_in_a_line() -> None:
    assert later("x") == 'No weights yet. After gpt2.load("gpt2"): x.'


# --- what the cells compute ---


@pytest.fixture(scope="module")
def story() -> tuple[GPT2, Tokenizer]:
    model, tokenizer = gpt2.load("story")
    return model.requires_grad_(False), tokenizer


def test_shares_are_those_of_a_prediction(
    page: dict[str, Any], story: tuple[GPT2, Tokenizer]
) -> None:
    model, tokenizer = story
    shares = page["next_shares"](model, tokenizer.encode("Ella lost her"))
    assert shares.shape == (model.config.n_vocab,)
    assert shares.sum().item() == pytest.approx(1)
    expected = model(torch.tensor([tokenizer.encode("Ella lost her")]))
    torch.testing.assert_close(shares, expected[0, -1].softmax(-1))


@pytest.mark.parametrize("n_same", [0, 3, 8])
def test_tokens_are_counted_up_to_the_first_other_one(
    page: dict[str, Any], story: tuple[GPT2, Tokenizer], n_same: int
) -> None:
    model, tokenizer = story
    prompt = tokenizer.encode("Ella lost her red")
    greedy = gpt2.Sampling(0)
    told = gpt2.generate(model, torch.tensor([prompt]), 8, greedy)[0, 4:]
    assert len(prompt) == 4
    changed = [*told.tolist(), 0]
    changed[n_same] += 1
    assert page["agreeing"](model, prompt, changed[:8]) == n_same


def test_both_counts_of_lambada(
    page: dict[str, Any], story: tuple[GPT2, Tokenizer]
) -> None:
    """The model's own word, one of which it guesses the end, and another."""
    model, tokenizer = story
    prompt = "Ella lost her red"
    ids = torch.tensor([tokenizer.encode(prompt)])
    own = tokenizer.decode(model(ids)[0, -1:].argmax(-1).tolist())
    found = page["both_ways"](
        model,
        tokenizer,
        [f"{prompt}{own}", f"{prompt} garden.", f"{prompt} windowsill"],
    )
    assert set(found) == set(published.LAMBADA)
    assert found["the last token"] == pytest.approx(2 / 3)
    assert found["the whole word"] == pytest.approx(1 / 3)


def test_places_are_counted_from_the_highest(page: dict[str, Any]) -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.2, 0.3]])
    found = [page["place"](scores, h) for h in ("0.1", "1.0", "0.2", "0.0")]
    assert found == [1, 2, 3, 6]


def test_the_heads_of_the_echo_model_are_found(page: dict[str, Any]) -> None:
    """Those of Chapter 15."""
    home = Path(gpt2.__file__).parent / "pretrained" / "echo"
    echo, tokenizer = gpt2.load(home / "step-3000")
    words = (home / "words.txt").read_text().split()
    ids = [tokenizer.encode(f" {word}") for word in words]
    choices = torch.tensor([i[0] for i in ids if len(i) == 1])
    scores = page["told_twice"](echo, choices, 20)
    assert page["place"](scores["induction"], "1.3") == 1
    assert page["place"](scores["previous token"], "0.1") == 1
    assert page["place"](scores["duplicate token"], "1.3") == 1


def looking_back(n_ctx: int = 16) -> GPT2:
    """A model made by hand: head 0.0 looks at the token before.

    A position is a unit vector. The query of position t asks for t - 1, and
    the key of a position is its own.
    """
    model = GPT2(GPT2Config(50257, n_ctx, 2 * n_ctx, 2, 1))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(model.h[0].ln_1.weight)
    own = torch.eye(n_ctx)
    with torch.no_grad():
        model.wpe.weight[:, :n_ctx] = own
        queries, keys = (
            model.h[0].attn.c_attn.weight[:n_ctx, i : i + n_ctx]
            for i in (0, 2 * n_ctx)
        )
        queries.copy_(own.roll(-1, dims=1) * 10)
        keys.copy_(own * 10)
    return model.eval().requires_grad_(False)


def test_a_head_that_looks_back_has_score_1(page: dict[str, Any]) -> None:
    model = looking_back()
    tokens = torch.randint(50257, (3, 14))
    weights = circuits.record_attention(model, tokens)
    scores = circuits.previous_token_scores(weights)
    assert scores[0, 0] > 0.999 > 0.3 > scores[0, 1]
    start = torch.tensor([5, 9, 13])
    found = page["looks"](weights, start, start - 1)
    assert found.shape == (1, 2)
    assert found[0, 0] > 0.999
    assert page["looks"](weights, start, start - 2)[0, 0] < 0.001
    # Without a query, every position before gets the same.
    even = (1 / (start + 1.0)).mean()
    torch.testing.assert_close(found[0, 1], even)


def test_the_places_in_the_sentences(
    page: dict[str, Any], vocabulary: Tokenizer
) -> None:
    tokens, right, other = page["sentences"](vocabulary)
    assert tokens.shape == (8, 14)
    assert vocabulary.decode(tokens[1].tolist()) == (
        "When Mary and John went to the store, Mary gave a drink to"
    )
    names = [right[1].item(), other[1].item()]
    assert vocabulary.decode(names) == " John Mary"
    found = page["ways"](tokens, right, other)
    assert set(found) < set(published.HEADS)
    rows = torch.arange(8)
    for place in found["duplicate token"]:
        assert torch.equal(tokens[rows, place], other)
    _, name = found["name mover"]
    assert torch.equal(tokens[rows, name], right)
    assert [found["previous token"][i][1].item() for i in (0, 1)] == [2, 1]
    assert [found["duplicate token"][i][0].item() for i in (0, 1)] == [9, 3]
    assert [found["induction"][i][0].item() for i in (0, 1)] == [9, 4]
    assert [found["S-inhibition"][i][0].item() for i in (0, 1)] == [13, 9]
    assert [found["name mover"][i][0].item() for i in (0, 1)] == [13, 1]


def test_what_heads_write_adds_up(
    page: dict[str, Any], model: GPT2, tokens: Tensor
) -> None:
    """To what attention adds to the stream, less its bias."""
    direction = torch.randn(len(tokens), model.config.n_embd)
    found = page["writes"](model, tokens, direction)
    assert found.shape == (model.config.n_layer, model.config.n_head)
    for layer, written in zip(model.h, found, strict=True):
        added = []
        hook = layer.attn.c_proj.register_forward_hook(
            lambda module, inputs, output, to=added: to.append(
                output - module.bias
            )
        )
        model(tokens)
        hook.remove()
        expected = (added[0][:, -1] * direction).sum(-1).mean()
        torch.testing.assert_close(written.sum(), expected)
        assert not layer.attn.c_proj._forward_pre_hooks


def test_a_silent_head_writes_nothing(
    page: dict[str, Any], model: GPT2, tokens: Tensor
) -> None:
    width = model.config.n_embd // model.config.n_head
    model.h[1].attn.c_proj.weight.data[width : 2 * width] = 0
    direction = torch.randn(len(tokens), model.config.n_embd)
    found = page["writes"](model, tokens, direction)
    assert found[1, 1] == 0
    assert (found != 0).sum() == found.numel() - 1


def test_the_first_parts_are_those_of_a_whole_text(
    page: dict[str, Any], model: GPT2, tokens: Tensor
) -> None:
    found = page["at_the_first"](model, tokens[0, 0].item())
    assert set(found) == {*published.FIRST_PARTS, "the logits"}
    for name in published.FIRST_PARTS:
        outputs: list[Tensor] = []
        hook = model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, to=outputs: to.append(output)
        )
        model(tokens)
        hook.remove()
        first = outputs[0].reshape(-1, model.config.n_embd)[0]
        torch.testing.assert_close(found[name], first)
    torch.testing.assert_close(found["the logits"], model(tokens)[0, 0])

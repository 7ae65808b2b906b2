"""Packed models: the taught model's numbers, nearly, from fewer bytes."""

from __future__ import annotations

import gc
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import gpt2
from gpt2 import compiled, inference, kernels, stories
from gpt2.data import pad
from gpt2.inference import for_inference
from gpt2.kernels import MAKERS, Kernel, Precision, quantize
from gpt2.model import GPT2

every_precision = pytest.mark.parametrize("dtype", get_args(Precision))
TOLERANCE = {
    "float32": 1e-5,
    "bfloat16": 0.02,
    "int8": 0.04,
}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which none of the routines is there."""
    for module in (kernels, inference):
        monkeypatch.setattr(module, "best", lambda precision: "plain")


def assert_near(came: Tensor, expected: Tensor, dtype: Precision) -> None:
    assert came.dtype == torch.float32
    error = (came - expected).abs().max()
    assert error <= TOLERANCE[dtype] * expected.abs().max()


every_way = pytest.mark.parametrize("way", MAKERS)


def made(
    way: str, dtype: Precision, weight: Tensor, bias: Tensor | None
) -> Kernel:
    """Pack a matrix in one of the ways, if this machine has it."""
    if way == "compiled" and compiled.library() is None:
        pytest.skip("there is no compiler")
    return MAKERS[way][dtype](weight, bias)


def padded(model: GPT2) -> tuple[Tensor, Tensor]:
    n = model.config.n_vocab
    rows = [[1, 5, 2, 7, n - 1, 3], [4, 4], [6, 2, 8, 1]]
    return pad(rows)


# The same model.


@every_precision
def test_logits_are_the_models(model: GPT2, dtype: Precision) -> None:
    tokens, mask = padded(model)
    packed = for_inference(model, dtype)
    came, expected = packed(tokens, mask), model(tokens, mask)
    assert_near(came[mask], expected[mask], dtype)
    last = packed(tokens, mask, last_only=True)
    assert_near(last, model(tokens, mask, last_only=True), dtype)


@every_precision
def test_with_a_cache_too(model: GPT2, dtype: Precision) -> None:
    tokens = torch.tensor([[1, 5, 2, 7, 0, 3], [4, 4, 6, 2, 8, 1]])
    packed = for_inference(model, dtype)
    cache = packed.new_cache(2, 6)
    steps = [
        packed(part, cache=cache) for part in tokens.split([3, 1, 2], dim=1)
    ]
    assert_near(torch.cat(steps, dim=1), model(tokens), dtype)


def test_float32_writes_the_same_text(model: GPT2) -> None:
    packed = for_inference(model, "float32")
    prompt = torch.tensor([[1, 5, 2]])
    for settings in ({"temperature": 0}, {"seed": 3}):
        ours = gpt2.generate(packed, prompt, 10, **settings)
        assert torch.equal(ours, gpt2.generate(model, prompt, 10, **settings))


@pytest.mark.usefixtures("no_kernels")
@every_precision
def test_without_the_routines_it_is_right_too(
    model: GPT2, dtype: Precision
) -> None:
    tokens = torch.tensor([[1, 5, 2, 7, 0, 3]])
    assert_near(for_inference(model, dtype)(tokens), model(tokens), dtype)


@every_precision
def test_the_story_model_loses_nothing_to_speak_of(dtype: Precision) -> None:
    model, tokenizer = gpt2.load("story")
    end, rng = tokenizer.end_of_text, random.Random(0)
    texts = [stories.sample(rng, "held_out") for _ in range(30)]
    tokens, mask = pad([[end, *tokenizer.encode(t), end] for t in texts])
    loss = gpt2.next_token_loss(model, tokens, mask)
    packed = gpt2.next_token_loss(for_inference(model, dtype), tokens, mask)
    assert abs(packed - loss) < (1e-5 if dtype == "float32" else 0.01)


def test_the_model_is_left_as_it_is(model: GPT2) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    for dtype in get_args(Precision):
        packed = for_inference(model, dtype)
        assert not packed.training
        packed.h[0].register_forward_hook(lambda *_: pytest.fail("shared"))
    assert model.training
    model(torch.tensor([[1, 2]]))
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], v) for k, v in before.items())


@every_precision
def test_nothing_is_shared(model: GPT2, dtype: Precision) -> None:
    """Else a file would stay mapped for the sake of a bias."""
    tokens = torch.tensor([[1, 5, 2, 7, 0, 3]])
    packed = for_inference(model, dtype)
    before = packed(tokens)
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(packed(tokens), before)


# Products with a matrix.


@every_way
@every_precision
@pytest.mark.parametrize("n_rows", [1, 5, 19])
@pytest.mark.parametrize("shape", [(6, 7), (64, 32), (33, 50)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_products(
    way: str,
    dtype: Precision,
    n_rows: int,
    shape: tuple[int, int],
    with_bias: bool,
) -> None:
    weight, rows = torch.randn(shape), torch.randn(n_rows, shape[0])
    bias = torch.randn(shape[1]) if with_bias else None
    kernel = made(way, dtype, weight, bias)
    expected = rows @ weight + (bias if with_bias else 0)
    assert_near(kernel(rows).float(), expected, dtype)
    half = rows.bfloat16()
    expected = half.float() @ weight + (bias if with_bias else 0)
    assert_near(kernel(half).float(), expected, dtype)


@every_way
def test_a_transposed_matrix_will_do(way: str) -> None:
    weight, rows = torch.randn(21, 64).T, torch.randn(3, 64)
    for dtype in get_args(Precision):
        came = made(way, dtype, weight, None)(rows)
        assert_near(came.float(), rows @ weight, dtype)


def test_quantizing_by_hand() -> None:
    weight = torch.tensor([[2.54, 0.0, -1.0], [-1.27, 0.0, 0.5]])
    numbers, scale = quantize(weight)
    assert numbers.dtype == torch.int8
    # -63.5 and 63.5 are rounded to the even number.
    assert numbers.tolist() == [[127, 0, -127], [-64, 0, 64]]
    torch.testing.assert_close(scale, torch.tensor([0.02, 1.0, 1 / 127]))


def test_quantizing_is_off_by_half_a_step_at_most() -> None:
    weight = torch.randn(64, 48) * torch.logspace(-4, 4, 48)
    numbers, scale = quantize(weight)
    error = (numbers * scale - weight).abs()
    assert (error <= scale * 0.5001).all()


@every_way
def test_a_row_does_not_pay_for_anothers_large_numbers(way: str) -> None:
    """With one scale for all rows, the small ones would be rounded to 0."""
    weight, bias = torch.randn(64, 32), torch.randn(32)
    small, large = torch.randn(1, 64), 10_000 * torch.randn(1, 64)
    together = made(way, "int8", weight, bias)(torch.cat([small, large]))
    assert_near(together[:1], small @ weight + bias, "int8")
    assert_near(together[1:], large @ weight + bias, "int8")


@every_precision
def test_a_routine_that_is_missing_or_wrong_is_not_used(
    dtype: Precision,
) -> None:
    plain = MAKERS["plain"][dtype]

    def missing(weight: Tensor, bias: Tensor | None) -> Kernel:
        raise NotImplementedError("not on this machine")

    def wrong(weight: Tensor, bias: Tensor | None) -> Kernel:
        kernel = plain(weight, bias)
        return lambda rows: kernel(rows) * 1.1

    assert kernels.agree(plain, plain)
    assert not kernels.agree(missing, plain)
    assert not kernels.agree(wrong, plain)


@every_precision
def test_where_the_processor_can_it_does(dtype: Precision) -> None:
    """Else nobody would notice that the slow way is taken everywhere."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("this processor may lack the instructions")
    assert kernels.agree(MAKERS["PyTorch"][dtype], MAKERS["plain"][dtype])
    if compiled.library() is not None:
        assert kernels.best(dtype) == "compiled"


# What is compiled.


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine on which nothing was compiled yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled.library.cache_clear()
    yield tmp_path
    compiled.library.cache_clear()


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no compiler")
def test_it_is_compiled_once_and_kept(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiled.library() is not None
    (kept,) = (fresh / "gpt2-from-scratch").iterdir()
    compiled.library.cache_clear()
    monkeypatch.setattr(
        "subprocess.run", lambda *_, **__: pytest.fail("again")
    )
    assert compiled.library() is not None
    assert list(kept.parent.iterdir()) == [kept]


def test_the_process_keeps_its_arithmetic() -> None:
    """What is linked for speed may set tiny numbers to 0, everywhere."""
    code = (
        "from gpt2 import compiled\n"
        "compiled.library()\n"
        "assert 5e-324 > 0 and 5e-324 / 1 > 0, 'tiny numbers are gone'\n"
        "tiny = float.fromhex('0x1p-1070')\n"
        "assert tiny * 0.5 == float.fromhex('0x1p-1071')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("trouble", ["missing", "failing", "no place"])
def test_without_a_compiler_there_is_none(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "missing":
        monkeypatch.setattr("shutil.which", lambda name: None)
    elif trouble == "failing":
        monkeypatch.setattr("shutil.which", lambda name: "/bin/false")
    else:
        (fresh / "gpt2-from-scratch").write_text("a file is in the way")
    assert compiled.library() is None
    makers = [MAKERS[way]["int8"] for way in ("compiled", "plain")]
    assert not kernels.agree(*makers)
    if trouble == "failing":
        assert not list((fresh / "gpt2-from-scratch").iterdir())


def widened(model: GPT2) -> GPT2:
    """Give all its numbers some size: fresh biases are 0, and norms 1."""
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return model


@every_precision
@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
@pytest.mark.parametrize("size", [(48, 4), (15, 3), (64, 1)])
def test_all_layers_in_one_call(
    dtype: Precision, activation: Any, size: tuple[int, int]
) -> None:
    """Heads of odd widths, padding on both sides, more rows than a slab has,
    and a cache that is filled in pieces of one and of many."""
    if compiled.library() is None:
        pytest.skip("there is no compiler")
    n_embd, n_head = size
    config = gpt2.GPT2Config(
        n_vocab=101,
        n_ctx=150,
        n_embd=n_embd,
        n_head=n_head,
        n_layer=3,
        activation=activation,
    )
    model = widened(GPT2(config).eval())
    tokens = torch.randint(101, (3, 150))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, :7] = mask[2, -5:] = False
    expected = model(tokens, mask)
    packed = for_inference(model, dtype)
    assert packed.compiled is not None
    assert_near(packed(tokens, mask)[mask], expected[mask], dtype)
    cache, done, parts = packed.new_cache(3, 150), 0, []
    for new in tokens.split([60, 1, 29, 1, 1, 58], dim=1):
        done += new.size(1)
        parts.append(packed(new, mask[:, :done], cache=cache))
    assert cache.length == 150
    assert_near(torch.cat(parts, dim=1)[mask], expected[mask], dtype)


@every_precision
def test_a_cache_can_be_dealt_anew(model: GPT2, dtype: Precision) -> None:
    tokens = torch.tensor([[1, 5, 2, 7, 0, 3], [4, 4, 6, 2, 8, 1]])
    packed, rows = for_inference(model, dtype), torch.tensor([1, 0, 1])
    cache = packed.new_cache(2, 6)
    packed(tokens[:, :5], cache=cache)
    cache.select(rows)
    came = packed(tokens[rows, 5:], cache=cache)
    assert_near(came, model(tokens)[rows, 5:], dtype)


@every_precision
def test_a_cache_that_does_not_fit_is_refused(
    model: GPT2, dtype: Precision
) -> None:
    packed = for_inference(model, dtype)
    cache = packed.new_cache(2, 3)
    with pytest.raises(ValueError, match="for 2 sequences, and got 1"):
        packed(torch.tensor([[1]]), cache=cache)
    packed(torch.tensor([[1, 2], [3, 4]]), cache=cache)
    with pytest.raises(ValueError, match=r"room for 3 .* holds 2; 2 more"):
        packed(torch.tensor([[1, 2], [3, 4]]), cache=cache)
    assert cache.length == 2


@pytest.mark.parametrize("transposed", [True, False])
def test_what_is_packed_in_c_is_rounded_as_by_hand(transposed: bool) -> None:
    if compiled.library() is None:
        pytest.skip("there is no compiler")
    weight = torch.randn(50, 33).T if transposed else torch.randn(33, 50)
    weight[:, 3] = 0
    numbers, scale = quantize(weight)
    all_columns = torch.arange(50)
    for dtype, expected in (
        (torch.float32, weight),
        (torch.bfloat16, weight.bfloat16().float()),
        (torch.int8, numbers * scale),
    ):
        packed = compiled.PackedMatrix(weight, None, dtype)
        assert torch.equal(packed.columns(all_columns).T, expected)
    assert torch.equal(packed.totals[:50], numbers.sum(0, dtype=torch.int32))


# A model that is not wanted any more.


@every_precision
def test_used_up_it_is_the_same(
    model: GPT2, dtype: Precision, tmp_path: Path
) -> None:
    """And of a file that it was mapped from, nothing is changed."""
    tokens = torch.tensor([[1, 5, 2, 7, 0, 3]])
    expected = for_inference(model, dtype)(tokens)
    gpt2.save(tmp_path / "saved", model)
    files = sorted((tmp_path / "saved").iterdir())
    before = [file.read_bytes() for file in files]
    mapped = gpt2.load_model(tmp_path / "saved")
    packed = for_inference(mapped, dtype, use_up=True)
    assert torch.equal(packed(tokens), expected)
    assert [file.read_bytes() for file in files] == before
    assert not any(parameter.numel() for parameter in mapped.parameters())
    assert packed.num_parameters() == model.num_parameters()


@pytest.mark.parametrize("enabled", [True, False])
def test_packing_waits_for_no_search_for_garbage(
    model: GPT2, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, meanwhile = gc.isenabled(), list[bool]()
    pack = inference.PackedLayer

    def observed(*arguments: Any) -> nn.Module:
        meanwhile.append(gc.isenabled())
        return pack(*arguments)

    monkeypatch.setattr(inference, "PackedLayer", observed)
    (gc.enable if enabled else gc.disable)()
    try:
        for_inference(model, "float32")
        assert not any(meanwhile) and len(meanwhile) == len(model.h)
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if usual else gc.disable)()


def test_what_is_let_go_is_given_back_and_nothing_beside_it() -> None:
    tensor = torch.ones(100_000)
    compiled.let_go(tensor[1000:-1000])
    assert (tensor[:1000] == 1).all()
    assert (tensor[-1000:] == 1).all()
    if sys.platform.startswith("linux"):
        assert (tensor[3000:-3000] == 0).all()


def test_bfloat16_can_tell_logits_apart_that_lie_far_below_0(
    model: GPT2,
) -> None:
    """As those of the real GPT-2 do; in bfloat16, -90 has steps of a half."""
    direction = model.ln_f.bias / model.ln_f.bias.norm()
    model.wte.weight -= 50 * direction
    model.ln_f.bias.add_(3 * direction)
    tokens = torch.randint(17, (4, 8))
    expected = model(tokens)
    assert expected.mean() < -60
    came = for_inference(model, "bfloat16")(tokens)
    difference = came.log_softmax(-1) - expected.log_softmax(-1)
    assert difference.abs().max() < 0.1
    assert difference.abs().mean() < 0.03


# Bad input.


def test_refuses_what_it_does_not_know(model: GPT2) -> None:
    with pytest.raises(ValueError, match=r"float32, .*, int8; got 'int4'"):
        for_inference(model, "int4")  # type: ignore[arg-type]
    packed = for_inference(model, "bfloat16")
    with pytest.raises(ValueError, match="packed already, as bfloat16"):
        for_inference(packed, "int8")
    with pytest.raises(ValueError, match=r"for the CPU, and .* on meta"):
        for_inference(model.to("meta"), "int8")


def test_a_packed_model_is_not_trained_saved_or_moved(
    model: GPT2, tmp_path: Path
) -> None:
    packed = for_inference(model, "int8")
    assert packed.num_parameters() == model.num_parameters()
    with pytest.raises(ValueError, match="cannot be trained"):
        packed.train()
    with pytest.raises(ValueError, match="cannot be saved"):
        gpt2.save(tmp_path / "packed", packed)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="keeps its device and its dtype"):
        packed.half()

"""Packed models: the taught model's numbers, nearly, from fewer bytes."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import gpt2
from gpt2 import stories
from gpt2.data import pad
from gpt2.inference import compiled, compiling, kernels
from gpt2.inference import packed as inference
from gpt2.inference.kernels import MAKERS, Kernel, Precision, quantize
from gpt2.inference.layers import CompiledLayers
from gpt2.inference.packed import for_inference
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


# All layers in C.


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
@pytest.mark.parametrize("n_inner", [1, 8, 16, 40, 96, 1000])
def test_the_feed_forward_width_is_its_own(
    dtype: Precision, n_inner: int
) -> None:
    config = gpt2.GPT2Config(
        n_vocab=31, n_ctx=40, n_embd=16, n_head=2, n_layer=2, n_inner=n_inner
    )
    model = widened(GPT2(config).eval())
    tokens = torch.randint(31, (3, 40))
    assert_near(for_inference(model, dtype)(tokens), model(tokens), dtype)


def made_by(**sizes: int) -> GPT2:
    usual = {"n_vocab": 17, "n_ctx": 16, "n_embd": 12, "n_head": 3}
    config = gpt2.GPT2Config(**{**usual, "n_layer": 2, **sizes})
    return GPT2(config).eval()


@pytest.mark.parametrize("way", ["compiled", "plain", "taught"])
def test_a_cache_of_another_model_is_refused(
    way: str, request: pytest.FixtureRequest
) -> None:
    """C would write where nothing is reserved."""
    if way == "plain":
        request.getfixturevalue("no_kernels")
    tokens = torch.tensor([[1, 5]])

    def engine(model: GPT2) -> GPT2:
        return model if way == "taught" else for_inference(model, "float32")

    ours = engine(made_by())
    expected = ours(tokens)
    others: list[GPT2] = [
        engine(made_by(n_layer=1)),
        engine(made_by(n_layer=3)),
        engine(made_by(n_head=1)),
        engine(made_by(n_embd=24)),
        engine(made_by(n_embd=4, n_head=1)),
    ]
    if way == "compiled" and ours.compiled is not None:
        others += [made_by(), for_inference(made_by(), "int8")]
    if way == "taught":
        others.append(made_by().double())
        packed = for_inference(made_by(), "float32")
        if packed.compiled is not None:
            others.append(packed)
    for other in others:
        cache = other.new_cache(1, 4)
        with pytest.raises(ValueError, match="`new_cache` makes one that"):
            ours(tokens, cache=cache)
        assert cache.length == 0
    assert torch.equal(ours(tokens), expected)
    cache = engine(made_by(n_vocab=5)).new_cache(1, 4)
    assert torch.allclose(ours(tokens, cache=cache), expected, atol=1e-6)


@every_precision
def test_a_cache_whose_insides_were_changed_is_refused(
    model: GPT2, dtype: Precision
) -> None:
    packed, tokens = for_inference(model, dtype), torch.tensor([[1, 5]])
    if packed.compiled is None:
        pytest.skip("there is no compiler")
    for name, value in (
        ("length", -1),
        ("length", 5),
        ("n_positions", 64),
        ("keys", torch.zeros(3)),
        ("values", torch.zeros(3)),
        ("keys", packed.new_cache(1, 4).keys.to("meta")),
    ):
        cache = packed.new_cache(1, 4)
        setattr(cache, name, value)
        with pytest.raises(ValueError, match="the cache"):
            packed(tokens, cache=cache)


def test_a_cache_of_no_possible_size_is_refused(model: GPT2) -> None:
    packed = for_inference(model, "float32")
    if packed.compiled is None:
        pytest.skip("there is no compiler")
    for sizes in ((-1, 5), (1, -5)):
        with pytest.raises(ValueError, match="0 sequences and positions or"):
            packed.new_cache(*sizes)
    with pytest.raises(MemoryError, match="no memory for"):
        packed.new_cache(1, 10**15)


def test_c_is_told_the_truth_or_nothing() -> None:
    """Sizes that do not agree are refused before C could believe them."""
    if compiled.library() is None:
        pytest.skip("there is no compiler")
    matrix = compiled.PackedMatrix(torch.randn(5, 7), None, torch.float32)
    with pytest.raises(ValueError, match=r"\(N, 5\), got \(2, 6\)"):
        matrix(torch.randn(2, 6))
    for shapes in (
        [(5,), None, None],
        [(0, 7), None, None],
        [(5, 7), (1,), None],
        [(5, 7), (5,), None],
        [(5, 7), None, (7,)],
    ):
        weight, bias, shift = (
            None if shape is None else torch.randn(shape) for shape in shapes
        )
        assert weight is not None
        with pytest.raises(ValueError, match=r"a matrix \(in, out\), a bias"):
            compiled.PackedMatrix(weight, bias, torch.float32, shift)
    layers = for_inference(made_by(), "float32").compiled
    assert layers is not None
    for shape, mask in (
        ((1, 2, 11), None),
        ((1, 2, 12, 1), None),
        ((1, 2, 12), (1, 3)),
        ((1, 2, 12), (2, 2)),
    ):
        real = None if mask is None else torch.ones(mask)
        with pytest.raises(ValueError, match="must"):
            layers(torch.randn(shape), real, None)
    with pytest.raises(ValueError, match="float32"):
        layers(torch.randn(1, 2, 12).double(), None, None)
    wider = for_inference(made_by(n_inner=20), "float32")
    with pytest.raises(ValueError, match=r"c_fc must be a matrix \(12, 48\)"):
        CompiledLayers(list(wider.h), made_by().config, "float32")


@every_precision
@pytest.mark.parametrize("way", ["compiled", "plain"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_refused(
    dtype: Precision, way: str, number: float, request: pytest.FixtureRequest
) -> None:
    if way == "plain":
        request.getfixturevalue("no_kernels")
    for name in (
        "wte.weight",
        "wpe.weight",
        "h.1.ln_1.bias",
        "h.0.attn.c_attn.weight",
        "h.1.mlp.c_proj.bias",
        "ln_f.weight",
    ):
        model = made_by()
        model.get_parameter(name).data.view(-1)[-1] = number
        with pytest.raises(ValueError, match=f"{name} has numbers that are"):
            for_inference(model, dtype)


def test_a_matrix_that_is_not_finite_is_refused() -> None:
    if compiled.library() is None:
        pytest.skip("there is no compiler")
    most = torch.finfo(torch.float32).max
    for dtype in compiled.KINDS:
        for at in ((0, 0), (32, 49), (7, 20)):
            for number in (float("nan"), float("inf"), -float("inf")):
                weight = torch.randn(33, 50)
                weight[at] = number
                with pytest.raises(ValueError, match="not finite in"):
                    compiled.PackedMatrix(weight, None, dtype)
        weight = torch.full((33, 50), most)
        if dtype != torch.float32:  # in which it is rounded up
            with pytest.raises(ValueError, match="not finite in"):
                compiled.PackedMatrix(weight, None, dtype)
            weight = torch.full((33, 50), torch.finfo(torch.bfloat16).max)
        packed = compiled.PackedMatrix(weight, None, dtype)
        assert packed.columns(torch.arange(50)).isfinite().all()
    with pytest.raises(ValueError, match="not finite in"):
        bias = torch.tensor([1.0, float("nan")])
        compiled.PackedMatrix(torch.ones(3, 2), bias, torch.int8)


@every_precision
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_stays_so(
    dtype: Precision, number: float
) -> None:
    """Of its row alone; int8 must not make a number of it."""
    rows = torch.randn(5, 33)
    rows[2, 7] = number
    kernel = made("compiled", dtype, torch.randn(33, 50), None)
    came = kernel(rows)
    assert not came[2].isfinite().any()
    assert came[[0, 1, 3, 4]].isfinite().all()


@every_precision
def test_scores_that_overflow_are_not_hidden(dtype: Precision) -> None:
    """Attention over them is not a number in the taught model either."""
    model = made_by()
    for layer in model.h:  # each score is infinity less infinity
        layer.attn.fused = False  # PyTorch's kernel hides it, too
        layer.attn.c_attn.weight.data[:, :24] = 0
        layer.attn.c_attn.bias.data[:24] = 1e20
        layer.attn.c_attn.bias.data[12:24:2] = -1e20
    tokens = torch.tensor([[1, 5, 2, 7]])
    assert not model(tokens).isfinite().any()
    packed = for_inference(model, dtype)
    if packed.compiled is None:
        pytest.skip("there is no compiler")
    assert not packed(tokens).isfinite().any()


def test_columns_too_small_for_a_step_become_zeros() -> None:
    weight = torch.full((20, 3), 1e-42)
    weight[:, 1] = torch.randn(20)
    numbers, scale = quantize(weight)
    assert not numbers[:, [0, 2]].any() and scale[0] == scale[2] == 1
    if compiled.library() is not None:
        packed = compiled.PackedMatrix(weight, None, torch.int8)
        expected = (numbers * scale).T
        assert torch.equal(packed.columns(torch.arange(3)), expected)


@pytest.fixture
def slow_first_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A library in which one of the workers begins each phase late.

    So whatever the others do not wait for is not there, every time.
    """
    if compiled.library() is None:
        pytest.skip("there is no compiler")
    nap = "if (me.rank == 0) usleep(3000);"
    late = ("-include", "unistd.h", f'-DBARRIER=_Pragma("omp barrier") {nap}')
    monkeypatch.setattr(compiling, "FLAGS", (*compiling.FLAGS, *late))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled.library.cache_clear()
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)
    monkeypatch.undo()
    compiled.library.cache_clear()


@pytest.mark.usefixtures("slow_first_worker")
def test_the_workers_wait_for_each_other() -> None:
    model = widened(made_by(n_ctx=300, n_embd=36))
    tokens = torch.randint(17, (2, 140))  # more rows than go together
    rows, weight = torch.randn(600, 20), torch.randn(20, 40)
    for precision in get_args(Precision):
        packed = for_inference(model, precision)
        matrix = made("compiled", precision, weight, None)
        results = []
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            cache = packed.new_cache(2)
            results.append(packed(tokens, cache=cache))
            results.append(packed(tokens[:, :9], cache=cache))
            results.append(matrix(rows))
        for alone, together in zip(results[:3], results[3:], strict=True):
            assert torch.equal(alone, together)


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
    gpt2.save(model, None, tmp_path / "saved")
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


@pytest.mark.parametrize("way", ["compiled", "plain"])
@every_precision
def test_ids_that_are_not_in_the_vocabulary_are_refused(
    model: GPT2, dtype: Precision, way: str, request: pytest.FixtureRequest
) -> None:
    """The table has room for 32 rows, and 15 of them are nobody's."""
    if way == "plain":
        request.getfixturevalue("no_kernels")
    packed = for_inference(model, dtype)
    for wrong in (-100, -17, -1, 17, 18, 31, 32, 1000):
        for engine in (model, packed):
            with pytest.raises(ValueError, match=rf"0 and 16.* {wrong}"):
                engine(torch.tensor([[0, wrong], [wrong, 16]]))


@pytest.mark.parametrize("way", ["compiled", "plain"])
@every_precision
def test_a_batch_of_none(
    model: GPT2, dtype: Precision, way: str, request: pytest.FixtureRequest
) -> None:
    if way == "plain":
        request.getfixturevalue("no_kernels")
    none = torch.zeros(0, 3, dtype=torch.long)
    packed = for_inference(model, dtype)
    for engine in (model, packed):
        assert engine(none).shape == (0, 3, 17)
        assert engine(none, last_only=True).shape == (0, 17)
        assert engine(none, none.bool()).shape == (0, 3, 17)


@every_precision
def test_a_packed_model_is_not_copied(model: GPT2, dtype: Precision) -> None:
    packed = for_inference(model, dtype)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(ValueError, match="and pack the copy"):
            copied(packed)
    again = for_inference(copy.deepcopy(model), dtype)
    tokens = torch.tensor([[1, 5, 2]])
    assert torch.equal(again(tokens), packed(tokens))


def hooked(model: GPT2) -> None:
    model.h[1].mlp.register_forward_hook(lambda m, i, output: 2 * output)


def wrapped(model: GPT2) -> None:
    model.h[0].attn.c_attn = nn.Sequential(model.h[0].attn.c_attn)


def patched(model: GPT2) -> None:
    model.ln_f.forward = lambda x: x


def another_layer(model: GPT2) -> None:
    class Layer(type(model.h[1])):  # type: ignore[misc]
        pass

    model.h[1].__class__ = Layer


def another_activation(model: GPT2) -> None:
    model.h[1].mlp.activation = torch.tanh


def another_epsilon(model: GPT2) -> None:
    model.h[0].ln_2.epsilon = 0.1


def other_heads(model: GPT2) -> None:
    model.h[0].attn.n_head = 1


@pytest.mark.parametrize(
    "change, name",
    [
        (hooked, r"h\.1\.mlp"),
        (wrapped, r"h\.0\.attn\.c_attn"),
        (patched, "ln_f"),
        (another_layer, r"h\.1"),
        (another_activation, r"h\.1\.mlp"),
        (another_epsilon, r"h\.0\.ln_2"),
        (other_heads, r"h\.0\.attn"),
    ],
)
def test_a_model_that_is_not_what_its_config_says_is_refused(
    model: GPT2, change: Any, name: str
) -> None:
    """What is packed would compute something else, without a word."""
    change(model)
    with pytest.raises(ValueError, match=f"{name}[, ].*plain GPT2 can be"):
        for_inference(model, "float32")


def test_what_c_points_to_stays(model: GPT2) -> None:
    tokens = torch.tensor([[1, 5, 2]])
    packed = for_inference(model, "float32")
    if packed.compiled is None:
        pytest.skip("there is no compiler")
    expected = packed(tokens)
    for layer in packed.h:
        layer.ln_1.weight.data = torch.full((12,), float("nan"))
        layer.c_attn = None
    gc.collect()
    kept = [torch.full((12,), float("nan")) for _ in range(100)]
    assert torch.equal(packed(tokens), expected) and kept


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_after_a_fork_it_does_not_wait_for_threads_that_are_not_there() -> (
    None
):
    code = """
import os, torch, gpt2
model = gpt2.for_inference(gpt2.load_model("story"), "int8")
if model.compiled is None:
    raise SystemExit("no compiler")
tokens = torch.arange(200)[None]  # enough for PyTorch to share the work
torch.set_num_threads(2)
expected = model(tokens)
reader, writer = os.pipe()
if os.fork() == 0:
    try:
        model(tokens)
    except RuntimeError as error:
        os.write(writer, str(error).encode())
    torch.set_num_threads(1)
    os.write(writer, b" | same" * torch.equal(model(tokens), expected))
    os._exit(0)
os.close(writer)
print(os.fdopen(reader).read())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.stderr.strip() == "no compiler":
        pytest.skip("there is no compiler")
    assert "forked from one in which 2 threads" in done.stdout, done.stderr
    assert done.stdout.endswith(" | same\n")


def test_a_packed_model_is_not_trained_saved_or_moved(
    model: GPT2, tmp_path: Path
) -> None:
    packed = for_inference(model, "int8")
    assert packed.num_parameters() == model.num_parameters()
    with pytest.raises(ValueError, match="cannot be trained"):
        packed.train()
    with pytest.raises(ValueError, match="cannot be saved"):
        gpt2.save(packed, None, tmp_path / "packed")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="keeps its device and its dtype"):
        packed.half()

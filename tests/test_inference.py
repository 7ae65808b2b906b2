"""Packed models compute what their GPT2 computes, up to rounding."""

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
from typing import Any, cast, get_args

import pytest
import torch
from generating import with_spare_rows
from torch import Tensor, nn

import gpt2
from gpt2 import stories
from gpt2.data import pad
from gpt2.evaluation.circuits import record_attention
from gpt2.inference import compiled, compiling, kernels
from gpt2.inference.compiled import CompiledMatrix, Precision
from gpt2.inference.kernels import (
    Matrix,
    PlainMatrix,
    pack,
    quantize,
    quantize_groups,
)
from gpt2.inference.layers import CompiledLayers, PackedCache
from gpt2.inference.packed import PackedGPT2, for_inference
from gpt2.linear import Linear
from gpt2.model import GPT2, LanguageModel

every_precision = pytest.mark.parametrize("dtype", get_args(Precision))
TOLERANCE = {
    "float32": 1e-5,
    "bfloat16": 0.02,
    "int8": 0.04,
    "int4": 0.04,  # of what the rounded weights give
}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a C compiler."""
    monkeypatch.setattr(kernels, "is_compiled", lambda precision: False)


def packed_in_c(model: GPT2, dtype: Precision) -> PackedGPT2:
    """Pack a model, and skip the test where it would not run in C."""
    packed = for_inference(model, dtype)
    if not packed.compiled:
        pytest.skip("there is no compiler")
    return packed


def assert_near(came: Tensor, expected: Tensor, dtype: Precision) -> None:
    assert came.dtype == torch.float32
    error = (came - expected).abs().max()
    assert error <= TOLERANCE[dtype] * expected.abs().max()


def as_stored(weight: Tensor, dtype: Precision) -> Tensor:
    """Round a matrix to int4, whose error is large, and leave others alone."""
    if dtype != "int4":
        return weight
    integers, scale = quantize_groups(weight)
    return (integers * scale).flatten(0, 1)[: len(weight)]


def as_packed(model: GPT2, dtype: Precision) -> GPT2:
    """Copy a model, its matrices as they are stored."""
    model = copy.deepcopy(model)
    for part in model.modules():
        if isinstance(part, Linear):
            part.weight.data = as_stored(part.weight, dtype)
    model.wte.weight.data = as_stored(model.wte.weight.T, dtype).T
    return model


every_way = pytest.mark.parametrize("way", ["compiled", "plain"])


def made(
    way: str, dtype: Precision, weight: Tensor, bias: Tensor | None
) -> Matrix:
    """Pack a matrix in one of the ways, if this machine supports it."""
    if way == "plain":
        return PlainMatrix(weight, bias, dtype)
    if compiled.library() is None:
        pytest.skip("there is no compiler")
    return CompiledMatrix(weight, bias, dtype)


def padded(model: GPT2) -> tuple[Tensor, Tensor]:
    n = model.config.n_vocab
    rows = [[1, 5, 2, 7, n - 1, 3], [4, 4], [6, 2, 8, 1]]
    return pad(rows)


# The same model.


@every_precision
def test_logits_are_the_models(model: GPT2, dtype: Precision) -> None:
    tokens, mask = padded(model)
    packed = for_inference(model, dtype)
    model = as_packed(model, dtype)
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
    expected = as_packed(model, dtype)(tokens)
    assert_near(torch.cat(steps, dim=1), expected, dtype)


@every_precision
@pytest.mark.parametrize("way", ["compiled", "plain"])
def test_rows_without_a_token_are_never_drawn(
    model: GPT2,
    tokens: Tensor,
    dtype: Precision,
    way: str,
    request: pytest.FixtureRequest,
) -> None:
    if way == "plain":
        request.getfixturevalue("no_compiler")
    wide = for_inference(with_spare_rows(model, 46), dtype)
    options: dict[str, Any] = {"n_samples": 9, "seed": 0}
    drawn = gpt2.generate(wide, tokens, 9, **options)[:, 5:]
    assert (drawn >= 17).any(dim=1).all()
    drawn = gpt2.generate(wide, tokens, 9, **options, n_vocab=17)
    assert drawn.max() == 16
    best, _ = gpt2.beam_search(wide, tokens, 9, n_vocab=17)
    assert best.max() < 17
    if dtype == "float32":
        expected = gpt2.generate(model, tokens, 9, **options)
        assert torch.equal(drawn, expected)


def test_float32_generates_the_same_text(model: GPT2) -> None:
    packed = for_inference(model, "float32")
    prompt = torch.tensor([[1, 5, 2]])
    for settings in ({"sampling": gpt2.Sampling(0)}, {"seed": 3}):
        ours = gpt2.generate(packed, prompt, 10, **settings)
        assert torch.equal(ours, gpt2.generate(model, prompt, 10, **settings))


@pytest.mark.usefixtures("no_compiler")
@every_precision
@pytest.mark.parametrize("sizes", [[3, 1, 2], [1] * 6])
@pytest.mark.parametrize("side", ["left", "right"])
def test_without_a_compiler_it_is_right_too(
    model: GPT2, dtype: Precision, sizes: list[int], side: Any
) -> None:
    tokens, mask = pad([[1, 5, 2, 7, 4, 3], [4, 4], [6, 2, 8, 1]], side=side)
    packed = for_inference(model, dtype)
    expected = as_packed(model, dtype)(tokens, mask)
    assert not packed.compiled
    assert_near(packed(tokens, mask)[mask], expected[mask], dtype)
    cache, done, parts = packed.new_cache(3, 6), 0, []
    for new in tokens.split(sizes, dim=1):
        done += new.size(1)
        parts.append(packed(new, mask[:, :done], cache=cache))
    assert cache.length == 6
    assert_near(torch.cat(parts, dim=1)[mask], expected[mask], dtype)


@every_precision
def test_the_story_model_loses_almost_nothing(dtype: Precision) -> None:
    model, tokenizer = gpt2.load("story")
    end, rng = tokenizer.end_of_text, random.Random(0)
    texts = [stories.sample(rng, "held_out") for _ in range(30)]
    tokens, mask = pad([[end, *tokenizer.encode(t), end] for t in texts])
    loss = gpt2.next_token_loss(model, tokens, mask)
    packed = gpt2.next_token_loss(for_inference(model, dtype), tokens, mask)
    assert abs(packed - loss) < (1e-5 if dtype == "float32" else 0.01)


def test_the_model_is_left_as_it_is(model: GPT2) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tokens = torch.tensor([[1, 2]])
    expected = model(tokens)
    model.train()
    for dtype in get_args(Precision):  # dropout is off all the same
        expected = as_packed(model, dtype).eval()(tokens)
        assert_near(for_inference(model, dtype)(tokens), expected, dtype)
    assert model.training
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], v) for k, v in before.items())


@every_precision
def test_nothing_is_shared(model: GPT2, dtype: Precision) -> None:
    """Sharing one bias would keep the whole file mapped."""
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
    weight = as_stored(weight, dtype)
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
        assert_near(came.float(), rows @ as_stored(weight, dtype), dtype)


def test_quantizing_by_hand() -> None:
    weight = torch.tensor([[2.54, 0.0, -1.0], [-1.27, 0.0, 0.5]])
    numbers, scale = quantize(weight)
    assert numbers.dtype == torch.int8
    # -63.5 and 63.5 are rounded to the even number.
    assert numbers.tolist() == [[127, 0, -127], [-64, 0, 64]]
    torch.testing.assert_close(scale, torch.tensor([0.02, 1.0, 1 / 127]))


def test_quantizing_a_group_by_hand() -> None:
    """The largest magnitude becomes -8, and each group has its own scale."""
    weight = torch.zeros(40, 2)
    weight[0], weight[1] = torch.tensor([[2.0, -4.0], [-0.5, 3.9]])
    weight[2] = torch.tensor([-2.0, 1.25])
    weight[39, 0] = 0.001
    integers, scale = quantize_groups(weight)
    assert integers.shape == (2, 32, 2) and integers.dtype == torch.int8
    # There is no 8, and 2.5 is rounded to the even number.
    assert integers[0, :3].tolist() == [[7, -8], [-2, 7], [-8, 2]]
    assert scale[0].tolist() == [[0.25, 0.5]]
    assert integers[1, 7].tolist() == [-8, 0]
    assert scale[1, 0, 0] == torch.tensor(-0.000125).bfloat16()
    assert scale[1, 0, 1] == 1 and not integers[1, :, 1].any()


def test_quantizing_groups_is_off_by_a_step_at_most() -> None:
    """By half of one, but for the values that would be 8."""
    weight = torch.randn(64, 48) * torch.logspace(-4, 4, 48)
    integers, scale = quantize_groups(weight)
    error = (integers * scale - weight.unflatten(0, (2, 32))).abs()
    steps = error / scale.abs()
    assert (steps <= 1.04).all() and (steps <= 0.501).float().mean() > 0.98


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
@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_routines_that_are_wrong_are_not_used(
    dtype: Precision, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled.library() is None:
        pytest.skip("there is no compiler")
    multiply = CompiledMatrix.__call__
    monkeypatch.setattr(
        CompiledMatrix,
        "__call__",
        lambda matrix, rows: factor * multiply(matrix, rows),
    )
    assert kernels.is_compiled.__wrapped__(dtype) == (factor == 1)


@every_precision
def test_with_a_compiler_the_routines_are_used(
    model: GPT2, dtype: Precision
) -> None:
    """Otherwise every machine could run the slow code unnoticed."""
    has_compiler = compiled.library() is not None
    assert for_inference(model, dtype).compiled == has_compiler


# All layers in C.


def widened(model: GPT2) -> GPT2:
    """Perturb all parameters: new biases are 0 and new norms 1."""
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return model


@every_precision
@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
@pytest.mark.parametrize("size", [(48, 4), (15, 3), (64, 1)])
def test_all_layers_in_one_call(
    dtype: Precision, activation: Any, size: tuple[int, int]
) -> None:
    """Odd head sizes, padding on both sides, more rows than a block has, and a
    cache that is filled one position and many positions at a time."""
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
    expected = as_packed(model, dtype)(tokens, mask)
    packed = packed_in_c(model, dtype)
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
    expected = as_packed(model, dtype)(tokens)
    assert_near(for_inference(model, dtype)(tokens), expected, dtype)


def made_by(**sizes: int) -> GPT2:
    usual = {"n_vocab": 17, "n_ctx": 16, "n_embd": 12, "n_head": 3}
    config = gpt2.GPT2Config(**{**usual, "n_layer": 2, **sizes})
    return GPT2(config).eval()


@pytest.mark.parametrize("way", ["compiled", "plain", "plain GPT2"])
def test_a_cache_of_another_model_is_refused(
    way: str, request: pytest.FixtureRequest
) -> None:
    """C would write out of bounds."""
    if way == "plain":
        request.getfixturevalue("no_compiler")
    tokens = torch.tensor([[1, 5]])

    def engine(model: GPT2) -> LanguageModel:
        return (
            model if way == "plain GPT2" else for_inference(model, "float32")
        )

    ours = engine(made_by())
    expected = ours(tokens)
    others: list[LanguageModel] = [
        engine(made_by(n_layer=1)),
        engine(made_by(n_layer=3)),
        engine(made_by(n_head=1)),
        engine(made_by(n_embd=24)),
        engine(made_by(n_embd=4, n_head=1)),
    ]
    if isinstance(ours, PackedGPT2) and ours.compiled:
        others += [made_by(), for_inference(made_by(), "int8")]
    if way == "plain GPT2":
        others.append(made_by().double())
        packed = for_inference(made_by(), "float32")
        if packed.compiled:
            others.append(packed)
    for other in others:
        cache = other.new_cache(1, 4)
        with pytest.raises(ValueError, match=r"the cache .*`new_cache`"):
            ours(tokens, cache=cache)
        assert cache.length == 0
    assert torch.equal(ours(tokens), expected)
    cache = engine(made_by(n_vocab=5)).new_cache(1, 4)
    assert torch.allclose(ours(tokens, cache=cache), expected, atol=1e-6)


def new_keys(packed: PackedGPT2) -> Tensor:
    cache = packed.new_cache(1, 4)
    assert isinstance(cache, PackedCache)
    return cache.keys


@every_precision
def test_a_cache_whose_insides_were_changed_is_refused(
    model: GPT2, dtype: Precision
) -> None:
    packed, tokens = packed_in_c(model, dtype), torch.tensor([[1, 5]])
    keys = torch.zeros_like(new_keys(packed), device="meta")
    for name, value in (
        ("length", -1),
        ("length", 5),
        ("n_positions", 64),
        ("keys", torch.zeros(3)),
        ("values", torch.zeros(3)),
        ("keys", keys),
    ):
        cache = packed.new_cache(1, 4)
        setattr(cache, name, value)
        with pytest.raises(ValueError, match="the cache"):
            packed(tokens, cache=cache)


def test_a_cache_of_no_possible_size_is_refused(model: GPT2) -> None:
    packed = packed_in_c(model, "float32")
    for sizes in ((-1, 5), (1, -5)):
        with pytest.raises(ValueError, match="0 sequences and positions or"):
            packed.new_cache(*sizes)
    with pytest.raises(MemoryError, match="no memory for"):
        packed.new_cache(1, 10**15)


def layers_of(model: GPT2) -> list[gpt2.GPT2Layer]:
    return [cast(gpt2.GPT2Layer, layer) for layer in model.h]


def test_c_gets_no_sizes_that_disagree() -> None:
    """They are refused before the C code, which trusts its arguments."""
    if compiled.library() is None:
        pytest.skip("there is no compiler")
    matrix = CompiledMatrix(torch.randn(5, 7), None, "float32")
    with pytest.raises(ValueError, match=r"\(N, 5\), got \(2, 6\)"):
        matrix(torch.randn(2, 6))
    for shapes in (
        [(5,), None, None],
        [(0, 7), None, None],
        [(5, 7), (1,), None],
        [(5, 7), (5,), None],
        [(5, 7), None, (7,)],
    ):
        weight, bias, offsets = (
            None if shape is None else torch.randn(shape) for shape in shapes
        )
        assert weight is not None
        with pytest.raises(ValueError, match=r"must be \(in, out\)"):
            CompiledMatrix(weight, bias, "float32", offsets)
    config = made_by().config
    layers = CompiledLayers(layers_of(made_by()), config, "float32")
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
    wider = layers_of(made_by(n_inner=20))
    with pytest.raises(ValueError, match=r"mlp\.c_fc\.weight .*\(12, 48\)"):
        CompiledLayers(wider, config, "float32")
    for other in (made_by(n_layer=1), made_by(n_layer=3)):
        with pytest.raises(ValueError, match="zip"):
            CompiledLayers(layers_of(other), config, "float32")


@every_precision
@pytest.mark.parametrize("way", ["compiled", "plain"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_refused(
    dtype: Precision, way: str, number: float, request: pytest.FixtureRequest
) -> None:
    if way == "plain":
        request.getfixturevalue("no_compiler")
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
        with pytest.raises(ValueError, match=f"{name} .*not finite"):
            for_inference(model, dtype)


def test_a_matrix_that_is_not_finite_is_refused() -> None:
    if compiled.library() is None:
        pytest.skip("there is no compiler")
    most = torch.finfo(torch.float32).max
    for dtype in get_args(Precision):
        for at in ((0, 0), (32, 49), (7, 20)):
            for number in (float("nan"), float("inf"), -float("inf")):
                weight = torch.randn(33, 50)
                weight[at] = number
                with pytest.raises(ValueError, match="not finite in"):
                    CompiledMatrix(weight, None, dtype)
        weight = torch.full((33, 50), most)
        if dtype != "float32":  # in which it is rounded up
            with pytest.raises(ValueError, match="not finite in"):
                CompiledMatrix(weight, None, dtype)
            weight = torch.full((33, 50), torch.finfo(torch.bfloat16).max)
        packed = CompiledMatrix(weight, None, dtype)
        assert packed.columns(torch.arange(50)).isfinite().all()
    with pytest.raises(ValueError, match="not finite in"):
        bias = torch.tensor([1.0, float("nan")])
        CompiledMatrix(torch.ones(3, 2), bias, "int8")


@every_precision
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_stays_so(
    dtype: Precision, number: float
) -> None:
    """And so does its row, but no other; int8 must not hide it."""
    rows = torch.randn(5, 33)
    rows[2, 7] = number
    kernel = made("compiled", dtype, torch.randn(33, 50), None)
    came = kernel(rows)
    assert not came[2].isfinite().any()
    assert came[[0, 1, 3, 4]].isfinite().all()


@every_precision
def test_scores_that_overflow_are_not_hidden(dtype: Precision) -> None:
    """They make attention NaN in the plain GPT2 too."""
    model = made_by()
    for layer in model.h:  # each score is infinity - infinity
        layer.attn.fused = False  # PyTorch's fused kernel hides it
        layer.attn.c_attn.weight.data[:, :24] = 0
        layer.attn.c_attn.bias.data[:24] = 1e20
        layer.attn.c_attn.bias.data[12:24:2] = -1e20
    tokens = torch.tensor([[1, 5, 2, 7]])
    assert not model(tokens).isfinite().any()
    assert not packed_in_c(model, dtype)(tokens).isfinite().any()


def test_columns_too_small_for_a_step_become_zeros() -> None:
    weight = torch.full((20, 3), 1e-42)
    weight[:, 1] = torch.randn(20)
    numbers, scale = quantize(weight)
    assert not numbers[:, [0, 2]].any() and scale[0] == scale[2] == 1
    if compiled.library() is not None:
        packed = CompiledMatrix(weight, None, "int8")
        expected = (numbers * scale).T
        assert torch.equal(packed.columns(torch.arange(3)), expected)


@pytest.fixture
def slow_first_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A library in which one of the threads starts every phase late.

    So data that the other threads do not wait for is missing, every time.
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


@pytest.mark.usefixtures("slow_first_thread")
def test_the_threads_wait_for_each_other() -> None:
    model = widened(made_by(n_ctx=300, n_embd=36))
    tokens = torch.randint(17, (2, 140))  # more rows than a block has
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
def test_a_cache_can_be_reordered(model: GPT2, dtype: Precision) -> None:
    tokens = torch.tensor([[1, 5, 2, 7, 0, 3], [4, 4, 6, 2, 8, 1]])
    packed, rows = for_inference(model, dtype), torch.tensor([1, 0, 1])
    cache = packed.new_cache(2, 6)
    packed(tokens[:, :5], cache=cache)
    cache.select(rows)
    came = packed(tokens[rows, 5:], cache=cache)
    expected = as_packed(model, dtype)(tokens)
    assert_near(came, expected[rows, 5:], dtype)


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
        ("float32", weight),
        ("bfloat16", weight.bfloat16().float()),
        ("int8", numbers * scale),
        ("int4", as_stored(weight, "int4")),
    ):
        packed = CompiledMatrix(weight, None, dtype)
        assert torch.equal(packed.columns(all_columns).T, expected)
        if dtype == "int8":
            sums = numbers.sum(0, dtype=torch.int32)
            assert torch.equal(packed.column_sums[:50], sums)


@every_precision
@pytest.mark.parametrize("transposed", [True, False])
def test_packing_in_pieces_changes_nothing(
    dtype: Precision, transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled.library() is None:
        pytest.skip("there is no compiler")
    weight = torch.randn(100, 33).T if transposed else torch.randn(33, 100)
    bias, offsets = torch.randn(100), torch.randn(33)
    for stored in (weight, weight.bfloat16()):
        whole = pack(stored, bias, dtype, offsets)
        with monkeypatch.context() as context:
            context.setattr(compiled, "PIECE", 33 * 48)
            pieces = pack(stored, bias, dtype, offsets)
        rows = torch.randn(5, 33)
        assert torch.equal(pieces(rows), whole(rows))
        ids = torch.arange(100)
        assert torch.equal(pieces.columns(ids), whole.columns(ids))


# A model that is consumed.


@every_precision
def test_a_consumed_model_packs_the_same(
    model: GPT2, dtype: Precision, tmp_path: Path
) -> None:
    """And the file that it is mapped from is not changed."""
    tokens = torch.tensor([[1, 5, 2, 7, 0, 3]])
    expected = for_inference(model, dtype)(tokens)
    gpt2.save(model, None, tmp_path / "saved")
    files = sorted((tmp_path / "saved").iterdir())
    before = [file.read_bytes() for file in files]
    mapped = gpt2.load_model(tmp_path / "saved")
    packed = for_inference(mapped, dtype, consume=True)
    assert torch.equal(packed(tokens), expected)
    assert [file.read_bytes() for file in files] == before
    assert not any(parameter.numel() for parameter in mapped.parameters())
    assert packed.num_parameters() == model.num_parameters()


def huge_kib() -> int:
    """Return the KiB of this process that are on huge pages."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (found,) = (x.split()[1] for x in lines if x.startswith("AnonHugePages"))
    return int(found)


def test_packed_weights_are_on_huge_pages() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this system has no huge pages")
    before = huge_kib()
    kept = compiled.zeros_on_huge_pages((32 << 20,), torch.int8).fill_(1)
    assert huge_kib() > before and kept.all()


def test_released_pages_are_those_of_the_tensor_alone() -> None:
    tensor = torch.ones(100_000)
    compiled.release(tensor[1000:-1000])
    assert (tensor[:1000] == 1).all()
    assert (tensor[-1000:] == 1).all()
    if sys.platform.startswith("linux"):
        assert (tensor[3000:-3000] == 0).all()


def test_bfloat16_separates_logits_far_below_0(
    model: GPT2,
) -> None:
    """Like those of the real GPT-2: near -90, bfloat16 has steps of 0.5."""
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
    with pytest.raises(ValueError, match=r"float32, .*, int4; got 'int2'"):
        for_inference(model, "int2")  # type: ignore[arg-type]
    packed = for_inference(model, "bfloat16")
    with pytest.raises(ValueError, match="packed already, as bfloat16"):
        for_inference(packed, "int8")
    with pytest.raises(ValueError, match=r"for the CPU; .* on meta"):
        for_inference(model.to("meta"), "int8")


@pytest.mark.parametrize("way", ["compiled", "plain"])
@every_precision
def test_ids_that_are_not_in_the_vocabulary_are_refused(
    model: GPT2, dtype: Precision, way: str, request: pytest.FixtureRequest
) -> None:
    """The table is padded to 32 rows, 15 of which are no tokens."""
    if way == "plain":
        request.getfixturevalue("no_compiler")
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
        request.getfixturevalue("no_compiler")
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
        with pytest.raises(ValueError, match="neither copied nor pickled"):
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
    """The packed model would silently compute something else."""
    change(model)
    with pytest.raises(ValueError, match=f"{name}[, ].*plain GPT2 can be"):
        for_inference(model, "float32")


def test_what_c_points_to_stays_alive() -> None:
    tokens = torch.tensor([[1, 5, 2]])
    packed = packed_in_c(made_by(), "float32")  # of a model that is gone
    expected = packed(tokens)
    gc.collect()
    kept = [torch.full((12,), float("nan")) for _ in range(100)]
    assert torch.equal(packed(tokens), expected) and kept


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_after_a_fork_it_does_not_wait_for_lost_threads() -> None:
    code = """
import os, torch, gpt2
model = gpt2.for_inference(gpt2.load_model("story"), "int8")
if not model.compiled:
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


def test_a_packed_model_is_no_module(model: GPT2, tmp_path: Path) -> None:
    packed = for_inference(model, "int8")
    assert not isinstance(packed, nn.Module)
    for name in ("h", "wte", "hidden_states", "train", "state_dict", "half"):
        with pytest.raises(AttributeError, match=f"no '{name}'.* the GPT2"):
            getattr(packed, name)
    with pytest.raises(ValueError, match="got a PackedGPT2"):
        record_attention(cast(GPT2, packed), torch.tensor([[1, 5]]))
    with pytest.raises(AttributeError, match="a packed model has no"):
        gpt2.save(cast(GPT2, packed), None, tmp_path / "packed")
    assert not list(tmp_path.iterdir())


@every_way
def test_it_shows_what_it_is(
    model: GPT2, way: str, request: pytest.FixtureRequest
) -> None:
    if way == "plain":
        request.getfixturevalue("no_compiler")
    packed = for_inference(model, "int8")
    assert packed.num_parameters() == model.num_parameters()
    assert packed.device == torch.device("cpu")
    runs = "compiled C" if packed.compiled else "plain PyTorch"
    for part in (f"{model.num_parameters():,}", "n_embd=12", "'int8'", runs):
        assert part in repr(packed)

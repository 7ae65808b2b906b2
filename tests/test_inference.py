"""Packed models: the taught model's numbers, nearly, from fewer bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

import gpt2
from gpt2 import inference, stories
from gpt2.data import pad
from gpt2.inference import (
    Kernel,
    PackedLinear,
    Precision,
    for_inference,
    quantize,
)
from gpt2.linear import Linear
from gpt2.model import GPT2

every_precision = pytest.mark.parametrize("dtype", get_args(Precision))
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.03}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which neither routine is there."""
    monkeypatch.setattr(inference, "_has_onednn", lambda: False)
    monkeypatch.setattr(inference, "_has_dynamic_int8", lambda: False)


def assert_near(came: Tensor, expected: Tensor, dtype: Precision) -> None:
    assert came.dtype == torch.float32
    error = (came - expected).abs().max()
    assert error <= TOLERANCE[dtype] * expected.abs().max()


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
    kept = torch.float32 if dtype == "float32" else torch.bfloat16
    assert cache.layers[0].keys.dtype == kept


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


def test_what_is_not_packed_is_shared(model: GPT2) -> None:
    packed = for_inference(model, "float32")
    assert packed.wte.weight.data_ptr() == model.wte.weight.data_ptr()
    packed = for_inference(model, "int8")
    assert packed.wpe.weight.data_ptr() == model.wpe.weight.data_ptr()
    assert not any(
        parameter.numel() == model.h[0].mlp.c_fc.weight.numel()
        for parameter in packed.h.parameters()
    )


# Linear maps.

KERNELS: dict[str, tuple[Callable[..., Kernel], Callable[..., Kernel]]] = {
    "bfloat16": (inference._onednn_bfloat16, inference._plain_bfloat16),
    "int8": (inference._dynamic_int8, inference._plain_int8),
}


@every_precision
@pytest.mark.parametrize("shape", [(5,), (1, 5), (3, 2, 5)])
def test_linear_maps_take_any_shape(
    dtype: Precision, shape: tuple[int, ...]
) -> None:
    linear = Linear(5, 7)
    linear.bias.copy_(torch.randn(7))
    linear.weight.copy_(torch.randn(5, 7))
    x = torch.randn(shape)
    packed = PackedLinear(linear, dtype, torch.float32)
    assert_near(packed(x), linear(x), dtype)


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


def test_a_row_does_not_pay_for_anothers_large_numbers() -> None:
    """With one scale for all rows, the small ones would be rounded to 0."""
    linear = Linear(64, 32)
    packed = PackedLinear(linear, "int8", torch.float32)
    small, large = torch.randn(1, 64), 10_000 * torch.randn(1, 64)
    together = packed(torch.cat([small, large]))
    assert_near(together[:1], linear(small), "int8")
    assert_near(together[1:], linear(large), "int8")


@pytest.mark.parametrize("name", KERNELS)
def test_a_routine_that_is_missing_or_wrong_is_not_used(name: str) -> None:
    fast, plain = KERNELS[name]

    def missing(*arguments: Tensor) -> Kernel:
        raise NotImplementedError("not on this machine")

    def wrong(*arguments: Tensor) -> Kernel:
        kernel = fast(*arguments)
        return lambda rows: kernel(rows) * 1.1

    assert inference._agree(plain, plain, name)
    assert not inference._agree(missing, plain, name)
    assert not inference._agree(wrong, plain, name)


@pytest.mark.parametrize("name", KERNELS)
def test_where_the_processor_can_it_does(name: str) -> None:
    """Else nobody would notice that the slow way is taken everywhere."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("this processor may lack the instructions")
    fast, plain = KERNELS[name]
    assert inference._agree(fast, plain, name)


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
    with pytest.raises(ValueError, match=r"float32, .* int8; got 'int4'"):
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


def test_a_cache_of_another_dtype_is_refused(model: GPT2) -> None:
    packed = for_inference(model, "bfloat16")
    cache = gpt2.KeyValueCache(model.config, 1)
    with pytest.raises(
        ValueError, match=r"holds torch.float32, .* torch.bfloat16"
    ):
        packed(torch.tensor([[1, 2]]), cache=cache)

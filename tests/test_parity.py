"""Parity with an independent GPT-2, that of `transformers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GPT2Config as TheirConfig
from transformers import GPT2LMHeadModel

from gpt2.config import GPT2Config
from gpt2.model import GPT2, next_token_loss

TINY = {
    "vocab_size": 17,
    "n_positions": 16,
    "n_embd": 12,
    "n_head": 3,
    "n_layer": 2,
    "attn_implementation": "eager",  # step by step, not fused
}
VARIANTS = {
    "tiny": {},
    "one head": {"n_head": 1},
    "heads of width 1": {"n_head": 12},
    "one layer": {"n_layer": 1},
    "deeper and wider": {"n_layer": 5, "n_embd": 20, "n_head": 4},
    "narrow inside": {"n_inner": 7},
    "exact gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "large epsilon": {"layer_norm_epsilon": 0.1},
}


class Pair(NamedTuple):
    """Two models that should compute the same."""

    ours: GPT2
    theirs: GPT2LMHeadModel


def move(module: nn.Module, seed: int = 0) -> None:
    """Move every parameter, so that each of them affects the result."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def pair_of(**options: Any) -> Pair:
    theirs = GPT2LMHeadModel(TheirConfig(**TINY | options)).eval()
    move(theirs)
    ours = GPT2(GPT2Config.from_dict(theirs.config.to_dict())).eval()
    ours.load_state_dict(theirs.transformer.state_dict())
    return Pair(ours, theirs)


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def pair(request: pytest.FixtureRequest) -> Pair:
    return pair_of(**request.param)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Return the gradients by their names in the checkpoint."""
    return {
        name.removeprefix("transformer."): parameter.grad
        for name, parameter in module.named_parameters()
    }


def test_logits(pair: Pair) -> None:
    tokens = torch.randint(17, (2, 11))
    logits = pair.theirs(tokens).logits
    assert logits.std() > 0.5  # there is something to compare
    close(pair.ours(tokens), logits)


def test_hidden_states_layer_by_layer(pair: Pair) -> None:
    tokens = torch.randint(17, (2, 11))
    found: list[Tensor] = []
    for module in (pair.ours.drop, *pair.ours.h):
        module.register_forward_hook(
            lambda module, inputs, output: found.append(output)
        )
    final = pair.ours.hidden_states(tokens)
    # Their last hidden state is the output of the final norm.
    theirs = pair.theirs(tokens, output_hidden_states=True).hidden_states
    close(found[:-1], list(theirs[:-1]))
    close(pair.ours.ln_f(found[-1]), theirs[-1])
    close(final, theirs[-1])


def test_attention_weights(pair: Pair) -> None:
    tokens = torch.randint(17, (2, 11))
    found: list[Tensor] = []
    for layer in pair.ours.h:
        layer.attn.fused = False
        layer.attn.attn_dropout.register_forward_hook(
            lambda module, inputs, output: found.append(output)
        )
    pair.ours(tokens)
    theirs = pair.theirs(tokens, output_attentions=True).attentions
    close(found, list(theirs))


def test_loss_and_the_gradient_of_every_parameter(pair: Pair) -> None:
    tokens = torch.randint(17, (2, 11))
    ours = next_token_loss(pair.ours, tokens)
    theirs = pair.theirs(tokens, labels=tokens).loss
    close(ours, theirs)
    ours.backward()
    theirs.backward()
    found = gradients(pair.ours)
    assert all(gradient.any() for gradient in found.values())
    close(found, gradients(pair.theirs))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded(pair: Pair, side: str) -> None:
    tokens = torch.randint(17, (3, 11))
    real = torch.arange(11) < torch.tensor([[11], [7], [2]])
    if side == "left":
        real = real.flip(-1)
    theirs = pair.theirs(
        tokens,
        attention_mask=real.long(),
        position_ids=(real.long().cumsum(-1) - 1).clamp(min=0),
        # No real token precedes the first, so it is not predicted.
        labels=tokens.masked_fill(~(real & real.roll(1, -1)), -100),
    )
    close(pair.ours(tokens, real)[real], theirs.logits[real])
    loss = next_token_loss(pair.ours, tokens, real)
    close(loss, theirs.loss)
    loss.backward()
    theirs.loss.backward()
    close(gradients(pair.ours), gradients(pair.theirs))


def test_dropout_at_the_same_places() -> None:
    """In training mode, the same seed draws the same zeros in both."""
    ours, theirs = pair_of(embd_pdrop=0.2, attn_pdrop=0.3, resid_pdrop=0.4)
    for layer in ours.h:
        layer.attn.fused = False
    tokens = torch.randint(17, (2, 11))
    torch.manual_seed(5)
    expected = theirs.train()(tokens).logits
    torch.manual_seed(5)
    close(ours.train()(tokens), expected)
    assert not torch.allclose(ours.eval()(tokens), expected, atol=0.1)


def test_state_dicts_have_the_same_keys_in_the_same_order(pair: Pair) -> None:
    ours = pair.ours.state_dict()
    theirs = pair.theirs.transformer.state_dict()
    assert list(ours) == list(theirs)
    assert all(ours[name].shape == theirs[name].shape for name in ours)


def test_they_load_ours(pair: Pair) -> None:
    """The other direction: our weights, once changed, in their model."""
    move(pair.ours, seed=1)
    pair.theirs.transformer.load_state_dict(pair.ours.state_dict())
    tokens = torch.randint(17, (2, 11))
    close(pair.theirs(tokens).logits, pair.ours(tokens))


def test_they_load_our_files(pair: Pair, tmp_path: Path) -> None:
    config = json.dumps(pair.ours.config.to_dict())
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    save_file(
        pair.ours.state_dict(),
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    theirs, report = GPT2LMHeadModel.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values())  # nothing missing, left over, mismatched
    tokens = torch.randint(17, (2, 11))
    close(theirs.eval()(tokens).logits, pair.ours(tokens))


@pytest.fixture(scope="module")
def full_size(full_size_checkpoint: Path) -> Pair:
    theirs = GPT2LMHeadModel.from_pretrained(full_size_checkpoint).eval()
    with torch.device("meta"):
        ours = GPT2(GPT2Config.from_dict(theirs.config.to_dict())).eval()
    # The models share tensors, but not gradients.
    ours.load_state_dict(theirs.transformer.state_dict(), assign=True)
    return Pair(ours, theirs)


@pytest.mark.xdist_group("full_size")
def test_full_size_logits_and_gradients(full_size: Pair) -> None:
    ours, theirs = full_size
    tokens = torch.randint(50257, (1, 33))
    logits = ours(tokens)
    output = theirs(tokens, labels=tokens)
    torch.testing.assert_close(logits, output.logits, atol=1e-4, rtol=0)

    loss = next_token_loss(ours, tokens)
    torch.testing.assert_close(loss, output.loss)
    loss.backward()
    output.loss.backward()
    expected = gradients(theirs)
    found = gradients(ours)
    assert found.keys() == expected.keys()
    assert len(found) == 148
    for name, gradient in found.items():
        apart = (gradient - expected[name]).norm() / expected[name].norm()
        assert apart < 1e-4, name


@pytest.mark.xdist_group("full_size")
def test_full_size_greedy_continuation(full_size: Pair) -> None:
    """Twelve ids: ours with a cache, theirs without."""
    ours, theirs = full_size
    prompt = torch.randint(50257, (1, 7))
    cache = ours.new_cache(batch_size=1, n_positions=7 + 12)
    new, whole = prompt, prompt
    with torch.no_grad():
        for _ in range(12):
            new = ours(new, cache=cache, last_only=True).argmax(-1)[:, None]
            expected = theirs(whole).logits[:, -1].argmax(-1)[:, None]
            assert torch.equal(new, expected)
            whole = torch.cat([whole, expected], dim=1)
    assert whole[0, 7:].unique().numel() > 3  # not one id repeated

"""The config: its fields, its checks, and the files that it reads."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2.config import ACTIVATIONS, PRESETS, GPT2Config
from gpt2.model import GPT2

# OpenAI's hparams.json of the smallest model, word for word.
HPARAMS = {
    "n_vocab": 50257,
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
}


def test_the_defaults_are_gpt2_124m() -> None:
    config = GPT2Config()
    assert config == GPT2Config.from_name("gpt2")
    assert (config.n_vocab, config.n_ctx) == (50257, 1024)
    assert (config.n_embd, config.n_head, config.n_layer) == (768, 12, 12)
    assert (config.head_size, config.inner_size) == (64, 3072)
    assert config.activation == "gelu_new"
    assert config.layer_norm_epsilon == 1e-5
    dropouts = config.embd_dropout, config.attn_dropout, config.resid_dropout
    assert dropouts == (0.1, 0.1, 0.1)


def test_a_config_cannot_be_changed(tiny: GPT2Config) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.n_embd = 24


def test_what_follows_from_the_sizes(tiny: GPT2Config) -> None:
    assert tiny.head_size == 4
    assert tiny.inner_size == 48
    assert dataclasses.replace(tiny, n_inner=7).inner_size == 7
    # Two sub-layers in each of 2 layers add to the residual stream.
    assert tiny.residual_std == pytest.approx(0.02 / math.sqrt(4))


@pytest.mark.parametrize(
    "name, n_embd, n_head, n_layer, n_parameters",
    [
        ("gpt2", 768, 12, 12, 124_439_808),
        ("gpt2-medium", 1024, 16, 24, 354_823_168),
        ("gpt2-large", 1280, 20, 36, 774_030_080),
        ("gpt2-xl", 1600, 25, 48, 1_557_611_200),
    ],
)
def test_presets_have_the_published_sizes(
    name: str, n_embd: int, n_head: int, n_layer: int, n_parameters: int
) -> None:
    config = GPT2Config.from_name(name)
    assert config == GPT2Config(n_embd=n_embd, n_head=n_head, n_layer=n_layer)
    with torch.device("meta"):  # shapes only, no numbers
        assert GPT2(config).num_parameters() == n_parameters


def test_the_error_for_an_unknown_preset_lists_the_presets() -> None:
    with pytest.raises(ValueError, match="'gpt3'") as error:
        GPT2Config.from_name("gpt3")
    assert all(name in str(error.value) for name in PRESETS)


@pytest.mark.parametrize(
    "field, value",
    [
        ("n_vocab", 0),
        ("n_ctx", -1),
        ("n_embd", 12.0),
        ("n_head", "3"),
        ("n_layer", True),
        ("n_layer", None),
        ("n_layer", [2]),
        ("n_vocab", 2**63),
        ("n_inner", 0),
        ("activation", ["relu"]),
        ("activation", "swish"),
        ("activation", None),
        ("layer_norm_epsilon", 0.0),
        ("layer_norm_epsilon", -1e-5),
        ("layer_norm_epsilon", "1e-5"),
        ("layer_norm_epsilon", math.nan),
        ("layer_norm_epsilon", math.inf),
        ("layer_norm_epsilon", True),
        ("embd_dropout", 1.0),
        ("attn_dropout", -0.1),
        ("resid_dropout", None),
        ("resid_dropout", math.nan),
        ("resid_dropout", False),
        ("resid_dropout", "0.1"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_field(
    tiny: GPT2Config, field: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=field) as error:
        dataclasses.replace(tiny, **{field: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("n_digits", [401, 5000])
@pytest.mark.parametrize(
    "field", ["layer_norm_epsilon", "embd_dropout", "n_vocab", "activation"]
)
def test_a_huge_integer_is_an_error_that_names_the_field(
    tiny: GPT2Config, field: str, n_digits: int
) -> None:
    """It does not fit a float, and Python refuses to print 5000 digits."""
    with pytest.raises(ValueError, match=field) as error:
        dataclasses.replace(tiny, **{field: 10 ** (n_digits - 1)})
    assert len(str(error.value)) < 200
    shown = "1000" if n_digits < 4000 else "thousands of digits"
    assert shown in str(error.value)


def test_a_long_value_is_shortened(tiny: GPT2Config) -> None:
    fields = tiny.to_dict()
    for name in ("model_type", "tie_word_embeddings", "n_embd"):
        with pytest.raises(ValueError, match="xxx") as error:
            GPT2Config.from_dict({**fields, name: "x" * 10_000})
        assert len(str(error.value)) < 300


def test_n_embd_must_be_a_multiple_of_n_head(tiny: GPT2Config) -> None:
    with pytest.raises(ValueError, match=r"n_embd=12\b.*n_head=5\b"):
        dataclasses.replace(tiny, n_head=5)


def test_reads_hparams_json_of_openai() -> None:
    assert GPT2Config.from_dict(HPARAMS) == GPT2Config()


def test_reads_a_config_json_of_transformers() -> None:
    from transformers import GPT2Config as TheirConfig

    theirs = TheirConfig(
        vocab_size=17,
        n_positions=16,
        n_embd=12,
        n_head=3,
        n_layer=2,
        n_inner=20,
        activation_function="relu",
        layer_norm_epsilon=1e-3,
        embd_pdrop=0.2,
        attn_pdrop=0.3,
        resid_pdrop=0.4,
    )
    assert GPT2Config.from_dict(theirs.to_dict()) == GPT2Config(
        n_vocab=17,
        n_ctx=16,
        n_embd=12,
        n_head=3,
        n_layer=2,
        n_inner=20,
        activation="relu",
        layer_norm_epsilon=1e-3,
        embd_dropout=0.2,
        attn_dropout=0.3,
        resid_dropout=0.4,
    )


@pytest.mark.parametrize("n_inner", [None, 20])
def test_transformers_reads_ours(tiny: GPT2Config, n_inner: Any) -> None:
    from transformers import GPT2Config as TheirConfig

    ours = dataclasses.replace(
        tiny,
        n_inner=n_inner,
        activation="gelu",
        layer_norm_epsilon=1e-3,
        embd_dropout=0.2,
        attn_dropout=0.3,
        resid_dropout=0.4,
    )
    theirs = TheirConfig(**ours.to_dict())
    assert theirs.vocab_size == 17
    assert theirs.n_positions == 16
    assert (theirs.n_embd, theirs.n_head, theirs.n_layer) == (12, 3, 2)
    assert theirs.n_inner == n_inner
    assert theirs.activation_function == "gelu"
    assert theirs.layer_norm_epsilon == 1e-3
    assert (theirs.embd_pdrop, theirs.attn_pdrop) == (0.2, 0.3)
    assert theirs.resid_pdrop == 0.4
    assert GPT2Config.from_dict(theirs.to_dict()) == ours


probabilities = st.floats(0, 1, exclude_max=True)


@settings(deadline=None)
@given(
    n_vocab=st.integers(1, 10**6),
    n_ctx=st.integers(1, 10**6),
    n_head=st.integers(1, 100),
    head_size=st.integers(1, 100),
    n_layer=st.integers(1, 100),
    n_inner=st.none() | st.integers(1, 10**6),
    activation=st.sampled_from(ACTIVATIONS),
    layer_norm_epsilon=st.floats(1e-12, 1),
    embd_dropout=probabilities,
    attn_dropout=probabilities,
    resid_dropout=probabilities,
)
def test_any_config_survives_a_round_trip_through_json(
    n_head: int, head_size: int, **others: Any
) -> None:
    config = GPT2Config(n_head=n_head, n_embd=n_head * head_size, **others)
    assert GPT2Config.from_dict(json.loads(json.dumps(config.to_dict()))) == (
        config
    )


def test_the_name_that_transformers_reads_takes_precedence() -> None:
    """The released config.json has both n_ctx and n_positions."""
    config = GPT2Config.from_dict(
        HPARAMS | {"vocab_size": 17, "n_positions": 16}
    )
    assert (config.n_vocab, config.n_ctx) == (17, 16)


@pytest.mark.parametrize("alias", ["gelu_pytorch_tanh", "gelu_fast"])
def test_other_names_of_the_tanh_gelu(alias: str) -> None:
    from transformers.activations import ACT2FN

    config = GPT2Config.from_dict(HPARAMS | {"activation_function": alias})
    assert config.activation == "gelu_new"
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    torch.testing.assert_close(
        ACT2FN[alias](x), ACT2FN["gelu_new"](x), atol=1e-8, rtol=0
    )


def test_keys_that_do_not_describe_the_architecture_are_ignored() -> None:
    extra = {"bos_token_id": 50256, "task_specific_params": {"a": 1}}
    assert GPT2Config.from_dict(HPARAMS | extra) == GPT2Config()


@pytest.mark.parametrize(
    "option, value",
    [
        ("model_type", "bert"),
        ("model_type", "gpt_neo"),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
        ("tie_word_embeddings", False),
        ("activation_function", "silu"),
    ],
)
def test_another_architecture_is_an_error(option: str, value: Any) -> None:
    with pytest.raises(ValueError) as error:
        GPT2Config.from_dict(HPARAMS | {option: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    "missing, names",
    [
        ("n_vocab", "vocab_size or n_vocab"),
        ("n_ctx", "n_positions or n_ctx"),
        ("n_embd", "n_embd"),
        ("n_head", "n_head"),
        ("n_layer", "n_layer"),
    ],
)
def test_a_missing_size_is_an_error_with_its_names(
    missing: str, names: str
) -> None:
    fields = {key: HPARAMS[key] for key in HPARAMS if key != missing}
    with pytest.raises(ValueError, match=names):
        GPT2Config.from_dict(fields)
    with pytest.raises(ValueError, match=names):
        GPT2Config.from_dict(fields | {missing: None})


@pytest.mark.parametrize("not_an_object", [[1, 2], "gpt2", None, 7])
def test_what_is_not_an_object_is_an_error(not_an_object: Any) -> None:
    with pytest.raises(ValueError, match="config") as error:
        GPT2Config.from_dict(not_an_object)
    assert repr(not_an_object) in str(error.value)


def test_sizes_from_a_file_are_checked_too() -> None:
    with pytest.raises(ValueError, match=r"n_embd.*'768'"):
        GPT2Config.from_dict(HPARAMS | {"n_embd": "768"})

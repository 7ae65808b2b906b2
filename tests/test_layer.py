"""One layer: norm, attention, addition; norm, feed-forward, addition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gpt2.attention import padding_mask
from gpt2.cache import KeyValueCache
from gpt2.config import GPT2Config
from gpt2.layer import GPT2Layer


@pytest.fixture
def layer(tiny: GPT2Config, shake: Callable[..., nn.Module]) -> GPT2Layer:
    return shake(GPT2Layer(tiny)).eval()


def one_sequence_written_out(
    x: list[list[float]], layer: GPT2Layer, n_head: int
) -> list[list[float]]:
    """Compute the layer in Python floats, without tensor operations."""
    weights = {
        name: tensor.tolist() for name, tensor in layer.state_dict().items()
    }

    def linear(vector: list[float], name: str) -> list[float]:
        matrix, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return [
            bias[j] + sum(vector[i] * matrix[i][j] for i in range(len(vector)))
            for j in range(len(bias))
        ]

    def norm(vector: list[float], name: str) -> list[float]:
        mean = sum(vector) / len(vector)
        variance = sum((v - mean) ** 2 for v in vector) / len(vector)
        return [
            (v - mean) / math.sqrt(variance + 1e-5) * scale + shift
            for v, scale, shift in zip(
                vector,
                weights[f"{name}.weight"],
                weights[f"{name}.bias"],
                strict=True,
            )
        ]

    def gelu(v: float) -> float:
        inner = math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)
        return 0.5 * v * (1 + math.tanh(inner))

    def add(a: list[float], b: list[float]) -> list[float]:
        return [first + second for first, second in zip(a, b, strict=True)]

    width = len(x[0])
    size = width // n_head
    mapped = [linear(norm(vector, "ln_1"), "attn.c_attn") for vector in x]
    stream = []
    for t, vector in enumerate(x):
        merged: list[float] = []
        for head in range(n_head):
            columns = range(head * size, (head + 1) * size)
            query = [mapped[t][i] for i in columns]
            scores = [
                sum(
                    q * mapped[s][width + i]
                    for q, i in zip(query, columns, strict=True)
                )
                / math.sqrt(size)
                for s in range(t + 1)
            ]
            total = sum(math.exp(score) for score in scores)
            merged += [
                sum(
                    math.exp(score) / total * mapped[s][2 * width + i]
                    for s, score in enumerate(scores)
                )
                for i in columns
            ]
        stream.append(add(vector, linear(merged, "attn.c_proj")))
    return [
        add(
            vector,
            linear(
                [gelu(v) for v in linear(norm(vector, "ln_2"), "mlp.c_fc")],
                "mlp.c_proj",
            ),
        )
        for vector in stream
    ]


def test_equals_plain_arithmetic(tiny: GPT2Config, layer: GPT2Layer) -> None:
    layer.double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    expected = [
        one_sequence_written_out(sequence.tolist(), layer, tiny.n_head)
        for sequence in x
    ]
    torch.testing.assert_close(
        layer(x), torch.tensor(expected, dtype=torch.float64)
    )


def test_is_two_additions_to_the_residual_stream(layer: GPT2Layer) -> None:
    x = torch.randn(2, 5, 12)
    middle = x + layer.attn(layer.ln_1(x))
    expected = middle + layer.mlp(layer.ln_2(middle))
    torch.testing.assert_close(layer(x), expected)


def silence(linear: nn.Module) -> None:
    """Make a map return zeros."""
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)


def test_sub_layers_that_add_nothing_leave_the_residual_stream_unchanged(
    layer: GPT2Layer,
) -> None:
    """Not even a norm is between input and output."""
    silence(layer.attn.c_proj)
    silence(layer.mlp.c_proj)
    x = 100 * torch.randn(2, 5, 12)
    assert torch.equal(layer(x), x)


def test_is_causal_whatever_the_mask(layer: GPT2Layer) -> None:
    x = torch.randn(2, 5, 12)
    changed = x.clone()
    changed[:, 4] = torch.randn(2, 12)
    everything = torch.ones(5, 5, dtype=torch.bool)
    for mask in (None, everything):
        before, after = layer(x, mask), layer(changed, mask)
        assert torch.equal(after[:, :4], before[:, :4])
        assert (after[:, 4] != before[:, 4]).any(-1).all()


def test_the_mask_is_used(layer: GPT2Layer) -> None:
    x = torch.randn(2, 5, 12)
    real = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    padded = layer(x, padding_mask(real, 5))
    torch.testing.assert_close(padded[0, 2:], layer(x[:1, 2:])[0])
    torch.testing.assert_close(padded[1], layer(x[1:])[0])


def test_the_cache_is_used(tiny: GPT2Config, layer: GPT2Layer) -> None:
    x, cache = torch.randn(2, 7, 12), KeyValueCache(tiny, 2).layers[0]
    with torch.no_grad():
        pieces = [layer(piece, cache=cache) for piece in x.split(3, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), layer(x))
    assert cache.length == 7


def test_the_config_reaches_every_part(tiny: GPT2Config) -> None:
    layer = GPT2Layer(
        dataclasses.replace(
            tiny, layer_norm_epsilon=0.5, n_inner=7, activation="relu"
        )
    )
    assert layer.ln_1.epsilon == layer.ln_2.epsilon == 0.5
    assert layer.mlp.c_fc.weight.shape == (12, 7)
    assert layer.mlp.activation(torch.tensor(-1.0)) == 0


@pytest.mark.parametrize("silent, heard", [("mlp", "attn"), ("attn", "mlp")])
def test_dropout_is_on_both_additions(
    tiny: GPT2Config,
    shake: Callable[..., nn.Module],
    silent: str,
    heard: str,
) -> None:
    """Dropout applies to the additions, never to the residual stream."""
    config = dataclasses.replace(tiny, attn_dropout=0.0, resid_dropout=0.25)
    layer = shake(GPT2Layer(config))
    silence(layer.get_submodule(f"{silent}.c_proj"))
    x = torch.randn(50, 40, 12)

    def added() -> Tensor:
        return layer(x) - x

    layer.eval()
    plain = added()
    layer.train()
    dropped = added()
    kept = dropped != 0
    assert kept.double().mean().item() == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(
        dropped[kept], plain[kept] / 0.75, atol=1e-5, rtol=1e-4
    )
    assert layer.get_submodule(heard).training

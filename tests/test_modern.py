"""The models that chapter 17 compares: each has what its name says."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import modern
import nbformat
import pytest
import scaling
import torch
import torch.nn.functional as F
from IPython.core.inputtransformer2 import TransformerManager
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import gpt2
from gpt2 import GPT2
from gpt2.attention import attention_weights, causal_mask
from gpt2.linear import Linear, normal_parameter

CHAPTER = Path(modern.__file__).parent / "17-scaling-out.ipynb"
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


def trial(name: str) -> modern.Trial:
    return next(t for t in modern.trials() if t.model == name)


def build(name: str) -> GPT2:
    """Build a model in which every parameter matters."""
    model = trial(name).build().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def flops(name: str) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        trial(name).build()(torch.zeros(1, 91, dtype=torch.int64))
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def chapter() -> dict[str, Any]:
    """Return what the chapter defines between its RMSNorm and ModernLayer."""
    names: dict[str, Any] = {
        "F": F,
        "Tensor": Tensor,
        "attention_weights": attention_weights,
        "causal_mask": causal_mask,
        "nn": nn,
        "normal_parameter": normal_parameter,
        "torch": torch,
    }
    for cell in nbformat.read(CHAPTER, 4).cells:
        if cell.cell_type == "code" and "ModernLayer" not in names:
            source = TransformerManager().transform_cell(cell.source)  # `%pip`
            body = [
                node
                for node in ast.parse(source).body
                if isinstance(node, ast.ClassDef | ast.FunctionDef)
            ]
            exec(compile(ast.Module(body, []), "chapter", "exec"), names)
    return names


def test_the_layer_is_the_one_of_the_chapter(chapter: dict[str, Any]) -> None:
    model = build("modern")
    x = torch.randn(2, 9, modern.WIDTH)
    for ours in model.h:
        theirs = chapter["ModernLayer"](
            modern.WIDTH, 3 * modern.WIDTH, modern.N_HEAD, modern.N_GROUP
        )
        maps = ours.attn.c_attn.weight.split(ours.attn.widths, dim=1)
        theirs.load_state_dict(
            {
                "norm_1.weight": ours.ln_1.weight,
                "norm_2.weight": ours.ln_2.weight,
                "query": maps[0],
                "key": maps[1],
                "value": maps[2],
                "out": ours.attn.c_proj.weight,
                "feed_forward.gate": ours.mlp.gate,
                "feed_forward.up": ours.mlp.up,
                "feed_forward.down": ours.mlp.down,
            }
        )
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
def test_positions_turn_as_in_the_chapter(
    chapter: dict[str, Any], base: float
) -> None:
    x = torch.randn(2, 3, 7, 8)
    expected = chapter["rotate"](x, torch.arange(7), base)
    torch.testing.assert_close(modern.rotate(x, base), expected)


PARTS: dict[str, set[str]] = {
    "GPT-2": set(),
    "rotary": {"rotary"},
    "RMSNorm": {"norm"},
    "gated": {"gate"},
    "grouped": {"group"},
    "no biases": {"bias"},
    "modern": {"rotary", "norm", "gate", "group", "bias"},
    "modern, wider": {"rotary", "norm", "gate", "group", "bias"},
}


@pytest.mark.parametrize("name", modern.CHANGES)
def test_each_model_has_what_its_name_says_and_no_more(name: str) -> None:
    model, found = build(name), set()
    group, usual = modern.N_GROUP * 2, modern.N_HEAD * 2
    for layer in model.h:
        narrow = layer.attn.c_attn.weight.size(1) // (modern.WIDTH // 4) - 4
        assert narrow in (group, usual)
        found |= {"group"} if narrow == group else set()
        found |= {"gate"} if hasattr(layer.mlp, "gate") else set()
        for norm in (layer.ln_1, layer.ln_2, model.ln_f):
            found |= {"norm"} if isinstance(norm, nn.RMSNorm) else set()
    swapped = TOKENS[:, [1, 0, *range(2, 8)]]
    maps = [m for m in model.modules() if isinstance(m, Linear)]
    found |= {"bias"} if not any(m.bias.any() for m in maps) else set()
    found |= {"rotary"} if isinstance(model.wpe, modern.NoPositions) else set()
    assert found == PARTS[name]
    assert not torch.allclose(model(TOKENS)[:, -1], model(swapped)[:, -1])


@pytest.mark.parametrize("name", modern.CHANGES)
def test_no_model_sees_the_future(name: str) -> None:
    model, later = build(name), TOKENS.clone()
    later[:, -1] = 0
    torch.testing.assert_close(model(TOKENS)[:, :-1], model(later)[:, :-1])
    assert not torch.allclose(model(TOKENS)[:, -1], model(later)[:, -1])


def test_compute_and_parameters_are_what_is_claimed() -> None:
    for name in modern.CHANGES:
        times = 1 if name != "modern, wider" else 1.0775
        assert flops(name) == pytest.approx(times * flops("GPT-2"), rel=1e-3)
    counts = {
        name: sum(p.numel() for p in build(name).parameters())
        for name in modern.CHANGES
    }
    assert abs(counts["modern, wider"] / counts["GPT-2"] - 1) < 1e-3


def test_shared_keys_are_shared() -> None:
    attention = build("grouped").h[0].attn
    q, k, v = attention.project(torch.randn(2, 5, modern.WIDTH))
    assert q.shape == k.shape == v.shape == (2, 4, 5, 12)
    for x in (k, v):
        assert torch.equal(x[:, 0], x[:, 1]) and torch.equal(x[:, 2], x[:, 3])
        assert not torch.allclose(x[:, 1], x[:, 2])


def test_what_is_kept_was_made_by_these_settings() -> None:
    runs = json.loads(modern.PLACE.read_text())
    wanted = modern.trials()
    assert len(runs) == len(wanted)
    for one in wanted:
        assert scaling.is_done(one, runs), one
    _, tokenizer = gpt2.load("story")
    for run in runs:
        one = trial(run["model"])
        assert run["learning_rate"] == run["times"] / modern.WIDTH
        parameters = one.build().parameters()
        assert run["n_parameters"] == sum(p.numel() for p in parameters)
        assert 0 < run["gap"] < math.log(tokenizer.n_vocab)
        same = [r for r in runs if r["seed"] == run["seed"]]
        same = [r for r in same if r["n_tokens"] == run["n_tokens"]]
        assert {r["n_read"] for r in same} == {run["n_read"]}  # one corpus

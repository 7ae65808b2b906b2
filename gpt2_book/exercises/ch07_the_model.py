"""The exercises of chapter 7."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gpt2.cache import LayerCache
from gpt2.config import GPT2Config
from gpt2_book.exercises.checking import NotYet, call, describe, exercise, same

CONFIG = GPT2Config(n_vocab=17, n_ctx=11, n_embd=12, n_head=3, n_layer=2)


@exercise("count-parameters")
def count_parameters(answer: Any) -> str:
    """Exercise 7.2: a formula for the number of parameters."""
    sizes = (
        (50257, 1024, 768, 12),
        (50257, 1024, 1600, 48),
        (2048, 250, 192, 5),
    )
    for v, n_ctx, c, n_layer in sizes:
        layer = 12 * c**2 + 13 * c
        right = (v + n_ctx) * c + n_layer * layer + 2 * c
        mistakes = {
            "the last norm is missing, 2 C": right - 2 * c,
            "of every layer the two norms are missing, 4 C": (
                right - 4 * c * n_layer
            ),
            "of every layer one norm is missing; there are two": (
                right - 2 * c * n_layer
            ),
            "no norm is counted; each has 2 C": (
                right - 4 * c * n_layer - 2 * c
            ),
            "no bias is counted; every map has one number for each that "
            "comes out, 9 C in a layer": right - 9 * c * n_layer,
            "the terms with C alone are missing, biases and norms": (
                (v + n_ctx) * c + n_layer * 12 * c**2
            ),
            "that gives the output a matrix of its own; it is the table of "
            "tokens once more": right + v * c,
            "that gives the output a bias, which GPT-2 does not have": right
            + v,
            "the table of positions is missing": right - n_ctx * c,
            "the table of tokens is missing": right - v * c,
            "both tables are missing": right - (v + n_ctx) * c,
            "that is one layer; there are L of them": right
            - (n_layer - 1) * layer,
            "of attention only `c_proj` is counted; `c_attn` makes queries, "
            "keys and values": right - n_layer * (3 * c**2 + 3 * c),
            "`c_attn` is counted as one map from C to C; it makes queries, "
            "keys and values": (right - n_layer * (2 * c**2 + 2 * c)),
            "`c_proj` of attention is missing": (right - n_layer * (c**2 + c)),
            "of the feed-forward only one map is counted, out and not back": (
                right - n_layer * (4 * c**2 + c)
            ),
            "each layer has a table of positions here; there is one in all": (
                right + (n_layer - 1) * n_ctx * c
            ),
        }
        came = call(answer, v, n_ctx, c, n_layer)
        what = f"the number for V={v}, n_ctx={n_ctx}, C={c}, L={n_layer}"
        same(came, right, what, mistakes)
    return "12 C² + 13 C for a layer, two tables, and a last norm"


@exercise("parallel-layer")
def parallel_layer(answer: Any) -> str:
    """Exercise 7.3: attention and feed-forward side by side."""
    torch.manual_seed(7)
    layer = call(answer, CONFIG)
    if not isinstance(layer, nn.Module):
        raise NotYet(f"an nn.Module is wanted; got {describe(layer)}")
    for name in ("ln_1", "attn", "mlp"):
        if not hasattr(layer, name):
            raise NotYet(f"it has no `{name}`, which is to stay")
    layer = layer.eval().requires_grad_(False)
    for parameter in layer.parameters():
        parameter.normal_(std=0.5)
    x = torch.randn(2, 5, CONFIG.n_embd)  # (B, T, C)
    came = call(layer, x)
    same(came, result(layer, x), "what it returns", mistakes(layer, x))
    spare = sum(p.numel() for p in layer.parameters()) - n_parameters(layer)
    if spare:
        raise NotYet(
            f"it computes the right thing and keeps {spare} parameters that "
            "nobody reads; delete the norm that is left over"
        )
    holed = torch.ones(5, 5).tril().bool()
    holed[3:, 0] = False
    same(
        call(layer, x, holed),
        result(layer, x, holed),
        "what it returns with a mask",
        {"it ignores the mask that it is given": result(layer, x)},
    )
    shape = (2, CONFIG.n_head, 8, CONFIG.head_size)
    cache = LayerCache(torch.zeros(shape), torch.zeros(shape))
    steps = [call(layer, x[:, t : t + 1], cache=cache) for t in range(5)]
    if cache.length == 0:
        raise NotYet("it does not hand the cache on to attention")
    what = "what it returns with a cache, token by token,"
    same(torch.cat(steps, dim=1), came, what)
    return "with a mask and with a cache too, and one norm is enough"


def n_parameters(layer: Any) -> int:
    """Count those that are needed."""
    parts = (layer.ln_1, layer.attn, layer.mlp)
    return sum(p.numel() for part in parts for p in part.parameters())


def result(layer: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute what the layer should return."""
    n = layer.ln_1(x)
    found = layer.attn(n, mask=mask)
    return x + found + layer.mlp(n)


def mistakes(layer: Any, x: Tensor) -> dict[str, Tensor]:
    """What known mistakes would give."""
    second: Callable[[Tensor], Tensor] = getattr(layer, "ln_2", layer.ln_1)
    n = layer.ln_1(x)
    found = layer.attn(n)
    seeing = layer.attn(n, causal=False)
    raw = layer.attn(x)
    after = x + found
    return {
        "that is the old layer: the feed-forward reads what attention has "
        "added, and should read what attention reads": (
            after + layer.mlp(second(after))
        ),
        "the feed-forward reads what attention has added; it should read "
        "what attention reads": after + layer.mlp(layer.ln_1(after)),
        "the feed-forward has a norm of its own; both should read the same "
        "copy": after + layer.mlp(second(x)),
        "the feed-forward reads what attention found instead of what "
        "attention reads": x + found + layer.mlp(found),
        "it does not add: the stream itself is missing": found + layer.mlp(n),
        "the stream is added twice": 2 * x + found + layer.mlp(n),
        "positions see the future; without a mask attention is to be causal": x
        + seeing
        + layer.mlp(n),
        "the feed-forward reads the stream without a norm": (
            after + layer.mlp(x)
        ),
        "attention reads the stream without a norm": x + raw + layer.mlp(n),
        "neither reads a normalised copy": x + raw + layer.mlp(x),
        "the norm lies on the stream itself; what is added to is `x`": (
            n + found + layer.mlp(n)
        ),
        "the feed-forward is missing": after,
        "attention is missing": x + layer.mlp(n),
    }

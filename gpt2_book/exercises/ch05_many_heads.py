"""The exercises of chapter 5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gpt2.attention import attention_weights, causal_mask
from gpt2_book.exercises.checking import NotYet, call, describe, exercise, same


@exercise("heads-in-order")
def heads_in_order(answer: Any) -> str:
    """Exercise 5.2: which columns and rows belong to which head."""
    for order, size in (([2, 0, 1], 4), ([3, 1, 0, 2], 3)):
        wanted = torch.tensor(order)
        heads, width = len(order), len(order) * size
        came = call(answer, wanted, size)
        if not isinstance(came, Sequence) or len(came) != 2:
            raise NotYet(
                "two tensors are wanted, the columns of `c_attn` and the rows "
                f"of `c_proj`; got {describe(came)}"
            )
        rows = torch.arange(width).unflatten(0, (heads, size))[wanted]
        rows = rows.flatten()  # (C,)
        back = torch.argsort(rows)
        strided = torch.arange(width).unflatten(0, (size, heads))
        same(
            came[1],
            rows,
            f"the rows of c_proj for the order {order} and D={size}",
            {
                "the rows of `c_proj` stay as they were, and then each head "
                "writes where another one did": torch.arange(width),
                "that puts the heads back instead: the head named first is "
                "to stand first": back,
                "a head owns D rows that lie together, not every H-th one": (
                    strided[:, wanted].flatten()
                ),
                "those are the numbers of the heads; each has D rows": wanted,
                "the heads begin one row apart here; each has D rows": (
                    wanted[:, None] + torch.arange(size)
                ).flatten(),
            },
        )
        thirds = torch.cat([rows, rows + width, rows + 2 * width])
        whole = torch.arange(3 * width).unflatten(0, (heads, -1))[wanted]
        kept = torch.arange(3 * width)
        same(
            came[0],
            thirds,
            f"the columns of c_attn for the order {order} and D={size}",
            {
                "only the queries are there; keys and values have thirds of "
                "their own": rows,
                "keys and values are made of the queries' columns; their "
                "thirds begin at C and 2C": torch.cat([rows] * 3),
                "keys and values stay behind: every third of `c_attn` is to "
                "be put in order": torch.cat([rows, kept[width:]]),
                "values stay behind: every third of `c_attn` is to be put in "
                "order": torch.cat([rows, rows + width, kept[2 * width :]]),
                "it cuts `c_attn` into H pieces; its 3C columns are queries, "
                "keys and values, and within each a head has D": (
                    whole.flatten()
                ),
                "the columns of `c_attn` stay as they were": kept,
                "that puts the heads back instead: the head named first is "
                "to stand first": torch.cat(
                    [back, back + width, back + 2 * width]
                ),
            },
        )
    return "three and four heads change places, and the sum stays"


@exercise("shared-keys")
def shared_keys(answer: Any) -> str:
    """Exercise 5.3: many queries, one key and one value."""
    for width, n_head in ((12, 3), (10, 2)):
        size = width // n_head
        module = call(answer, width, n_head)
        if not isinstance(module, nn.Module):
            raise NotYet(f"an nn.Module is wanted; got {describe(module)}")
        module = module.eval().requires_grad_(False)
        for name, n_out in (("c_attn", width + 2 * size), ("c_proj", width)):
            fits(module, name, width, n_out, size)
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
        x = torch.randn(2, 7, width)  # (B, T, C)
        came = call(module, x)
        what = f"the result for C={width} and {n_head} heads"
        same(came, mixed(module, x, n_head), what, mistakes(module, x, n_head))
    return "every head asks in its own way, and all read the same keys"


def fits(
    module: nn.Module, name: str, n_in: int, n_out: int, size: int
) -> None:
    """See that a map is there, and has the right shape."""
    weight = getattr(getattr(module, name, None), "weight", None)
    if not isinstance(weight, Tensor):
        raise NotYet(f"it has no `{name}` with a weight")
    shape = tuple(weight.shape)
    if shape == (n_in, 3 * n_in):
        raise NotYet(
            f"`{name}` still makes a key and a value for each head; it should "
            f"be [C, C + 2D], here {(n_in, n_out)}"
        )
    if shape == (n_in, n_in + size):
        raise NotYet(
            f"`{name}` makes one vector beside the queries; a key and a value "
            "are two"
        )
    if shape == (n_out, n_in) and n_in != n_out:
        raise NotYet(
            f"`{name}` is stored the other way round; `Linear` of gpt2.linear "
            "keeps it as [in, out]"
        )
    same(shape, (n_in, n_out), f"the shape of `{name}.weight`")


def mixed(
    module: Any,
    x: Tensor,
    n_head: int,
    order: str = "qkv",
    scale: float = 1.0,
    causal: bool = True,
    strided: bool = False,
    merge: bool = True,
) -> Tensor:
    """Compute what it should return; or, with other arguments, should not."""
    width, n = x.size(-1), x.size(1)
    size = width // n_head
    sizes = [width if part == "q" else size for part in order]
    parts = (x @ module.c_attn.weight + module.c_attn.bias).split(sizes, -1)
    named = dict(zip(order, parts, strict=True))
    q, k, v = (named[part] for part in "qkv")
    if strided:  # numbers of a head lie H apart
        q = q.unflatten(-1, (size, n_head)).permute(0, 3, 1, 2)
    else:
        q = q.unflatten(-1, (n_head, size)).transpose(1, 2)  # (B, H, T, D)
    mask = causal_mask(n, n) if causal else None
    found = attention_weights(scale * q, k[:, None], mask) @ v[:, None]
    if merge:
        found = found.transpose(1, 2)  # (B, T, H, D)
    rows = found.reshape(*x.shape)
    return rows @ module.c_proj.weight + module.c_proj.bias


def mistakes(module: nn.Module, x: Tensor, n_head: int) -> dict[str, Tensor]:
    """What known mistakes would give."""
    size = x.size(-1) // n_head
    return {
        "positions see the future; the mask should be causal": mixed(
            module, x, n_head, causal=False
        ),
        "the heads are put together without swapping their axis and that of "
        "the positions": mixed(module, x, n_head, merge=False),
        "the vectors are cut with the heads inside; a head has D numbers that "
        "lie together": mixed(module, x, n_head, strided=True),
        "the scores are not scaled; divide them by the root of D": mixed(
            module, x, n_head, scale=size**0.5
        ),
        "the scores are divided by the root of C, not by that of D": mixed(
            module, x, n_head, scale=n_head**-0.5
        ),
        "the value is where the key should be: in `c_attn` come queries, key, "
        "value": mixed(module, x, n_head, order="qvk"),
        "key and value are taken from the front of `c_attn`, where the "
        "queries should be": mixed(module, x, n_head, order="kvq"),
    }

"""The exercises of chapter 5."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gpt2.attention import attention_weights, causal_mask
from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    number,
    same,
    unpack,
)


@exercise("heads-in-order")
def heads_in_order(answer: Any) -> str:
    """Exercise 5.2: which columns and rows belong to which head."""
    for order, size in (([2, 0, 1], 4), ([3, 1, 0, 2], 3)):
        wanted = torch.tensor(order)
        rows = _rows(wanted, size)
        thirds = torch.cat([rows, rows + len(rows), rows + 2 * len(rows)])
        what = "two tensors, the columns of `c_attn` and the rows of `c_proj`"
        columns, got = unpack(call(answer, wanted, size), 2, what)
        where = f"for the order {order} and D={size}"
        what = f"the tensor of rows of c_proj {where}"
        same(got, rows, what, _row_mistakes(wanted, size))
        what = f"the tensor of columns of c_attn {where}"
        same(columns, thirds, what, _column_mistakes(wanted, size))
    return "three and four heads change places, and their sum stays the same"


def _rows(order: Tensor, size: int) -> Tensor:
    """Return the rows of the heads in this order: (C,)."""
    rows = torch.arange(len(order) * size).unflatten(0, (len(order), size))
    return rows[order].flatten()


def _row_mistakes(order: Tensor, size: int) -> list[Mistake]:
    width = len(order) * size
    strided = torch.arange(width).unflatten(0, (size, len(order)))
    return [
        Mistake(
            "the rows of `c_proj` are where they were, so each head writes "
            "where another one did",
            torch.arange(width),
        ),
        Mistake(
            "that puts the heads back: the head that is named first should "
            "come first",
            _rows(order, size).argsort(),
        ),
        Mistake(
            "a head owns D consecutive rows, not every H-th row",
            strided[:, order].flatten(),
        ),
        Mistake(
            "those are the numbers of the heads; each head has D rows", order
        ),
        Mistake(
            "your heads begin one row apart; each head has D rows",
            (order[:, None] + torch.arange(size)).flatten(),
        ),
    ]


def _column_mistakes(order: Tensor, size: int) -> list[Mistake]:
    rows, width = _rows(order, size), len(order) * size
    back, kept = rows.argsort(), torch.arange(3 * width)
    return [
        Mistake(
            "only the queries are there; keys and values have thirds of "
            "their own",
            rows,
        ),
        Mistake(
            "keys and values come from the columns of the queries; their "
            "thirds begin at C and 2C",
            torch.cat([rows] * 3),
        ),
        Mistake(
            "keys and values are not reordered; every third of `c_attn` has "
            "to be",
            torch.cat([rows, kept[width:]]),
        ),
        Mistake(
            "the values are not reordered; every third of `c_attn` has to be",
            torch.cat([rows, rows + width, kept[2 * width :]]),
        ),
        Mistake(
            "you cut `c_attn` into H pieces; its 3C columns are queries, keys "
            "and values, and each head has D columns in each of the three",
            _rows(order, 3 * size),
        ),
        Mistake("the columns of `c_attn` are where they were", kept),
        Mistake(
            "that puts the heads back: the head that is named first should "
            "come first",
            torch.cat([back, back + width, back + 2 * width]),
        ),
    ]


@exercise("shared-keys")
def shared_keys(answer: Any) -> str:
    """Exercise 5.3: many queries, one key and one value."""
    torch.manual_seed(5)
    for width, n_head in ((12, 3), (10, 2)):
        size = width // n_head
        module = call(answer, width, n_head)
        if not isinstance(module, nn.Module):
            raise NotYet(f"expected an nn.Module; got {describe(module)}")
        module = module.eval().requires_grad_(False)
        for name, n_out in (("c_attn", width + 2 * size), ("c_proj", width)):
            _check_map(module, name, width, n_out, size)
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
        x = torch.randn(2, 7, width)  # (B, T, C)
        got = call(module, x)
        what = f"the result for C={width} and {n_head} heads"
        mistakes = _attention_mistakes(module, x, n_head)
        same(got, _attend(module, x, n_head), what, mistakes)
    return "every head has its own queries, and all share the same keys"


def _check_map(
    module: nn.Module, name: str, n_in: int, n_out: int, size: int
) -> None:
    """Check that a linear map exists and has the right shape."""
    weight = getattr(getattr(module, name, None), "weight", None)
    if not isinstance(weight, Tensor):
        raise NotYet(f"it has no `{name}` with a weight")
    shape = tuple(weight.shape)
    if shape == (n_in, 3 * n_in):
        raise NotYet(
            f"`{name}` still makes a key and a value for each head; its shape "
            f"should be [C, C + 2D], here {(n_in, n_out)}"
        )
    if shape == (n_in, n_in + size):
        raise NotYet(
            f"`{name}` makes one vector besides the queries; a key and a "
            "value are two"
        )
    if shape == (n_out, n_in) and n_in != n_out:
        raise NotYet(
            f"`{name}` is transposed; `Linear` of gpt2.linear stores its "
            "weight as [in, out]"
        )
    same(shape, (n_in, n_out), f"the shape of `{name}.weight`")


def _attend(
    module: Any,
    x: Tensor,
    n_head: int,
    order: str = "qkv",
    scale: float = 1.0,
    causal: bool = True,
    strided: bool = False,
    transpose: bool = True,
) -> Tensor:
    """Compute the right result or, with other arguments, a wrong one."""
    width, n = x.size(-1), x.size(1)
    size = width // n_head
    sizes = [width if part == "q" else size for part in order]
    parts = (x @ module.c_attn.weight + module.c_attn.bias).split(sizes, -1)
    q, k, v = (parts[order.index(part)] for part in "qkv")
    if strided:  # the numbers of a head are H apart
        q = q.unflatten(-1, (size, n_head)).permute(0, 3, 1, 2)
    else:
        q = q.unflatten(-1, (n_head, size)).transpose(1, 2)  # (B, H, T, D)
    mask = causal_mask(n, n) if causal else None
    mixed = attention_weights(scale * q, k[:, None], mask) @ v[:, None]
    if transpose:
        mixed = mixed.transpose(1, 2)  # (B, T, H, D)
    rows = mixed.reshape(*x.shape)
    return rows @ module.c_proj.weight + module.c_proj.bias


def _attention_mistakes(
    module: nn.Module, x: Tensor, n_head: int
) -> list[Mistake]:
    size = x.size(-1) // n_head
    return [
        Mistake(
            "positions see the future; the mask should be causal",
            _attend(module, x, n_head, causal=False),
        ),
        Mistake(
            "the heads are joined without swapping the axes of heads and "
            "positions",
            _attend(module, x, n_head, transpose=False),
        ),
        Mistake(
            "the queries are split the wrong way: each head has D consecutive "
            "numbers",
            _attend(module, x, n_head, strided=True),
        ),
        Mistake(
            "the scores are not scaled; divide them by √D",
            _attend(module, x, n_head, scale=size**0.5),
        ),
        Mistake(
            "the scores are divided by √C; it should be √D",
            _attend(module, x, n_head, scale=n_head**-0.5),
        ),
        Mistake(
            "key and value are swapped: the order in `c_attn` is queries, "
            "key, value",
            _attend(module, x, n_head, order="qvk"),
        ),
        Mistake(
            "you take key and value from the front of `c_attn`, where the "
            "queries should be",
            _attend(module, x, n_head, order="kvq"),
        ),
    ]


@exercise("split-heads")
def split_heads(answer: Any) -> str:
    """Try it yourself: cut vectors, and not the text, into heads."""
    torch.manual_seed(5)
    for shape, n_head in (((1, 4, 6), 2), ((2, 3, 12), 4), ((3, 5, 6), 3)):
        x = torch.randn(shape)  # (B, T, C)
        batch, n, width = shape
        size = width // n_head
        right = x.unflatten(-1, (n_head, size)).transpose(1, 2)
        mistakes = [
            Mistake(
                "the shape is right, and the text is cut instead of the "
                "vectors: `view` fills in the order of memory. Cut the last "
                "axis first, then exchange two axes",
                x.reshape(batch, n_head, n, size),
            ),
            Mistake(
                "the vectors are cut rightly; now the axis of heads has to "
                "come before that of the positions",
                x.unflatten(-1, (n_head, size)),
            ),
            Mistake(
                "a head gets D numbers in a row, not every H-th",
                x.unflatten(-1, (size, n_head)).permute(0, 3, 1, 2),
            ),
            Mistake(
                "positions and numbers have changed places",
                right.mT,
            ),
        ]
        got = call(answer, x, n_head)
        what = f"the result for {shape} and {n_head} heads"
        same(got, right, what, mistakes)
    return "each head has its part of every vector"


@exercise("padding-mask")
def mask_of_padding(answer: Any) -> str:
    """Try it yourself: who may be looked at, and no row empty."""
    for rows, n_queries in (
        ([[1, 1, 1, 1], [0, 0, 1, 1]], 4),
        ([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]], 5),
        ([[0, 0, 1], [1, 1, 1]], 2),
    ):
        given = torch.tensor(rows)  # (B, S)
        real = given.bool()[:, None, None, :]
        everything = torch.eye(given.size(1)).bool()  # (S, S)
        itself = everything[-n_queries:]  # (T, S)
        full = real.expand(-1, 1, n_queries, -1)
        right = real | itself  # (B, 1, T, S)
        mistakes = [
            Mistake(
                "rows of padding are empty under the causal mask, and their "
                "softmax is NaN: let every position look at itself",
                full,
            ),
            Mistake(
                "the mask has one row for all queries, (B, 1, 1, S); each "
                "needs its own, in which it may look at itself",
                real,
            ),
            Mistake(
                "it is upside down: true means *may be looked at*", ~right
            ),
            Mistake(
                "rows and columns have changed places: padding may look, and "
                "is not looked at",
                (real.mT | everything)[:, :, -n_queries:],
            ),
            Mistake(
                "the future is hidden as well; leave that to `causal`",
                (real | everything).tril()[:, :, -n_queries:],
            ),
            Mistake(
                "an axis for the heads is missing: (B, 1, T, S)", right[:, 0]
            ),
            Mistake(
                "there is a row for every position; the queries are only the "
                "last `n_queries` of them",
                real | everything,
            ),
            Mistake(
                "the queries are the last positions, not the first",
                real | everything[:n_queries],
            ),
        ]
        got = call(answer, given, n_queries)
        what = f"the mask for {rows} and {n_queries} queries"
        same(got, right, what, mistakes)
    return "padding is hidden, and every row may look at something"


@exercise("heads-missed")
def heads_missed(answer: Any) -> str:
    """Exercise 5.4: how many heads cost less than 0.01 nats."""
    n_heads = number(answer)
    if n_heads not in range(17):
        raise NotYet(
            f"a number of heads, from 0 to 16; got {describe(answer)}"
        )
    if n_heads > 9:
        raise NotYet("fewer; the whole first layer, for one, is missed")
    if n_heads < 9:
        raise NotYet("more; a few heads do most of the work")
    return "nine, each taken out alone"


@exercise("wrong-heads")
def wrong_heads(answer: Any) -> str:
    """Exercise 5.1: which wrong number of heads does least harm."""
    answer = number(answer)
    if answer == 4:
        raise NotYet("four is the right number; which wrong one is next best?")
    if answer not in (1, 2, 8, 16):
        raise NotYet(f"1, 2, 8 or 16; got {describe(answer)}")
    if answer != 8:
        raise NotYet(
            "another one does less harm. To add scores up before the softmax "
            "mixes questions; to cut a question in two only weakens it"
        )
    return "to cut a question in two does less harm than to mix two"

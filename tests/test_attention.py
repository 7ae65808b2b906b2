"""Attention: by hand, against PyTorch's own, masked, cached, with dropout.

Masks are true where a query may see a key.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gpt2.attention import (
    MultiHeadAttention,
    attention_weights,
    causal_mask,
    padding_mask,
    with_causal_mask,
)
from gpt2.cache import KeyValueCache, LayerCache
from gpt2.config import GPT2Config

both_ways = pytest.mark.parametrize("fused", [True, False])


@pytest.fixture
def attention(
    tiny: GPT2Config, shake: Callable[..., nn.Module]
) -> MultiHeadAttention:
    return shake(MultiHeadAttention(tiny)).eval()


def allowed(*rows: str) -> Tensor:
    """Read a mask drawn with `x` (seen) and `.` (hidden)."""
    return torch.tensor([[mark == "x" for mark in row] for row in rows])


# --- the weights -------------------------------------------------------------


def test_three_tokens_by_hand() -> None:
    r"""D is 4, so the scores are halved.

    Query 0 has the halved scores 0, ln 2 and ln 4, hence the weights 1/7, 2/7
    and 4/7; query 1 has ln 3, 0, 0; query 2 finds all keys alike.
    """
    ln2, ln3 = math.log(2), math.log(3)
    key = torch.tensor(
        [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]]
    )
    query = torch.tensor(
        [[2 * ln2, 0.0, 5.0, 0.0], [0.0, 2 * ln3, 0.0, 5.0], [0.0] * 4]
    )
    weights = attention_weights(query, key)
    expected = torch.tensor(
        [[1 / 7, 2 / 7, 4 / 7], [3 / 5, 1 / 5, 1 / 5], [1 / 3, 1 / 3, 1 / 3]]
    )
    torch.testing.assert_close(weights, expected)
    value = torch.tensor([[7.0], [14.0], [28.0]])
    gathered = torch.tensor([[21.0], [63 / 5], [49 / 3]])
    torch.testing.assert_close(weights @ value, gathered)

    causal = attention_weights(query, key, causal_mask(3, 3))
    expected = torch.tensor(
        [[1.0, 0.0, 0.0], [3 / 4, 1 / 4, 0.0], [1 / 3, 1 / 3, 1 / 3]]
    )
    torch.testing.assert_close(causal, expected)


def test_each_row_is_a_distribution_over_the_keys_that_are_seen() -> None:
    query, key = 3 * torch.randn(2, 3, 5, 4), 3 * torch.randn(2, 3, 7, 4)
    mask = torch.rand(2, 1, 5, 7) < 0.5
    mask[..., 2] = True  # every query sees at least one key
    weights = attention_weights(query, key, mask)
    assert weights.shape == (2, 3, 5, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5))
    assert torch.equal(weights > 0, mask.expand_as(weights))


def test_large_scores_do_not_overflow() -> None:
    weights = attention_weights(
        torch.tensor([[1e4]]), torch.tensor([[1e4], [-1e4]])
    )
    assert weights.tolist() == [[1.0, 0.0]]


# --- the masks ---------------------------------------------------------------


def test_causal_mask_by_hand() -> None:
    assert torch.equal(causal_mask(3, 3), allowed("x..", "xx.", "xxx"))


def test_causal_mask_of_the_last_queries() -> None:
    """Three keys come from earlier calls."""
    assert torch.equal(causal_mask(2, 5), allowed("xxxx.", "xxxxx"))
    assert torch.equal(causal_mask(1, 4), allowed("xxxx"))


@pytest.mark.parametrize(
    "attention_mask, expected",
    [
        ([1, 1, 1, 1], ["xxxx", "xxxx", "xxxx", "xxxx"]),
        ([0, 0, 1, 1], ["x.xx", ".xxx", "..xx", "..xx"]),  # left
        ([1, 1, 0, 0], ["xx..", "xx..", "xxx.", "xx.x"]),  # right
        ([1, 0, 1, 1], ["x.xx", "xxxx", "x.xx", "x.xx"]),  # in the middle
        ([0, 0, 0, 0], ["x...", ".x..", "..x.", "...x"]),
    ],
)
def test_padding_mask_by_hand(
    attention_mask: list[int], expected: list[str]
) -> None:
    """Padding is hidden from everyone but itself."""
    for dtype in (torch.int64, torch.bool, torch.float32):
        real = torch.tensor([attention_mask], dtype=dtype)
        assert torch.equal(padding_mask(real, 4)[0, 0], allowed(*expected))
        # With a cache, the queries are the last positions, the keys are all.
        last_two = padding_mask(real, 2)
        assert last_two.shape == (1, 1, 2, 4)
        assert torch.equal(last_two[0, 0], allowed(*expected[2:]))


def test_padding_mask_keeps_the_sequences_apart() -> None:
    real = torch.tensor([[0, 1, 1], [1, 1, 0]])
    mask = padding_mask(real, 3)
    assert mask.shape == (2, 1, 3, 3)
    assert torch.equal(mask[:1], padding_mask(real[:1], 3))
    assert torch.equal(mask[1:], padding_mask(real[1:], 3))


def test_a_mask_and_the_causal_one_together() -> None:
    query, key = torch.randn(2, 3, 2, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(
        with_causal_mask(None, query, key), allowed("xxx.", "xxxx")
    )
    mask = allowed("x.xx", ".xxx")
    assert torch.equal(
        with_causal_mask(mask, query, key), allowed("x.x.", ".xxx")
    )
    # After a single query, which is at the last position, comes no key.
    last = query[..., -1:, :]
    assert with_causal_mask(None, last, key) is None
    assert with_causal_mask(mask[:1], last, key).equal(mask[:1])


# --- the heads, against torch.nn.MultiheadAttention --------------------------


def torch_attention(ours: MultiHeadAttention) -> nn.MultiheadAttention:
    """Build PyTorch's own with the same weights, which it transposes."""
    theirs = nn.MultiheadAttention(ours.n_embd, ours.n_head, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.c_attn.weight.T)
        theirs.in_proj_bias.copy_(ours.c_attn.bias)
        theirs.out_proj.weight.copy_(ours.c_proj.weight.T)
        theirs.out_proj.bias.copy_(ours.c_proj.bias)
    return theirs.eval()


def some_mask(n_queries: int, n_keys: int) -> Tensor:
    mask = torch.rand(n_queries, n_keys) < 0.5
    mask[:, 1] = True
    return mask


@both_ways
@pytest.mark.parametrize("masked", ["no mask", "causal", "some mask"])
def test_self_attention_equals_pytorchs(
    attention: MultiHeadAttention, masked: str, fused: bool
) -> None:
    attention.fused = fused
    x = torch.randn(2, 5, 12)
    mask = {
        "no mask": None,
        "causal": causal_mask(5, 5),
        "some mask": some_mask(5, 5),
    }[masked]
    theirs, their_weights = torch_attention(attention)(
        x,
        x,
        x,
        attn_mask=None
        if mask is None
        else ~mask,  # theirs is true where a key is hidden
        average_attn_weights=False,
    )
    seen: list[Tensor] = []
    attention.attn_dropout.register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    if masked == "causal":
        ours = attention(x)
    else:
        ours = attention(x, mask=mask, causal=False)
    torch.testing.assert_close(ours, theirs)
    if fused:
        assert not seen  # the fused kernel does not compute them
    else:
        torch.testing.assert_close(seen, [their_weights])


@both_ways
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n_keys", [3, 5, 7])
def test_cross_attention_equals_pytorchs(
    attention: MultiHeadAttention, n_keys: int, masked: bool, fused: bool
) -> None:
    """Queries, keys and values are three different tensors."""
    attention.fused = fused
    query = torch.randn(2, 5, 12)
    key, value = torch.randn(2, 2, n_keys, 12)
    mask = some_mask(5, n_keys) if masked else None
    theirs, _ = torch_attention(attention)(
        query, key, value, attn_mask=None if mask is None else ~mask
    )
    ours = attention(query, key, value, mask, causal=False)
    assert ours.shape == (2, 5, 12)
    torch.testing.assert_close(ours, theirs)


@both_ways
def test_padded_keys_equal_pytorchs(
    attention: MultiHeadAttention, fused: bool
) -> None:
    attention.fused = fused
    query, key = torch.randn(2, 5, 12), torch.randn(2, 4, 12)
    real = allowed("x.xx", ".xx.")
    theirs, _ = torch_attention(attention)(
        query, key, key, key_padding_mask=~real
    )
    ours = attention(query, key, mask=real[:, None, None], causal=False)
    torch.testing.assert_close(ours, theirs)


@both_ways
def test_gradients_equal_pytorchs(
    attention: MultiHeadAttention, fused: bool
) -> None:
    attention.fused = fused
    theirs = torch_attention(attention)
    inputs = [torch.randn(2, n, 12, requires_grad=True) for n in (5, 7, 7)]
    mask = some_mask(5, 7)
    attention(*inputs, mask, causal=False).sin().sum().backward()
    ours_in = [x.grad for x in inputs]
    for x in inputs:
        x.grad = None
    theirs(*inputs, attn_mask=~mask)[0].sin().sum().backward()
    torch.testing.assert_close(ours_in, [x.grad for x in inputs])
    for ours, weight, bias in [
        (attention.c_attn, theirs.in_proj_weight, theirs.in_proj_bias),
        (attention.c_proj, theirs.out_proj.weight, theirs.out_proj.bias),
    ]:
        torch.testing.assert_close(ours.weight.grad, weight.grad.T)
        torch.testing.assert_close(ours.bias.grad, bias.grad)


@both_ways
def test_omitted_arguments_are_the_query_or_the_key(
    attention: MultiHeadAttention, fused: bool
) -> None:
    attention.fused = fused
    x, longer = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    torch.testing.assert_close(attention(x), attention(x, x, x))
    assert torch.equal(attention(x, longer), attention(x, longer, longer))
    other = torch.randn(2, 5, 12)
    assert torch.equal(attention(x, value=other), attention(x, x, other))


# --- fused and step by step --------------------------------------------------

CASES = [
    "plain",
    "causal",
    "padded",
    "masked",
    "masked and causal",
    "per head",
    "cross",
]


def case(name: str) -> tuple[list[Tensor], dict[str, object]]:
    x = torch.randn(2, 5, 12)
    longer = torch.randn(2, 7, 12)
    padded = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 1]])
    return {
        "plain": ([x], {"causal": False}),
        "causal": ([x], {}),
        "padded": ([x], {"mask": padding_mask(padded, 5)}),
        "masked": (
            [x],
            {"mask": some_mask(5, 5), "causal": False},
        ),
        "masked and causal": (
            [x],
            {"mask": allowed("xxxxx", "xx.x.", "x.xxx", "xxxxx", "x.x.x")},
        ),
        "per head": (
            [x],
            {"mask": torch.rand(2, 3, 5, 5).lt(0.5) | torch.eye(5).bool()},
        ),
        # The queries are the last positions of the keys.
        "cross": ([x, longer, longer.sin()], {}),
    }[name]


@pytest.mark.parametrize("name", CASES)
def test_fused_equals_step_by_step(
    attention: MultiHeadAttention, name: str
) -> None:
    """The outputs, and the gradients of inputs and parameters."""
    inputs, options = case(name)
    x = inputs[0].requires_grad_()
    wanted = [x, *attention.parameters()]
    found = []
    for attention.fused in (True, False):
        y = attention(*inputs, **options)
        assert not y.isnan().any()
        found.append((y, torch.autograd.grad(y.sin().sum(), wanted)))
    torch.testing.assert_close(found[0], found[1])


@both_ways
def test_causal_is_a_mask_like_any_other(
    attention: MultiHeadAttention, fused: bool
) -> None:
    attention.fused = fused
    x, longer = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    mask = some_mask(5, 7) | torch.eye(5, 7).bool()
    for given, whole in [
        (None, causal_mask(5, 7)),
        (mask, causal_mask(5, 7) & mask),
    ]:
        torch.testing.assert_close(
            attention(x, longer, mask=given),
            attention(x, longer, mask=whole, causal=False),
        )


@both_ways
def test_no_query_sees_a_later_token(
    attention: MultiHeadAttention, fused: bool
) -> None:
    attention.fused = fused
    x = torch.randn(2, 5, 12)
    before = attention(x)
    for t in range(5):
        changed = x.clone()
        changed[:, t] += 1
        after = attention(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert (after[:, t:] != before[:, t:]).any(-1).all()


def test_the_heads_do_not_mix_before_the_last_map(
    attention: MultiHeadAttention,
) -> None:
    """Each head equals attention with its own columns of the maps."""
    x = torch.randn(2, 5, 12)
    found = []
    attention.c_proj.register_forward_hook(
        lambda module, inputs, output: found.append(inputs[0])
    )
    attention(x, causal=False)
    for head in range(3):
        columns = range(4 * head, 4 * head + 4)
        q, k, v = (
            x @ attention.c_attn.weight[:, [part * 12 + i for i in columns]]
            + attention.c_attn.bias[[part * 12 + i for i in columns]]
            for part in range(3)
        )
        expected = attention_weights(q, k) @ v  # (B, T, D)
        torch.testing.assert_close(found[0][..., columns], expected)


# --- the cache ---------------------------------------------------------------


def new_layer_cache(tiny: GPT2Config, n_positions: int = 16) -> LayerCache:
    return KeyValueCache(tiny, 2, n_positions).layers[0]


@both_ways
@pytest.mark.parametrize(
    "chunks", [[1] * 11, [11], [3, 5, 1, 2], [1, 10], [7, 4]]
)
def test_piece_by_piece_equals_all_at_once(
    tiny: GPT2Config,
    attention: MultiHeadAttention,
    chunks: list[int],
    fused: bool,
) -> None:
    attention.fused = fused
    x = torch.randn(2, 11, 12)
    cache = new_layer_cache(tiny)
    with torch.no_grad():
        pieces = [
            attention(piece, cache=cache) for piece in x.split(chunks, dim=1)
        ]
        expected = attention(x)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected)
    assert cache.length == 11


@both_ways
def test_a_mask_with_a_cache_covers_all_keys(
    tiny: GPT2Config, attention: MultiHeadAttention, fused: bool
) -> None:
    attention.fused = fused
    x = torch.randn(2, 7, 12)
    mask = padding_mask(torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7]), 7)
    cache = new_layer_cache(tiny)
    with torch.no_grad():
        expected = attention(x, mask=mask)
        for start, end in [(0, 4), (4, 6), (6, 7)]:
            seen = mask[..., start:end, :end]
            found = attention(x[:, start:end], mask=seen, cache=cache)
            torch.testing.assert_close(found, expected[:, start:end])


def test_append_returns_all_positions_without_a_copy() -> None:
    keys, values = torch.zeros(2, 2, 3, 7, 4)
    cache = LayerCache(keys, values)
    first, second = torch.randn(2, 2, 2, 3, 2, 4)  # two pairs of key and value
    cache.append(*first)
    all_keys, all_values = cache.append(*second)
    assert cache.length == 4
    assert torch.equal(all_keys, torch.cat([first[0], second[0]], dim=2))
    assert torch.equal(all_values, torch.cat([first[1], second[1]], dim=2))
    assert all_keys.data_ptr() == keys.data_ptr()
    assert all_values.data_ptr() == values.data_ptr()
    assert not keys[:, :, 4:].any()  # nothing is written beyond


def test_a_full_cache_says_how_full_it_is_and_is_unchanged() -> None:
    cache = LayerCache(*torch.zeros(2, 2, 3, 7, 4), length=5)
    key, value = torch.ones(2, 2, 3, 3, 4)
    with pytest.raises(
        ValueError, match=r"\(2, 3, 7, 4\).* 5 .*\(2, 3, 3, 4\)"
    ):
        cache.append(key, value)
    assert cache.length == 5
    assert not cache.keys.any()
    cache.append(key[:, :, :2], value[:, :, :2])  # exactly as many as fit
    assert cache.length == 7


def test_a_cache_reserves_what_it_says(tiny: GPT2Config) -> None:
    cache = KeyValueCache(tiny, batch_size=2, n_positions=7)
    reserved = [
        tensor
        for layer in cache.layers
        for tensor in (layer.keys, layer.values)
    ]
    assert sum(tensor.numel() for tensor in reserved) == 2 * 2 * 2 * 7 * 12
    assert all(tensor.shape == (2, 3, 7, 4) for tensor in reserved)
    assert all(tensor.dtype == torch.float32 for tensor in reserved)
    assert cache.length == 0

    default = KeyValueCache(tiny, 5, dtype=torch.bfloat16).layers[0]
    assert default.keys.shape == (5, 3, tiny.n_ctx, 4)
    assert default.values.dtype == torch.bfloat16


def test_select_reorders_drops_and_repeats(tiny: GPT2Config) -> None:
    cache = KeyValueCache(tiny, batch_size=3, n_positions=7)
    written = []
    for layer in cache.layers:
        key, value = torch.randn(2, 3, 3, 5, 4)
        layer.append(key, value)
        written.append((key, value))
    rows = torch.tensor([2, 0, 2, 2])
    cache.select(rows)
    assert cache.length == 5
    for layer, (key, value) in zip(cache.layers, written, strict=True):
        assert torch.equal(layer.keys[:, :, :5], key[rows])
        assert torch.equal(layer.values[:, :, :5], value[rows])
        layer.append(*torch.randn(2, 4, 3, 1, 4))  # the copies are independent
        assert torch.equal(layer.keys[:, :, :5], key[rows])
        assert not torch.equal(layer.keys[0, :, 5], layer.keys[2, :, 5])


# --- dropout, initialisation, errors -----------------------------------------


@both_ways
def test_dropout_on_the_weights_keeps_the_mean(
    tiny: GPT2Config, shake: Callable[..., nn.Module], fused: bool
) -> None:
    """Off in eval; on in training, where the mean of many draws is equal."""
    config = dataclasses.replace(tiny, attn_dropout=0.3, resid_dropout=0.0)
    attention = shake(MultiHeadAttention(config, fused=fused), 0.5)
    x = torch.randn(1, 5, 12)
    many = x.expand(4000, -1, -1)
    with torch.no_grad():
        plain = attention.eval()(x)[0]
        alone = attention(many)[7]
        draws = attention.train()(many)
    torch.testing.assert_close(alone, plain)
    assert (draws.std(dim=0) > 0.01).all()
    standard_error = draws.std(dim=0) / math.sqrt(len(draws))
    assert ((draws.mean(dim=0) - plain).abs() < 5 * standard_error).all()


def test_dropout_zeroes_weights_and_scales_the_rest(tiny: GPT2Config) -> None:
    config = dataclasses.replace(tiny, attn_dropout=0.3)
    attention = MultiHeadAttention(config, fused=False)
    seen: list[tuple[Tensor, Tensor]] = []
    attention.attn_dropout.register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0], output))
    )
    x = torch.randn(200, 5, 12)
    attention(x, causal=False)
    before, after = seen[0]
    assert before.shape == (200, 3, 5, 5)
    kept = after > 0
    assert kept.double().mean().item() == pytest.approx(0.7, abs=0.02)
    torch.testing.assert_close(after[kept], before[kept] / 0.7)


def test_dropout_on_the_output(tiny: GPT2Config) -> None:
    config = dataclasses.replace(tiny, attn_dropout=0.0, resid_dropout=0.25)
    attention, x = MultiHeadAttention(config), torch.randn(50, 40, 12)
    plain, dropped = attention.eval()(x), attention.train()(x)
    kept = dropped != 0
    assert kept.double().mean().item() == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(
        dropped[kept], plain[kept] / 0.75, atol=1e-6, rtol=1e-4
    )


def test_the_output_map_starts_smaller(tiny: GPT2Config) -> None:
    config = dataclasses.replace(tiny, n_embd=240, n_layer=8)
    attention = MultiHeadAttention(config)
    std = attention.c_attn.weight.std().item()
    assert std == pytest.approx(0.02, rel=0.02)
    std = attention.c_proj.weight.std().item()
    assert std == pytest.approx(0.02 / 4, rel=0.02)  # sqrt(2 * 8) = 4


def test_shows_its_sizes(attention: MultiHeadAttention) -> None:
    shown = repr(attention)
    assert "n_embd=12, n_head=3" in shown.splitlines()[1]
    assert "(c_attn): Linear(12, 36)" in shown


def test_a_cache_shows_how_full_it_is(tiny: GPT2Config) -> None:
    cache = KeyValueCache(tiny, batch_size=3, n_positions=7)
    for layer in cache.layers:
        layer.append(*torch.randn(2, 3, 3, 5, 4))
    shown = "n_layers=2, batch_size={}, length=5, n_positions=7"
    assert shown.format(3) in repr(cache)
    cache.select(torch.tensor([2, 0, 2, 2]))
    assert shown.format(4) in repr(cache)


@pytest.mark.parametrize(
    "query, key, value",
    [
        ((2, 5, 8), (2, 5, 8), (2, 5, 8)),  # a wrong width
        ((2, 5, 12), (2, 7, 8), (2, 7, 8)),
        ((2, 5, 12), (2, 7, 12), (2, 6, 12)),  # a key without a value
        ((5, 12), (5, 12), (5, 12)),  # no batch
        ((1, 5, 12), (2, 7, 12), (2, 7, 12)),  # a different batch size
    ],
)
def test_wrong_shapes_are_named(
    attention: MultiHeadAttention,
    query: tuple[int, ...],
    key: tuple[int, ...],
    value: tuple[int, ...],
) -> None:
    shapes = (query, key, value)
    with pytest.raises(ValueError, match=r"\(B, S, 12\)") as error:
        attention(*(torch.zeros(shape) for shape in shapes))
    assert all(str(shape) in str(error.value) for shape in shapes)

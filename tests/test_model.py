"""The whole model: logits, padding, cache, initialisation and training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.config import GPT2Config
from gpt2.model import (
    GPT2,
    LanguageModel,
    last_tokens,
    next_token_loss,
)

# Three sequences in one batch: 1 is a token, 0 is padding.
PADDINGS = {
    "left": ["11111", "00111", "00011"],
    "right": ["11111", "11100", "11000"],
    "left, right and both": ["00111", "11100", "01110"],
    "in the middle": ["11011", "10001", "01010"],
}
padded_everywhere = pytest.mark.parametrize(
    "attention_mask",
    [
        torch.tensor([[int(mark) for mark in row] for row in rows])
        for rows in PADDINGS.values()
    ],
    ids=PADDINGS.keys(),
)
both_ways = pytest.mark.parametrize("fused", [True, False])


def set_fused(model: GPT2, fused: bool) -> None:
    for layer in model.h:
        layer.attn.fused = fused


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# --- from ids to logits ------------------------------------------------------


def test_logits_are_products_with_the_token_embeddings(
    model: GPT2, tokens: Tensor
) -> None:
    logits = model(tokens)
    assert logits.shape == (2, 5, 17)
    close(logits, model.hidden_states(tokens) @ model.wte.weight.T)


def test_the_parts_follow_each_other(model: GPT2, tokens: Tensor) -> None:
    stream = model.wte.weight[tokens] + model.wpe.weight[:5]
    for layer in model.h:
        stream = layer(stream)
    close(model.hidden_states(tokens), model.ln_f(stream))


@both_ways
def test_a_token_changes_nothing_before_it(
    model: GPT2, tokens: Tensor, fused: bool
) -> None:
    set_fused(model, fused)
    before = model(tokens)
    for t in range(5):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % 17
        after = model(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert (after[:, t:] != before[:, t:]).any(-1).all()


def test_a_batch_is_its_sequences_one_by_one(
    model: GPT2, tokens: Tensor
) -> None:
    alone = [model(sequence[None]) for sequence in tokens]
    close(model(tokens), torch.cat(alone))


def test_the_same_token_differs_by_position(model: GPT2) -> None:
    logits = model(torch.full((1, 16), 3))[0]
    apart = torch.cdist(logits, logits) + torch.eye(16)
    assert (apart > 1e-3).all()


def test_reads_as_many_tokens_as_there_are_positions(model: GPT2) -> None:
    assert model(torch.zeros(1, 16, dtype=torch.long)).shape == (1, 16, 17)


def test_int32_tokens_give_the_same(model: GPT2, tokens: Tensor) -> None:
    assert torch.equal(model(tokens.int()), model(tokens))


def test_int32_tokens_give_the_same_loss(model: GPT2, tokens: Tensor) -> None:
    ours = next_token_loss(model, tokens.int())
    assert torch.equal(ours, next_token_loss(model, tokens))


def test_bfloat16_is_close(model: GPT2, tokens: Tensor) -> None:
    """bfloat16 has 8 bits of precision: relative errors near 1/256."""
    expected = model(tokens)
    model.to(torch.bfloat16)
    found = model(tokens)
    assert found.dtype == torch.bfloat16
    apart = (found.float() - expected).norm() / expected.norm()
    assert 0 < apart < 0.02
    cache = model.new_cache(batch_size=2)
    assert cache.layers[0].keys.dtype == torch.bfloat16
    with torch.no_grad():
        cached = torch.cat(
            [model(t, cache=cache) for t in tokens.split(2, 1)], 1
        )
    apart = (cached.float() - expected).norm() / expected.norm()
    assert apart < 0.02
    assert next_token_loss(model, tokens).dtype == torch.float32


# --- sequences of several lengths --------------------------------------------


def test_a_mask_of_ones_is_no_mask(model: GPT2, tokens: Tensor) -> None:
    close(model(tokens, torch.ones(2, 5)), model(tokens))


@both_ways
@padded_everywhere
def test_padding_gives_each_sequence_what_it_gets_alone(
    model: GPT2, attention_mask: Tensor, fused: bool
) -> None:
    set_fused(model, fused)
    tokens = torch.randint(17, (3, 5))
    logits = model(tokens, attention_mask)
    assert not logits.isnan().any()  # not at the padding either
    for row, real in enumerate(attention_mask.bool()):
        alone = model(tokens[row, real][None])[0]
        close(logits[row, real], alone)


@padded_everywhere
def test_the_tokens_at_padding_never_matter(
    model: GPT2, attention_mask: Tensor
) -> None:
    tokens = torch.randint(17, (3, 5))
    real = attention_mask.bool()
    other = torch.where(real, tokens, (tokens + 5) % 17)
    assert torch.equal(
        model(tokens, attention_mask)[real], model(other, attention_mask)[real]
    )
    assert next_token_loss(model, tokens, attention_mask) == next_token_loss(
        model, other, attention_mask
    )


@padded_everywhere
def test_an_attention_mask_may_have_any_dtype(
    model: GPT2, attention_mask: Tensor
) -> None:
    tokens = torch.randint(17, (3, 5))
    expected = model(tokens, attention_mask)
    for dtype in (torch.bool, torch.int32, torch.float32):
        assert torch.equal(model(tokens, attention_mask.to(dtype)), expected)


@padded_everywhere
def test_last_only_is_the_last_real_token(
    model: GPT2, attention_mask: Tensor
) -> None:
    tokens = torch.randint(17, (3, 5))
    last = model(tokens, attention_mask, last_only=True)
    assert last.shape == (3, 17)
    for row, real in enumerate(attention_mask.bool()):
        close(last[row], model(tokens[row, real][None])[0, -1])


def test_last_only_without_padding(model: GPT2, tokens: Tensor) -> None:
    close(model(tokens, last_only=True), model(tokens)[:, -1])


def test_last_tokens_by_hand() -> None:
    tokens = torch.zeros(5, 4, dtype=torch.long)
    attention_mask = torch.tensor(
        [[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 1, 0]]
    )
    assert last_tokens(tokens).tolist() == [3, 3, 3, 3, 3]
    assert last_tokens(tokens, attention_mask).tolist() == [3, 3, 1, 3, 2]
    # With a cache: an index into the last two columns.
    new = last_tokens(tokens[:, :2], attention_mask)
    assert new.tolist() == [1, 1, 1, 1, 0]


def test_padding_does_not_use_up_positions(model: GPT2) -> None:
    """There are 20 columns for 16 positions, but few enough tokens."""
    tokens = torch.randint(17, (2, 20))
    attention_mask = torch.ones(2, 20)
    attention_mask[0, :6] = attention_mask[1, 3:9] = 0
    logits = model(tokens, attention_mask)
    for row, real in enumerate(attention_mask.bool()):
        close(logits[row, real], model(tokens[row, real][None])[0])


# --- the loss ----------------------------------------------------------------


def surprises(model: GPT2, sequence: Tensor) -> Tensor:
    """Return -log p of each token after the first, given those before."""
    log_p = model(sequence[None])[0].log_softmax(-1)  # (T, V)
    return torch.stack(
        [-log_p[t, sequence[t + 1]] for t in range(len(sequence) - 1)]
    )


def test_the_loss_is_the_mean_surprise(model: GPT2, tokens: Tensor) -> None:
    each = [surprises(model, sequence) for sequence in tokens]
    close(next_token_loss(model, tokens), torch.cat(each).mean())


def test_the_loss_shifts_the_targets_once() -> None:
    """The model predicts that each token is followed by the next id."""

    class Successor(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return 100.0 * F.one_hot((tokens + 1) % 17, 17)

    counting = torch.arange(12).remainder(17)[None]
    assert next_token_loss(Successor(), counting) == 0
    assert next_token_loss(Successor(), counting.flip(-1)) == 100


@pytest.mark.parametrize("kind", ["left", "right", "left, right and both"])
def test_the_loss_of_a_padded_batch_is_the_mean_over_real_predictions(
    model: GPT2, kind: str
) -> None:
    tokens = torch.randint(17, (3, 5))
    real = torch.tensor([[mark == "1" for mark in r] for r in PADDINGS[kind]])
    each = [
        surprises(model, tokens[row, real[row]]) for row in range(len(tokens))
    ]
    close(next_token_loss(model, tokens, real), torch.cat(each).mean())


def test_no_prediction_is_made_across_a_gap(model: GPT2) -> None:
    tokens = torch.randint(17, (1, 6))
    real = torch.tensor([[1, 1, 0, 1, 1, 1]])
    each = surprises(model, tokens[real.bool()])  # of tokens 1, 3, 4 and 5
    close(next_token_loss(model, tokens, real), each[[0, 2, 3]].mean())


@pytest.mark.parametrize("real", [[0, 0, 0], [0, 1, 0], [1, 0, 1]])
def test_nothing_to_predict_is_an_error(model: GPT2, real: list[int]) -> None:
    with pytest.raises(ValueError, match="predict"):
        next_token_loss(model, torch.tensor([[1, 2, 3]]), torch.tensor([real]))


# --- the cache ---------------------------------------------------------------


def in_chunks(
    model: GPT2,
    tokens: Tensor,
    chunks: list[int],
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Run the model in chunks with a cache, and concatenate the logits."""
    cache = model.new_cache(tokens.size(0))
    pieces = []
    for piece in tokens.split(chunks, dim=1):
        end = cache.length + piece.size(1)
        mask = None if attention_mask is None else attention_mask[:, :end]
        with torch.no_grad():
            pieces.append(model(piece, mask, cache=cache))
        assert cache.length == end
    return torch.cat(pieces, dim=1)


@both_ways
@pytest.mark.parametrize("chunks", [[1] * 11, [11], [3, 5, 1, 2], [7, 4]])
def test_cached_equals_uncached(
    model: GPT2, chunks: list[int], fused: bool
) -> None:
    set_fused(model, fused)
    tokens = torch.randint(17, (2, 11))
    close(in_chunks(model, tokens, chunks), model(tokens))


@both_ways
@padded_everywhere
@pytest.mark.parametrize("chunks", [[1] * 8, [5, 1, 1, 1], [3, 4, 1]])
def test_cached_equals_uncached_with_padding(
    model: GPT2, attention_mask: Tensor, chunks: list[int], fused: bool
) -> None:
    """Three more tokens follow the padded prompt of each sequence."""
    set_fused(model, fused)
    tokens = torch.randint(17, (3, 8))
    attention_mask = F.pad(attention_mask, (0, 3), value=1)
    found = in_chunks(model, tokens, chunks, attention_mask)
    for row, real in enumerate(attention_mask.bool()):
        close(found[row, real], model(tokens[row, real][None])[0])


def test_last_only_with_a_cache(model: GPT2) -> None:
    tokens = torch.randint(17, (3, 8))
    attention_mask = torch.ones(3, 8, dtype=torch.long)
    attention_mask[0, :2] = attention_mask[1, 6:] = attention_mask[2, 4:7] = 0
    cache = model.new_cache(batch_size=3)
    with torch.no_grad():
        model(tokens[:, :4], attention_mask[:, :4], cache=cache)
        last = model(
            tokens[:, 4:], attention_mask, cache=cache, last_only=True
        )
    for row, real in enumerate(attention_mask.bool()):
        close(last[row], model(tokens[row, real][None])[0, -1])


def test_selected_sequences_go_on_from_their_own_past(model: GPT2) -> None:
    past, rows = torch.randint(17, (3, 5)), torch.tensor([2, 2, 0, 1])
    new = torch.randint(17, (4, 3))
    cache = model.new_cache(batch_size=3)
    with torch.no_grad():
        model(past, cache=cache)
        cache.select(rows)
        found = model(new, cache=cache)
    close(found, model(torch.cat([past[rows], new], dim=1))[:, 5:])


def test_an_overfull_cache_is_an_error(model: GPT2, tokens: Tensor) -> None:
    cache = model.new_cache(batch_size=2, n_positions=7)
    with torch.no_grad():
        before = model(tokens, cache=cache)
        with pytest.raises(ValueError, match=r"\(2, 3, 7, 4\).* 5 "):
            model(tokens, cache=cache)
        after = model(tokens[:, :2], cache=cache)  # the cache is unchanged
    again = torch.cat([tokens, tokens[:, :2]], dim=1)
    close(torch.cat([before, after], dim=1), model(again))


def test_a_cache_ends_where_the_positions_end(model: GPT2) -> None:
    cache = model.new_cache(batch_size=1, n_positions=20)
    with torch.no_grad():
        model(torch.zeros(1, 15, dtype=torch.long), cache=cache)
        with pytest.raises(ValueError, match=r"\b16\b.*n_ctx.*\b17\b"):
            model(torch.zeros(1, 2, dtype=torch.long), cache=cache)


# --- a new model -------------------------------------------------------------


@pytest.fixture
def wide() -> GPT2Config:
    """A config that is large enough for statistics."""
    return GPT2Config(n_vocab=1000, n_ctx=64, n_embd=96, n_head=4, n_layer=8)


def test_is_initialised_as_gpt2(wide: GPT2Config) -> None:
    """Radford et al. (2019), section 2.3, and openai/gpt-2 src/model.py."""
    for name, parameter in GPT2(wide).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif ".ln_" in name or name.startswith("ln_f"):
            assert (parameter == 1).all(), name
        else:
            std = 0.02
            if name == "wpe.weight":
                std = 0.01
            elif name.endswith("c_proj.weight"):
                std = 0.02 / math.sqrt(2 * 8)
            assert parameter.std().item() == pytest.approx(std, rel=0.04), name
            mean = parameter.mean().item()
            assert mean == pytest.approx(0, abs=0.05 * std), name


def test_starts_with_a_loss_of_ln_v(wide: GPT2Config) -> None:
    """All tokens are about equally likely."""
    model = GPT2(wide).eval()
    loss = next_token_loss(model, torch.randint(1000, (4, 33)))
    assert loss.item() == pytest.approx(math.log(1000), abs=0.1)


def test_a_seed_determines_the_model(tiny: GPT2Config) -> None:
    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in GPT2(tiny).parameters()])

    assert torch.equal(drawn(7), drawn(7))
    assert not torch.equal(drawn(7), drawn(8))


# --- in training -------------------------------------------------------------


def test_one_batch_can_be_overfitted(tiny: GPT2Config) -> None:
    model = GPT2(tiny).eval()
    tokens = torch.randint(17, (4, 9))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = next_token_loss(model, tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # Only the second token of the four sequences remains uncertain.
    assert next_token_loss(model, tokens) < 0.2
    right = model(tokens[:, :-1]).argmax(-1) == tokens[:, 1:]
    assert right.double().mean() > 0.9


def test_the_output_is_tied_to_the_embeddings(
    model: GPT2, tokens: Tensor
) -> None:
    """The gradient of `wte` is the sum of those at input and output."""
    table = model.wte.weight
    hidden = model.hidden_states(tokens)

    def gradient(hidden: Tensor, output_table: Tensor) -> Tensor:
        loss = F.cross_entropy((hidden @ output_table.T)[:, 0], tokens[:, 1])
        return torch.autograd.grad(loss, table, retain_graph=True)[0]

    at_the_input = gradient(hidden, table.detach())
    at_the_output = gradient(hidden.detach(), table)
    whole = torch.autograd.grad(
        F.cross_entropy(model(tokens)[:, 0], tokens[:, 1]), table
    )[0]
    assert at_the_input.any()
    assert at_the_output.any()
    close(whole, at_the_input + at_the_output)


@pytest.mark.parametrize(
    "dropout", ["embd_dropout", "attn_dropout", "resid_dropout"]
)
def test_each_dropout_is_on_in_training_and_off_in_eval(
    tiny: GPT2Config,
    shake: Callable[..., nn.Module],
    tokens: Tensor,
    dropout: str,
) -> None:
    none = {"embd_dropout": 0, "attn_dropout": 0, "resid_dropout": 0}
    model = shake(GPT2(dataclasses.replace(tiny, **none | {dropout: 0.5})))
    assert model.training  # like every new module
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))

    model.load_state_dict(model.state_dict())
    without = GPT2(dataclasses.replace(tiny, **none))
    without.load_state_dict(model.state_dict())
    assert torch.equal(without.train()(tokens), model(tokens))


def test_dropout_is_on_the_sum_of_the_embeddings(
    tiny: GPT2Config, shake: Callable[..., nn.Module]
) -> None:
    model = shake(GPT2(dataclasses.replace(tiny, embd_dropout=0.25)))
    tokens = torch.randint(17, (200, 16))
    seen: list[Tensor] = []
    model.h[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    model(tokens)
    stream = seen[0]
    kept = stream != 0
    assert kept.double().mean().item() == pytest.approx(0.75, abs=0.01)
    plain = model.wte(tokens) + model.wpe.weight
    close(stream[kept], plain[kept] / 0.75)


# --- as a checkpoint -----------------------------------------------


def test_the_state_dict_is_a_checkpoint() -> None:
    """Names and shapes of the published 124M, tensor for tensor."""
    expected = {"wte.weight": (50257, 768), "wpe.weight": (1024, 768)}
    for i in range(12):
        expected |= {
            f"h.{i}.ln_1.weight": (768,),
            f"h.{i}.ln_1.bias": (768,),
            f"h.{i}.attn.c_attn.weight": (768, 2304),
            f"h.{i}.attn.c_attn.bias": (2304,),
            f"h.{i}.attn.c_proj.weight": (768, 768),
            f"h.{i}.attn.c_proj.bias": (768,),
            f"h.{i}.ln_2.weight": (768,),
            f"h.{i}.ln_2.bias": (768,),
            f"h.{i}.mlp.c_fc.weight": (768, 3072),
            f"h.{i}.mlp.c_fc.bias": (3072,),
            f"h.{i}.mlp.c_proj.weight": (3072, 768),
            f"h.{i}.mlp.c_proj.bias": (768,),
        }
    expected |= {"ln_f.weight": (768,), "ln_f.bias": (768,)}
    with torch.device("meta"):
        found = GPT2(GPT2Config()).state_dict()
    assert {name: tuple(t.shape) for name, t in found.items()} == expected
    assert len(found) == 148


def test_parameters_are_counted(tiny: GPT2Config, model: GPT2) -> None:
    embeddings = 17 * 12 + 16 * 12
    attention = 12 * 36 + 36 + 12 * 12 + 12
    feed_forward = 12 * 48 + 48 + 48 * 12 + 12
    norm = 12 + 12
    layer = attention + feed_forward + 2 * norm
    assert model.num_parameters() == embeddings + 2 * layer + norm


def test_shows_its_sizes(tiny: GPT2Config) -> None:
    shown = repr(GPT2(tiny)).splitlines()
    assert shown[0] == "GPT2("
    assert "4,188 parameters" in shown[1]
    assert "n_ctx=16" in shown[1]
    assert "  (wte): Embedding(17, 12)" in shown
    with torch.device("meta"):
        assert "124,439,808 parameters, n_ctx=1024" in repr(GPT2(GPT2Config()))


# --- errors ------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokens, came",
    [
        (torch.zeros(5, dtype=torch.long), ("int64", "(5,)")),
        (torch.zeros(2, 0, dtype=torch.long), ("int64", "(2, 0)")),
        (torch.zeros(2, 5, 17, dtype=torch.long), ("int64", "(2, 5, 17)")),
        (torch.zeros(2, 5), ("float32", "(2, 5)")),
        (torch.zeros(2, 5, dtype=torch.bool), ("bool", "(2, 5)")),
        ([3, 1, 4], ("[3, 1, 4]",)),
        ([[3, 1, 4]], ("[[3, 1, 4]]",)),
        (list(range(1000)), ("[0, 1, 2, ",)),
        (3, ("got 3",)),
        (None, ("None",)),
        ("text", ("'text'",)),
        (torch.zeros(2, 5, dtype=torch.long).numpy(), ("array",)),
    ],
)
def test_wrong_tokens_are_shown_beside_the_call_to_make(
    model: GPT2, tokens: Any, came: tuple[str, ...]
) -> None:
    for call in (model, model.hidden_states):
        with pytest.raises(ValueError, match=r"\(B, T\)") as error:
            call(tokens)
        message = str(error.value)
        expected, _, shown = message.partition("; got ")
        assert "`torch.tensor([ids])`" in expected
        assert all(piece in f"got {shown}" for piece in came)
        assert len(message) < 200


@pytest.mark.parametrize("mask", [[[1, 1, 1, 1, 1]] * 2, "11111"])
def test_an_attention_mask_must_be_a_tensor(
    model: GPT2, tokens: Tensor, mask: Any
) -> None:
    with pytest.raises(ValueError, match=r"attention_mask.*\(2, 5\)") as error:
        model(tokens, mask)
    assert str(error.value).endswith(f"{mask!r:.60}")


def test_the_device_is_that_of_the_weights(tiny: GPT2Config) -> None:
    model: LanguageModel = GPT2(tiny)
    assert model.device == torch.device("cpu")
    with torch.device("meta"):
        assert GPT2(tiny).device == torch.device("meta")


def test_the_call_that_the_message_suggests(model: GPT2) -> None:
    ids = [3, 1, 4]
    assert model(torch.tensor([ids])).shape == (1, 3, 17)


@pytest.mark.parametrize("wrong", [17, -1])
def test_an_id_outside_the_vocabulary(model: GPT2, wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"\b0\b.*\b16\b.* {wrong}$"):
        model(torch.tensor([[3, wrong]]))


def test_more_tokens_than_positions(model: GPT2) -> None:
    with pytest.raises(ValueError, match=r"\b16\b.*n_ctx.*\b17\b"):
        model(torch.zeros(1, 17, dtype=torch.long))


def test_more_real_tokens_than_positions(model: GPT2) -> None:
    tokens = torch.zeros(2, 19, dtype=torch.long)
    attention_mask = torch.ones(2, 19)
    attention_mask[0, 4:] = 0
    attention_mask[1, 1:3] = 0
    with pytest.raises(ValueError, match=r"\b16\b.*n_ctx.*\b17\b"):
        model(tokens, attention_mask)


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_a_cache_for_another_number_of_sequences(
    model: GPT2, n_sequences: int
) -> None:
    cache = model.new_cache(batch_size=2)
    tokens = torch.zeros(n_sequences, 5, dtype=torch.long)
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match=rf"\(2, .*\({n_sequences}, "),
    ):
        model(tokens, cache=cache)
    assert cache.length == 0


@pytest.mark.parametrize("shape", [(2, 4), (1, 5), (5,), (2, 1, 1, 5)])
def test_an_attention_mask_of_another_shape(
    model: GPT2, tokens: Tensor, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"attention_mask.*\(2, 5\)") as error:
        model(tokens, torch.ones(shape))
    assert str(error.value).endswith(f"{shape}")


def test_an_attention_mask_must_cover_the_cached_tokens(
    model: GPT2, tokens: Tensor
) -> None:
    cache = model.new_cache(batch_size=2)
    with torch.no_grad():
        model(tokens, cache=cache)
        with pytest.raises(ValueError, match=r"\(2, 10\).*cache"):
            model(tokens, torch.ones(2, 5), cache=cache)
    assert cache.length == 5

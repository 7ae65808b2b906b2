"""The two tables of vectors, and the position of each token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gpt2.embeddings import Embedding, positions_of


def test_a_lookup_is_a_product_with_one_hot_rows() -> None:
    table = Embedding(17, 12)
    ids = torch.randint(17, (2, 5))
    vectors = table(ids)
    assert vectors.shape == (2, 5, 12)
    one_hot = F.one_hot(ids, 17).float()  # (2, 5, 17)
    torch.testing.assert_close(vectors, one_hot @ table.weight)


def test_the_gradient_of_a_row_counts_each_use() -> None:
    table = Embedding(4, 3)
    table(torch.tensor([[2, 0, 2]])).sum().backward()
    times = torch.tensor([1.0, 0.0, 2.0, 0.0])
    assert torch.equal(table.weight.grad, times[:, None].expand(4, 3))


def test_starts_normal() -> None:
    table = Embedding(300, 200, std=0.01)
    assert table.weight.mean().item() == pytest.approx(0, abs=0.001)
    assert table.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_shows_its_sizes() -> None:
    assert repr(Embedding(17, 12)) == "Embedding(17, 12)"


@pytest.mark.parametrize("wrong", [17, -1])
def test_an_id_outside_the_table_is_an_error(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"\b0\b.*\b16\b.* {wrong}$"):
        Embedding(17, 12)(torch.tensor([[0, wrong]]))


@pytest.mark.parametrize(
    "attention_mask, positions",
    [
        ([1, 1, 1, 1], [0, 1, 2, 3]),
        ([0, 0, 1, 1], [0, 0, 0, 1]),  # padding on the left
        ([1, 1, 0, 0], [0, 1, 1, 1]),  # on the right
        ([1, 0, 0, 1], [0, 0, 0, 1]),  # in the middle
        ([0, 0, 0, 0], [0, 0, 0, 0]),
    ],
)
def test_a_position_is_the_number_of_real_tokens_before(
    attention_mask: list[int], positions: list[int]
) -> None:
    """At padding, any position in the table would do."""
    for dtype in (torch.int64, torch.int32, torch.bool, torch.float32):
        found = positions_of(torch.tensor([attention_mask], dtype=dtype))
        assert found.tolist() == [positions]
        assert found.dtype == torch.int64

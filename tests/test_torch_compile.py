"""The model under `torch.compile` and `torch.export`, in one graph.

Where the code depends on a shape, it must branch with `if`: PyTorch's tracers
cannot follow a value that is computed from shapes and passed to an operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from gpt2.model import GPT2

padded_or_not = pytest.mark.parametrize("padded", [False, True])
LENGTHS = (2, 5, 9, 16)


@pytest.fixture(autouse=True)
def _from_the_start() -> Iterator[None]:
    """Reset the compiler before and after each test."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def model(model: GPT2) -> GPT2:
    return model.requires_grad_(False)


def batch(n_tokens: int, padded: bool) -> tuple[Tensor, Tensor | None]:
    """Return tokens (2, T), and a mask in which the first is padding."""
    tokens = torch.randint(17, (2, n_tokens))
    if not padded:
        return tokens, None
    attention_mask = torch.ones_like(tokens)
    attention_mask[0, 0] = 0
    return tokens, attention_mask


@padded_or_not
def test_exports_with_a_dynamic_length(model: GPT2, padded: bool) -> None:
    """One program covers all lengths from 2 to the number of positions."""
    length = {1: torch.export.Dim("T", min=2, max=model.config.n_ctx)}
    program = torch.export.export(
        model,
        batch(7, padded),
        dynamic_shapes={
            "tokens": length,
            "attention_mask": length if padded else None,
        },
    )
    for n in LENGTHS:
        inputs = batch(n, padded)
        torch.testing.assert_close(program.module()(*inputs), model(*inputs))


@padded_or_not
def test_compiles_into_one_graph(model: GPT2, padded: bool) -> None:
    """A second graph, at the second length, covers all other lengths."""
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for n in LENGTHS:
        inputs = batch(n, padded)
        torch.testing.assert_close(compiled(*inputs), model(*inputs))
    assert counter.frame_count <= 2


@padded_or_not
def test_compiles_into_one_graph_with_a_cache(
    model: GPT2, padded: bool
) -> None:
    """A prompt, tokens one by one, and several at once.

    It takes few graphs: one for the prompt, one for a token at the first
    position, and one for one or more tokens at any other position.
    """
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    tokens, attention_mask = batch(16, padded)
    cache, pieces = model.new_cache(batch_size=2), []
    for piece in tokens.split([5, 1, 1, 1, 1, 1, 3, 3], dim=1):
        end = cache.length + piece.size(1)
        real = None if attention_mask is None else attention_mask[:, :end]
        pieces.append(compiled(piece, real, cache=cache))
    assert cache.length == 16
    expected = model(tokens, attention_mask)
    real_ones = slice(1, None)  # logits at padding mean nothing
    torch.testing.assert_close(
        torch.cat(pieces, dim=1)[:, real_ones], expected[:, real_ones]
    )
    assert counter.frame_count <= 4


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_of_training_compiles(model: GPT2, fused: bool) -> None:
    """With gradients, for both kinds of attention."""
    model.requires_grad_(True)
    for layer in model.h:
        layer.attn.fused = fused
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    tokens, _ = batch(5, padded=False)

    def gradient(network: Callable[[Tensor], Tensor]) -> Tensor:
        loss = network(tokens).sin().sum()
        return torch.autograd.grad(loss, model.wte.weight)[0]

    torch.testing.assert_close(gradient(compiled), gradient(model))

"""What the tests of generation share: models, padded prompts, a log.

Where a distribution must be known, the model is a `Chain`, whose logits stand
in a table; where positions, padding or the cache matter, it is a tiny GPT-2.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config as TheirConfig
from transformers import GPT2LMHeadModel

from gpt2.config import GPT2Config
from gpt2.model import GPT2, last_tokens
from gpt2.sampling import Sampling

GREEDY = Sampling(temperature=0)


class Chain(nn.Module):
    """A model whose next token depends on the last one alone.

    Row t of `probabilities` says what follows token t.
    """

    def __init__(self, probabilities: Any, n_ctx: int = 64) -> None:
        super().__init__()
        self.logits = torch.tensor(probabilities).log()
        self.config = GPT2Config(n_vocab=len(self.logits), n_ctx=n_ctx)

    def new_cache(self, batch_size: int, n_positions: int) -> Any:
        return SimpleNamespace(select=lambda rows: None)

    def forward(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        rows = torch.arange(len(tokens))
        return self.logits[tokens[rows, last_tokens(tokens, attention_mask)]]


def padded(prompts: list[Tensor], side: str, fill: int = 0) -> Any:
    """Prompts of different lengths as one batch: (tokens, attention_mask)."""
    tokens = nn.utils.rnn.pad_sequence(
        prompts, batch_first=True, padding_value=fill, padding_side=side
    )
    real = nn.utils.rnn.pad_sequence(
        [torch.ones_like(prompt) for prompt in prompts],
        batch_first=True,
        padding_side=side,
    )
    return tokens, real


def with_spare_rows(model: GPT2, n_more: int = 47) -> GPT2:
    """The same model, its table padded with rows that outdo all others.

    There are pairs of opposite rows, so always one of them has a large logit.
    """
    n_vocab, width = model.wte.weight.shape
    rows = 50 * torch.randn(n_more // 2, width)
    spare = torch.cat([rows, -rows, rows[: n_more % 2]])
    padded = GPT2(replace(model.config, n_vocab=n_vocab + n_more)).eval()
    table = torch.cat([model.wte.weight, spare])
    padded.load_state_dict({**model.state_dict(), "wte.weight": table})
    return padded


both_sides = pytest.mark.parametrize("side", ["left", "right"])


def varied(model: GPT2) -> GPT2:
    """Make positions matter more to a model.

    Otherwise it would say the same token again and again.
    """
    with torch.no_grad():
        model.wpe.weight.add_(torch.randn_like(model.wpe.weight))
    return model


def some_prompts(config: GPT2Config) -> list[Tensor]:
    """Three prompts of 1, 4 and 7 random tokens."""
    return [torch.randint(config.n_vocab, (n,)) for n in (1, 4, 7)]


def assert_drawn(counts: Tensor, probabilities: Tensor) -> None:
    """Each count lies within five standard deviations of what it should be.

    What has no probability must never come.
    """
    expected = counts.sum() * probabilities
    deviation = (expected * (1 - probabilities)).sqrt()
    assert ((counts - expected).abs() <= 5 * deviation).all(), (
        counts,
        expected,
    )


def spoil(model: GPT2) -> GPT2:
    """Give a model so much dropout that no result survives it."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    return model.train()


class Log:
    """What happens while a model generates, in its order."""

    def __init__(self, model: nn.Module) -> None:
        self.events: list[Any] = []
        model.register_forward_pre_hook(
            lambda module, inputs: self.events.append(tuple(inputs[0].shape))
        )


def in_transformers(model: GPT2) -> GPT2LMHeadModel:
    """The same model, in their words."""
    fields = model.config.to_dict() | {
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    twin = GPT2LMHeadModel(TheirConfig(**fields)).eval()
    twin.transformer.load_state_dict(model.state_dict())
    return twin

"""Right and wrong answers to the exercises of chapter 7."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.cache import LayerCache
from gpt2.config import GPT2Config
from gpt2.layer import GPT2Layer
from gpt2.model import GPT2

Answers = tuple[object, dict[str, object]]


def count(n_vocab: int, n_ctx: int, width: int, n_layer: int) -> int:
    """Answer exercise 7.2."""
    layer = 12 * width**2 + 13 * width
    return (n_vocab + n_ctx + 2) * width + n_layer * layer


class ParallelLayer(GPT2Layer):
    """Answer exercise 7.3."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        del self.ln_2

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        n = self.ln_1(x)
        found = self.attn(n, mask=mask, cache=cache)
        return x + found + self.mlp(n)


class TwoNorms(GPT2Layer):
    """Each with its own norm."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        n = self.ln_1(x)
        return x + self.attn(n) + self.mlp(self.ln_2(x))


class Leftover(GPT2Layer):
    """The second norm is left over."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        n = self.ln_1(x)
        return x + self.attn(n) + self.mlp(n)


class OneAfterTheOther(ParallelLayer):
    """One norm, and still one after the other."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        n = self.ln_1(x)
        x = x + self.attn(n)
        return x + self.mlp(self.ln_1(x))


class NoStream(ParallelLayer):
    """The plus is missing."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        n = self.ln_1(x)
        return self.attn(n) + self.mlp(n)


class Twice(ParallelLayer):
    """The stream comes in twice."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        n = self.ln_1(x)
        return (x + self.attn(n)) + (x + self.mlp(n))


class Chained(ParallelLayer):
    """The feed-forward reads what attention found."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        n = self.ln_1(x)
        found = self.attn(n)
        return x + found + self.mlp(found)


class Future(ParallelLayer):
    """Nothing hides what comes later."""

    # The mistake is that an argument of the layer's is missing.
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        n = self.ln_1(x)
        return x + self.attn(n, mask=mask, causal=False) + self.mlp(n)


class OnTheStream(ParallelLayer):
    """The norm lies on the stream."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        x = self.ln_1(x)
        return x + self.attn(x) + self.mlp(x)


class AlwaysCausal(ParallelLayer):
    """The mask is not used."""

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        return super().forward(x, None, cache)


class NoCache(ParallelLayer):
    """The cache is not used."""

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        return super().forward(x, mask)


class PostNorm(GPT2Layer):
    """The norms after the additions."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        x = self.ln_1(x + self.attn(x))
        return self.ln_2(x + self.mlp(x))


class NoPlus(GPT2Layer):
    """Nothing is added."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        return self.mlp(self.ln_2(self.attn(self.ln_1(x))))


class OnePlus(GPT2Layer):
    """The second plus is missing."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return self.mlp(self.ln_2(x))


class OldStream(GPT2Layer):
    """The result of attention is read and then lost."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        after = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(after))


class Bare(GPT2Layer):
    """Attention reads the stream as it is."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(self.ln_2(x))


class Unplaced(GPT2):
    """No positions."""

    # The exercise asks for a model that takes tokens alone.
    def forward(self, tokens: Tensor, *rest: Any) -> Tensor:  # type: ignore[override]
        x = self.wte(tokens)
        for layer in self.h:
            x = layer(x)
        return F.linear(self.ln_f(x), self.wte.weight)


class Unnormed(GPT2):
    """No final norm."""

    # The exercise asks for a model that takes tokens alone.
    def forward(self, tokens: Tensor, *rest: Any) -> Tensor:  # type: ignore[override]
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.size(1)))
        for layer in self.h:
            x = layer(x)
        return F.linear(x, self.wte.weight)


class Forgetful(GPT2):
    """Every layer reads the embeddings."""

    # The exercise asks for a model that takes tokens alone.
    def forward(self, tokens: Tensor, *rest: Any) -> Tensor:  # type: ignore[override]
        start = self.wte(tokens) + self.wpe(torch.arange(tokens.size(1)))
        for layer in self.h:
            x = layer(start)
        return F.linear(self.ln_f(x), self.wte.weight)


class Probabilities(GPT2):
    """A softmax too many."""

    # The exercise asks for a model that takes tokens alone.
    def forward(self, tokens: Tensor, *rest: Any) -> Tensor:  # type: ignore[override]
        return super().forward(tokens).softmax(-1)


class OwnOutput(GPT2):
    """A matrix for the output."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.n_embd, config.n_vocab, bias=False)


def surprise(model: nn.Module, tokens: Tensor) -> Tensor:
    """Answer the loss."""
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def unshifted(model: nn.Module, tokens: Tensor) -> Tensor:
    """Ask for what was just read."""
    return F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())


def backwards(model: nn.Module, tokens: Tensor) -> Tensor:
    """Ask for the token before."""
    logits = model(tokens)[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, :-1].flatten())


ANSWERS: dict[str, Answers] = {
    "layer-missed": (
        0,
        {"another one": 2, "0, 1, 2 or 3": 4, "expected a number": "first"},
    ),
    "layer": (
        GPT2Layer,
        {
            "that is post-norm": PostNorm,
            "the residual stream is missing": NoPlus,
            "the second plus is missing": OnePlus,
            "adds to the stream before attention": OldStream,
            "attention should read a normalised copy": Bare,
            "it has no `ln_2": ParallelLayer,
            "expected an nn.Module": lambda config: config.n_embd,
        },
    ),
    "whole-model": (
        GPT2,
        {
            "the positions are missing": Unplaced,
            "the final norm is missing": Unnormed,
            "only the last layer": Forgetful,
            "those are probabilities": Probabilities,
            "a parameter too many, `lm_head": OwnOutput,
            "it has no `h.0": GPT2Layer,
        },
    ),
    "next-token-loss": (
        surprise,
        {
            "there is no shift": unshifted,
            "the wrong way": backwards,
            "the sign is wrong": lambda model, tokens: (
                -surprise(model, tokens)
            ),
            "that is the perplexity": lambda model, tokens: surprise(
                model, tokens
            ).exp(),
            "in bits": lambda model, tokens: (
                surprise(model, tokens) / math.log(2)
            ),
            "that is the sum": lambda model, tokens: (
                15 * surprise(model, tokens)
            ),
        },
    ),
    "stammer": (
        lambda tokens: tokens,
        {
            "the token before": lambda tokens: tokens.roll(1, -1),
            "comes next": lambda tokens: tokens.roll(-1, -1),
            "one token for all places": lambda tokens: 0 * tokens,
            "the first token": lambda tokens: tokens[:, :1].repeat(1, 4),
        },
    ),
    "count-parameters": (
        count,
        {
            "the final norm is missing": lambda v, n, c, d: (
                count(v, n, c, d) - 2 * c
            ),
            "the two norms": lambda v, n, c, d: count(v, n, c, d) - 4 * c * d,
            "no bias is counted": lambda v, n, c, d: (
                count(v, n, c, d) - 9 * c * d
            ),
            "C alone": lambda v, n, c, d: (v + n) * c + 12 * d * c**2,
            "a matrix of its own": lambda v, n, c, d: (
                count(v, n, c, d) + v * c
            ),
            "the position table is missing": lambda v, n, c, d: count(
                v, 0, c, d
            ),
            "both tables": lambda v, n, c, d: count(0, 0, c, d),
            "a single layer": lambda v, n, c, d: count(v, n, c, 1),
            "one map from C to C": lambda v, n, c, d: (
                count(v, n, c, d) - d * (2 * c**2 + 2 * c)
            ),
            "one up and one down": lambda v, n, c, d: (
                count(v, n, c, d) - d * (4 * c**2 + c)
            ),
            "V=50257, n_ctx=1024, C=1600, L=48": lambda v, n, c, d: 124439808,
            "expected a function": 124_439_808,
        },
    ),
    "parallel-layer": (
        ParallelLayer,
        {
            "that is the old layer": GPT2Layer,
            "share one norm": TwoNorms,
            "no longer used": Leftover,
            "reads the stream after attention": OneAfterTheOther,
            "the residual stream is missing": NoStream,
            "added twice": Twice,
            "reads the output of attention": Chained,
            "see the future": Future,
            "add to `x` itself": OnTheStream,
            "ignores its mask": AlwaysCausal,
            "pass the cache on": NoCache,
            "expected an nn.Module": lambda config: config.n_embd,
        },
    ),
}


class BySum(GPT2Layer):
    """The same layer, with its branches named first."""

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        found = self.attn(self.ln_1(x))
        return x + found + self.mlp(self.ln_2(x + found))


class ByEmbedding(GPT2):
    """The same model, with a matrix product at the end."""

    # The exercise asks for a model that takes tokens alone.
    def forward(self, tokens: Tensor, *rest: Any) -> Tensor:  # type: ignore[override]
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.size(-1)))
        for layer in self.h:
            x = layer(x)
        return self.ln_f(x) @ self.wte.weight.T


def by_hand(model: nn.Module, tokens: Tensor) -> float:
    """Pick the logarithms one by one, and return a plain number."""
    surprises = []
    for row, text in zip(model(tokens).log_softmax(-1), tokens, strict=True):
        surprises += [
            -row[t, text[t + 1]].item() for t in range(len(text) - 1)
        ]
    return sum(surprises) / len(surprises)


ALSO_RIGHT: dict[str, list[object]] = {
    "layer-missed": [0.0],
    "layer": [BySum],
    "whole-model": [ByEmbedding],
    "next-token-loss": [by_hand],
    "stammer": [lambda tokens: tokens.clone()],
    "count-parameters": [
        lambda v, n_ctx, c, n_layer: float(
            v * c + n_ctx * c + 2 * c + n_layer * c * (12 * c + 13)
        )
    ],
}

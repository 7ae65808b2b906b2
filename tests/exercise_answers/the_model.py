"""Right and wrong answers to the exercises of chapter 7."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gpt2.cache import LayerCache
from gpt2.config import GPT2Config
from gpt2.layer import GPT2Layer

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


ANSWERS: dict[str, Answers] = {
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

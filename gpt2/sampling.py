"""From logits to the next token.

Each filter is a function from logits to logits that sets the tokens it
excludes to minus infinity. `Sampling` applies them in the order in which they
stand here: repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import torch
from torch import Tensor


def penalize_repetition(
    logits: Tensor, tokens: Tensor, penalty: float, real: Tensor | None = None
) -> Tensor:
    """Make tokens that have already occurred less likely.

    A positive logit is divided by the penalty and a negative one multiplied by
    it, so both decrease. Keskar et al. (2019), section 4.1, divide in either
    case, which makes a token with a negative logit more likely.

    Args:
        logits: (B, V), floating point.
        tokens: (B, S), int64 or int32: the tokens so far.
        penalty: Positive; 1 changes nothing, below 1 rewards repetition.
        real: (B, S), false where `tokens` is padding, which is not penalized.

    Returns:
        (B, V), in the dtype of `logits` and clamped to its finite range.
    """
    counted = torch.ones_like(tokens) if real is None else real
    times = torch.zeros_like(logits, dtype=torch.long)  # (B, V)
    times.scatter_add_(1, tokens.long(), counted.long())
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    numbers = torch.finfo(logits.dtype)
    lowered = lowered.clamp(numbers.min, numbers.max)
    return torch.where((times > 0) & logits.isfinite(), lowered, logits)


def scale_by_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Sharpen the distribution (below 1) or flatten it (above 1): (B, V).

    Softmax depends only on differences between logits, so the maximum is
    subtracted first: then no quotient overflows, however small the
    temperature.
    """
    highest = logits.max(dim=-1, keepdim=True).values  # (B, 1)
    return (logits - highest) / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the `k` most likely tokens: (B, V).

    Exactly k are kept, even if logits are equal; all, if k is V or more. Fan
    et al. (2018), section 5.4.
    """
    kept = logits.topk(min(k, logits.size(-1)), dim=-1)
    nothing = torch.full_like(logits, -math.inf)
    return nothing.scatter(-1, kept.indices, kept.values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the most likely tokens that together reach probability `p`: (B, V).

    This is the smallest such set, so it includes the token that crosses the
    threshold and is never empty. Holtzman et al. (2020), section 3.1. A p of 1
    keeps everything, whatever the rounding of the sum.
    """
    if p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    ordered = ordered.masked_fill(before >= p, -math.inf)
    return torch.empty_like(logits).scatter(-1, order, ordered)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens at least `p` times as likely as the likeliest: (B, V).

    Nguyen et al. (2024), section 3.
    """
    threshold = logits.max(dim=-1, keepdim=True).values + math.log(p)
    return logits.masked_fill(logits < threshold, -math.inf)


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the logits.

    Raises:
        ValueError: A setting is out of its range.
    """

    temperature: float = 1.0
    """Divides the logits. 1 samples from the model's own distribution, 0 takes
    the most likely token (greedy decoding); otherwise from 1e-30 to 1e30."""
    top_k: int | None = None
    """Sample from the k most likely tokens; None: from all."""
    top_p: float | None = None
    """Sample from the fewest tokens that together reach this probability, from
    1e-30 to 1 (nucleus sampling); None: from all."""
    min_p: float | None = None
    """Sample from tokens at least this many times as likely as the likeliest,
    from 1e-30 to 1; None: from all."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that have already occurred become less likely; from
    1e-30 to 1e30."""

    def __post_init__(self) -> None:
        """Check the range of each setting."""

        def check(name: str, low: float, high: float, *also: object) -> None:
            value = getattr(self, name)
            if value not in also and not low <= value <= high:
                zero = "0 or " if 0 in also else ""
                raise ValueError(
                    f"{name} must be {zero}from {low} to {high}; got {value}"
                )

        check("temperature", 1e-30, 1e30, 0)  # beyond it float32 overflows
        check("top_k", 1, math.inf, None)
        check("top_p", 1e-30, 1, None)
        check("min_p", 1e-30, 1, None)
        check("repetition_penalty", 1e-30, 1e30)

    def filter(
        self, logits: Tensor, tokens: Tensor, real: Tensor | None = None
    ) -> Tensor:
        """Apply every filter that is set.

        Args:
            logits: (B, V), of any floating dtype.
            tokens: (B, S), int64 or int32: the tokens so far.
            real: (B, S), false where `tokens` is padding.

        Returns:
            (B, V), float32. Its softmax is the distribution to sample from; at
            temperature 0 only the most likely token is left.

        Raises:
            RuntimeError: A row's largest logit is NaN or infinite.
        """
        logits = finite(logits)
        if self.repetition_penalty != 1:
            logits = penalize_repetition(
                logits, tokens, self.repetition_penalty, real
            )
        if self.temperature == 0:
            likeliest = logits.argmax(dim=-1, keepdim=True)  # (B, 1)
            nothing = torch.full_like(logits, -math.inf)
            return nothing.scatter(-1, likeliest, 0.0)
        logits = scale_by_temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = keep_top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = keep_min_p(logits, self.min_p)
        return logits

    def choose(
        self,
        logits: Tensor,
        tokens: Tensor,
        real: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw the next token of each sequence: (B,), int64.

        The other arguments and errors are those of `filter`.
        """
        logits = self.filter(logits, tokens, real)
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        drawn = logits.softmax(dim=-1).multinomial(1, generator=generator)
        return drawn.squeeze(-1)


def finite(logits: Tensor) -> Tensor:
    """Return logits (B, V) in float32.

    Raises:
        RuntimeError: A row's largest logit is NaN or infinite.
    """
    logits = logits.float()
    # The maximum of a row that contains NaN is NaN.
    if not bool(logits.max(dim=-1).values.isfinite().all()):
        raise RuntimeError(
            "the model's logits are not all finite numbers, so no token can "
            "be chosen: its weights are damaged, or its dtype is too narrow "
            "for them"
        )
    return logits


def seeded(
    seed: int | torch.Generator | None, device: torch.device
) -> torch.Generator | None:
    """Return a generator that starts from `seed`; None and generators stay.

    Raises:
        ValueError: The seed is not between 0 and 2**32 - 1. PyTorch's CPU
            generator takes seeds modulo 2**32, so a larger seed would repeat
            a smaller one.
        TypeError: The seed is not a whole number.
    """
    if seed is None or isinstance(seed, torch.Generator):
        return seed
    number = operator.index(seed)
    if not 0 <= number < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1; got {number}")
    return torch.Generator(device).manual_seed(number)

"""From logits to the next token, and from one token to many.

Each filter is a small function from logits to logits; what it rules out gets
minus infinity. They are applied in the order in which they stand here:
repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from gpt2.embeddings import check_ids
from gpt2.model import GPT2


def penalize_repetition(
    logits: Tensor, tokens: Tensor, penalty: float, real: Tensor | None = None
) -> Tensor:
    """Make tokens that have come before less likely.

    A positive logit is divided by the penalty and a negative one multiplied
    by it, so that either goes down. Keskar et al. (2019), section 4.1, divide
    either; that rewards what has a negative logit, so it was amended soon.

    Args:
        logits: (B, V).
        tokens: (B, S), what has come before.
        penalty: Positive; 1 changes nothing, less than 1 rewards repetition.
        real: (B, S), false where `tokens` is padding, which does not count.

    Returns:
        (B, V). What would be too large for its dtype is the largest number.
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

    Only differences between logits count. So the highest becomes 0 first, and
    however small the temperature, no quotient is too large.
    """
    highest = logits.max(dim=-1, keepdim=True).values  # (B, 1)
    return (logits - highest) / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the `k` most likely tokens; exactly k, even where logits are equal.

    Fan et al. (2018), section 5.4. A k of V or more keeps everything: (B, V).
    """
    kept = logits.topk(min(k, logits.size(-1)), dim=-1)
    nothing = torch.full_like(logits, -math.inf)
    return nothing.scatter(-1, kept.indices, kept.values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the most likely tokens that together reach probability `p`.

    The smallest such set, so the token that crosses the line is in it, and
    there is always one. Holtzman et al. (2020), section 3.1. A p of 1 keeps
    everything, whatever the rounding of the sum: (B, V).
    """
    if p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    ordered = ordered.masked_fill(before >= p, -math.inf)
    return torch.empty_like(logits).scatter(-1, order, ordered)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least `p` times as likely as the likeliest: (B, V).

    Nguyen et al. (2024), section 3.
    """
    threshold = logits.max(dim=-1, keepdim=True).values + math.log(p)
    return logits.masked_fill(logits < threshold, -math.inf)


_LEAST, _MOST = 1e-30, 1e30  # beyond them float32 comes to its limits


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from the logits."""

    temperature: float = 1.0
    """1 draws from the model's own distribution; 0 takes the likeliest. In
    between, from 1e-30 on."""
    top_k: int | None = None
    """Only from the k likeliest; None: no limit."""
    top_p: float | None = None
    """Only from the likeliest that reach this probability; None: no limit."""
    min_p: float | None = None
    """Only what is this many times as likely as the likeliest; None: all."""
    repetition_penalty: float = 1.0
    """Above 1, what has come before becomes less likely."""

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        self._check(
            "temperature",
            self.temperature == 0 or _LEAST <= self.temperature <= _MOST,
            f"0, or from {_LEAST} to {_MOST}",
        )
        self._check(
            "top_k", self.top_k is None or self.top_k >= 1, "1 or more"
        )
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            fine = value is None or _LEAST <= value <= 1
            self._check(name, fine, f"from {_LEAST} to 1")
        self._check(
            "repetition_penalty",
            _LEAST <= self.repetition_penalty <= _MOST,
            f"from {_LEAST} to {_MOST}",
        )

    def _check(self, name: str, fine: bool, allowed: str) -> None:
        if not fine:
            value = getattr(self, name)
            raise ValueError(f"{name} must be {allowed}; got {value}")

    def filter(
        self, logits: Tensor, tokens: Tensor, real: Tensor | None = None
    ) -> Tensor:
        """Apply every filter that is set.

        Args:
            logits: (B, V), of any floating dtype.
            tokens: (B, S), what has come before.
            real: (B, S), false where `tokens` is padding.

        Returns:
            (B, V), float32; the softmax is what is drawn from. At temperature
            0 only the likeliest token is left.

        Raises:
            RuntimeError: A logit is not a number, or infinite.
        """
        logits = self._penalized(logits, tokens, real)
        if self.temperature == 0:
            likeliest = logits.argmax(dim=-1, keepdim=True)
            nothing = torch.full_like(logits, -math.inf)
            kept = logits.gather(-1, likeliest)
            return nothing.scatter(-1, likeliest, kept)
        logits = scale_by_temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = keep_top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = keep_min_p(logits, self.min_p)
        return logits

    def _penalized(
        self, logits: Tensor, tokens: Tensor, real: Tensor | None
    ) -> Tensor:
        logits = _numbers(logits)
        if self.repetition_penalty == 1:
            return logits
        return penalize_repetition(
            logits, tokens, self.repetition_penalty, real
        )

    def choose(
        self,
        logits: Tensor,
        tokens: Tensor,
        real: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw the next token of each sequence: (B,). See `filter`."""
        if self.temperature == 0:
            return self._penalized(logits, tokens, real).argmax(dim=-1)
        logits = self.filter(logits, tokens, real)
        drawn = logits.softmax(dim=-1).multinomial(1, generator=generator)
        return drawn.squeeze(-1)


def _numbers(logits: Tensor) -> Tensor:
    """Return logits (B, V) in float32, or refuse what nothing follows from."""
    logits = logits.float()
    # Where one is not a number, neither is the maximum.
    if not bool(logits.max(dim=-1).values.isfinite().all()):
        raise RuntimeError(
            "the model's logits are not all finite numbers, so no token can "
            "be chosen; its weights are damaged, or its dtype is too small "
            "for them"
        )
    return logits


def generate(
    model: GPT2,
    tokens: Tensor,
    max_new_tokens: int = 100,
    *,
    attention_mask: Tensor | None = None,
    n_samples: int = 1,
    stop_tokens: Sequence[int] = (),
    seed: int | torch.Generator | None = None,
    **sampling: Any,
) -> Tensor:
    """Continue each sequence, one token at a time.

    Args:
        model: Run without dropout, whatever mode it is in, and not changed:
            see `without_dropout`.
        tokens: (B, T), the prompts.
        max_new_tokens: The most tokens to add to each. Fewer are added where
            the longest prompt and they would not fit into `n_ctx`.
        attention_mask: (B, T), true or 1 for a token, false or 0 for padding,
            on whichever side. None: no padding.
        n_samples: How many continuations of each prompt.
        stop_tokens: A sequence ends with the first of these that it draws.
        seed: A number below 2**32, or a generator on the model's device, to
            get the same tokens from the same call; None draws from PyTorch's
            own generator.
        **sampling: The fields of `Sampling`: `temperature`, `top_k`, `top_p`,
            `min_p`, `repetition_penalty`.

    Returns:
        (B * n_samples, T + new): prompts and what was added, the samples of
        one prompt next to each other. A sequence that has ended is filled up
        with the token that ended it.

    Raises:
        ValueError: A prompt is empty or longer than `n_ctx`, an id is not in
            the vocabulary, or a setting is out of its range.
        RuntimeError: The model's logits are no numbers.
    """
    drawn = stream(
        model,
        tokens,
        max_new_tokens,
        attention_mask=attention_mask,
        n_samples=n_samples,
        stop_tokens=stop_tokens,
        seed=seed,
        **sampling,
    )
    added = list(drawn)
    prompts = tokens.repeat_interleave(n_samples, dim=0)
    return torch.cat([prompts, *(token[:, None] for token in added)], dim=1)


def stream(
    model: GPT2,
    tokens: Tensor,
    max_new_tokens: int = 100,
    *,
    attention_mask: Tensor | None = None,
    n_samples: int = 1,
    stop_tokens: Sequence[int] = (),
    seed: int | torch.Generator | None = None,
    **sampling: Any,
) -> Iterator[Tensor]:
    """Yield what `generate` adds as it comes, (B * n_samples,) at a time.

    Errors are raised at once, and the model runs when a token is asked for.
    """
    settings = Sampling(**sampling)
    if n_samples < 1:
        raise ValueError(f"n_samples must be 1 or more; got {n_samples}")
    n_new = _room(model, tokens, attention_mask, max_new_tokens)
    generator = seeded(seed, tokens.device)
    stops = _stops(model, stop_tokens, tokens.device)
    real = None if attention_mask is None else attention_mask.bool()
    return _draw(
        model, tokens, n_new, real, n_samples, stops, settings, generator
    )


@torch.no_grad()
def _draw(
    model: GPT2,
    tokens: Tensor,
    n_new: int,
    real: Tensor | None,
    n_samples: int,
    stops: Tensor,
    settings: Sampling,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    """Do what `stream` promises, with all that it has checked."""
    model = without_dropout(model)
    cache = model.new_cache(tokens.size(0), tokens.size(1) + n_new)
    logits = model(tokens, real, cache=cache, last_only=True)  # (B, V)
    if n_samples > 1:  # the prompt is read once, however many samples
        rows = torch.arange(tokens.size(0), device=tokens.device)
        rows = rows.repeat_interleave(n_samples)
        cache.select(rows)
        tokens, logits = tokens[rows], logits[rows]
        real = None if real is None else real[rows]
    ended = torch.zeros_like(tokens[:, 0], dtype=torch.bool)  # (B,)
    for step in range(n_new):
        drawn = settings.choose(logits, tokens, real, generator)  # (B,)
        if len(stops):
            drawn = torch.where(ended, tokens[:, -1], drawn)
        yield drawn
        if step == n_new - 1:
            return
        if len(stops):
            ended = torch.isin(drawn, stops)
            if bool(ended.all()):
                return
        tokens = torch.cat([tokens, drawn[:, None]], dim=1)
        if real is not None:
            real = torch.cat([real, torch.ones_like(real[:, :1])], dim=1)
        logits = model(drawn[:, None], real, cache=cache, last_only=True)


@torch.no_grad()
def beam_search(
    model: GPT2,
    tokens: Tensor,
    max_new_tokens: int = 100,
    *,
    n_beams: int = 4,
    length_penalty: float = 1.0,
    attention_mask: Tensor | None = None,
    stop_tokens: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Look for the likeliest continuation, keeping `n_beams` of them in play.

    At every step each beam is continued with every token, and the best
    `n_beams` of these by their summed log-probability stay. A beam that has
    met a stop token stays as it is, and competes with the others.

    Args:
        model: As in `generate`, like all arguments that are not here.
        tokens: (B, T).
        max_new_tokens: The most tokens to add.
        n_beams: With 1, this is greedy decoding.
        length_penalty: In the end the beam is taken whose log-probability,
            divided by its length to this power, is highest. 0 compares sums,
            1 means.
        attention_mask: (B, T).
        stop_tokens: End a beam.

    Returns:
        The best sequence for each prompt, (B, T + new), filled up as by
        `generate`; and the log-probability of what was added, (B,), in nats.

    Raises:
        ValueError: As in `generate`.
        RuntimeError: As in `generate`.
    """
    if n_beams < 1:
        raise ValueError(f"n_beams must be 1 or more; got {n_beams}")
    if not math.isfinite(length_penalty):
        raise ValueError(
            f"length_penalty must be finite; got {length_penalty}"
        )
    n_new = _room(model, tokens, attention_mask, max_new_tokens)
    batch_size, n_prompt = tokens.shape
    stops = _stops(model, stop_tokens, tokens.device)
    real = None if attention_mask is None else attention_mask.bool()
    model = without_dropout(model)
    cache = model.new_cache(batch_size, n_prompt + n_new)
    logits = model(tokens, real, cache=cache, last_only=True)
    first = torch.arange(batch_size, device=tokens.device) * n_beams  # (B,)
    rows = torch.arange(batch_size, device=tokens.device)
    rows = rows.repeat_interleave(n_beams)  # (B * beams,)
    cache.select(rows)
    tokens, logits = tokens[rows], logits[rows]
    real = None if real is None else real[rows]
    # All beams of a prompt begin equal; only the first may be continued.
    scores = logits.new_full((len(rows),), -math.inf, dtype=torch.float32)
    scores[first] = 0.0
    ended = torch.zeros_like(rows, dtype=torch.bool)
    lengths = torch.zeros_like(rows)
    for step in range(n_new):
        steps = _numbers(logits).log_softmax(dim=-1)  # (B * beams, V)
        # What has ended goes on in one way, which costs nothing.
        steps[ended] = -math.inf
        steps[ended, tokens[ended, -1]] = 0.0
        totals = (scores[:, None] + steps).view(batch_size, -1)
        best = totals.topk(n_beams, dim=-1)  # over beams * V
        n_vocab = logits.size(-1)
        kept = (first[:, None] + best.indices // n_vocab).flatten()
        drawn = (best.indices % n_vocab).flatten()  # (B * beams,)
        scores = best.values.flatten()
        lengths = lengths[kept] + (~ended[kept]).long()
        ended = torch.isin(drawn, stops)
        tokens = torch.cat([tokens[kept], drawn[:, None]], dim=1)
        if step == n_new - 1 or bool(ended.all()):
            break
        cache.select(kept)
        if real is not None:
            real = torch.cat([real, torch.ones_like(real[:, :1])], dim=1)
        logits = model(drawn[:, None], real, cache=cache, last_only=True)
    finals = scores / lengths.clamp(min=1).float() ** length_penalty
    winners = first + finals.view(batch_size, -1).argmax(dim=-1)
    return tokens[winners], scores[winners]


def without_dropout(model: GPT2) -> GPT2:
    """Return a model in eval mode that shares its weights with this one.

    `model.eval()` would switch dropout off for everybody who uses the model:
    for a thread that trains it, and as long as somebody keeps a `stream` that
    is half read. And where two threads want it off, the first to be done would
    switch it on again for the other. So the model itself is not touched, and
    any number of threads may use one model, whatever mode it is in. (Where one
    of them trains it, the others see weights that change between two tokens.)

    Args:
        model: Left as it is. Where it is in training mode and `torch.compile`
            has compiled it, what is returned is not compiled.

    Returns:
        The same modules once more, with the same tensors and hooks; a forward
        hook that is added to it is its own.
    """
    if not isinstance(model, nn.Module):
        return model
    training = any(module.training for module in model.modules())
    return cast(GPT2, _twin(model, uncompiled=training))


def _twin(module: nn.Module, uncompiled: bool) -> nn.Module:
    if uncompiled:  # what is compiled would run the module it was made from
        module = getattr(module, "_orig_mod", module)
    if module.training and "forward" in vars(module):
        raise ValueError(
            f"the forward of a {type(module).__name__} was replaced, and may "
            f"run the module in training mode; call `model.eval()` first"
        )
    twin = object.__new__(type(module))
    vars(twin).update(vars(module))
    vars(twin).update(
        training=False,
        _forward_hooks=module._forward_hooks.copy(),
        _modules={
            name: None if inner is None else _twin(inner, uncompiled)
            for name, inner in module._modules.items()
        },
    )
    if uncompiled:
        vars(twin).pop("_compiled_call_impl", None)
    return twin


def _room(
    model: GPT2,
    tokens: Tensor,
    attention_mask: Tensor | None,
    max_new_tokens: int,
) -> int:
    """Check the prompts, and return how many tokens can be added to them."""
    if max_new_tokens < 0:
        raise ValueError(
            f"max_new_tokens must be 0 or more; got {max_new_tokens}"
        )
    if (
        tokens.dim() != 2
        or len(tokens) == 0
        or tokens.dtype not in (torch.int64, torch.int32)
    ):
        raise ValueError(
            "tokens must be int64 or int32 of shape (B, T), one row for each "
            "prompt and at least one; "
            f"got {tokens.dtype} of shape {tuple(tokens.shape)}"
        )
    check_ids(tokens, model.config.n_vocab, "tokens")
    if attention_mask is None:
        shortest = longest = tokens.size(1)
    elif attention_mask.shape != tokens.shape:
        raise ValueError(
            f"attention_mask must have the shape of tokens, "
            f"{tuple(tokens.shape)}; got {tuple(attention_mask.shape)}"
        )
    else:
        lengths = attention_mask.bool().sum(dim=-1)
        shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 1:
        raise ValueError(
            "an empty prompt has nothing to continue; begin with the "
            "tokenizer's end_of_text, as every text that GPT-2 was trained on"
        )
    n_ctx = model.config.n_ctx
    if longest > n_ctx:
        raise ValueError(
            f"the prompt has {longest} tokens, and the model reads at most "
            f"{n_ctx} (n_ctx); shorten it"
        )
    return min(max_new_tokens, n_ctx - longest)


def _stops(
    model: GPT2, stop_tokens: Sequence[int], device: torch.device
) -> Tensor:
    """Return the stop tokens as a tensor, (N,)."""
    ids = [operator.index(token) for token in stop_tokens]
    stops = torch.tensor(ids, dtype=torch.long, device=device)
    check_ids(stops, model.config.n_vocab, "stop_tokens")
    return stops


def seeded(
    seed: int | torch.Generator | None, device: torch.device
) -> torch.Generator | None:
    """Return a generator that starts from `seed`; None and generators stay.

    Raises:
        ValueError: The seed does not lie between 0 and 2**32 - 1. PyTorch's
            generator for the CPU takes seeds modulo 2**32, so of any two that
            differ by that, one would be no seed of its own.
    """
    if seed is None or isinstance(seed, torch.Generator):
        return seed
    number = operator.index(seed)
    if not 0 <= number < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1; got {number}")
    return torch.Generator(device).manual_seed(number)

"""Text in, text out: a prediction explained, and a continuation streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gpt2.model import GPT2
from gpt2.sampling import Sampling, seeded, stream, without_dropout
from gpt2.tokenizer.tokenizer import Tokenizer


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Return the ids of a prompt.

    An empty one stands for the beginning of a text, which to GPT-2 is what
    follows `<|endoftext|>`. Where the tokenizer asks for it (`add_bos_token`),
    every prompt is read as the beginning of a text.
    """
    return tokenizer.encode_prompt(prompt)


def complete(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int = 100,
    *,
    stop: Sequence[str] = (),
    seed: int | torch.Generator | None = None,
    **sampling: Any,
) -> Iterator[str]:
    """Yield a continuation of `prompt`, piece by piece, as it is drawn.

    It ends at `<|endoftext|>`, before any of the strings in `stop`, after
    `max_new_tokens` tokens, or where the model's positions end. A piece never
    holds half a character, nor the beginning of what turns out to be a stop.

    Args:
        model: Any GPT-2.
        tokenizer: The one it was trained with.
        prompt: Where to go on from; see `encode_prompt` for an empty one.
        max_new_tokens: The most tokens to add.
        stop: Strings to end at; they are not part of the continuation.
        seed: As in `gpt2.sampling.generate`.
        **sampling: The fields of `gpt2.sampling.Sampling`.

    Raises:
        ValueError: The prompt is too long, a stop is empty, or a setting is
            out of its range.
    """
    device = model.device
    ids = torch.tensor([encode_prompt(tokenizer, prompt)], device=device)
    drawn = stream(
        model,
        ids,
        max_new_tokens,
        stop_tokens=[tokenizer.end_of_text],
        seed=seed,
        **sampling,
    )
    new = (int(token) for token in drawn)
    shown = (token for token in new if token != tokenizer.end_of_text)
    return until(tokenizer.stream(shown), stop)


def until(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """Pass pieces of text on, up to the first of the strings in `stop`.

    The first is the one that begins first, however the text is cut into
    pieces. So what may be the beginning of one is held back until it is
    decided.

    Raises:
        ValueError: `stop` is a string, or has an empty one in it.
    """
    if isinstance(stop, str) or not all(stop):
        raise ValueError(
            f"stop must be a list of strings that are not empty; got {stop!r}"
        )
    return _until(pieces, stop)


def _until(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """Do what `until` promises, with stops that it has checked."""
    held = ""
    for piece in pieces:
        held += piece
        may_begin = (
            i
            for i in range(len(held))
            if any(
                held.startswith(s, i) or s.startswith(held[i:]) for s in stop
            )
        )
        at = next(may_begin, len(held))
        if at:
            yield held[:at]
        held = held[at:]
        if held.startswith(tuple(stop)):
            return
    # Nothing more comes, so what has only begun is no stop.
    found = (held.find(s) for s in stop if s in held)
    if held := held[: min(found, default=len(held))]:
        yield held


@dataclass(frozen=True)
class Candidate:
    """A token that may come next."""

    id: int
    text: str
    logit: float
    """As the model gives it."""
    probability: float
    """The softmax of the logits, before any filter."""
    chance: float
    """With which it is drawn, after all filters."""


@dataclass(frozen=True)
class Prediction:
    """What a model makes of a prompt."""

    ids: tuple[int, ...]
    """The prompt's token ids."""
    texts: tuple[str, ...]
    """The same, as text; a token that is half a character shows as U+FFFD."""
    candidates: tuple[Candidate, ...]
    """The likeliest next tokens, the likeliest first."""
    sampled: Candidate
    """The one that was drawn."""


@torch.no_grad()
def predict(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str,
    n_candidates: int = 10,
    *,
    seed: int | torch.Generator | None = None,
    **sampling: Any,
) -> Prediction:
    """Go the whole way from a text to the token that may follow it.

    Args:
        model: Any GPT-2.
        tokenizer: The one it was trained with.
        prompt: The text; see `encode_prompt` for an empty one.
        n_candidates: How many of the likeliest tokens to name.
        seed: As in `gpt2.sampling.generate`.
        **sampling: The fields of `gpt2.sampling.Sampling`.

    Raises:
        ValueError: The prompt is too long, or a setting is out of its range.
    """
    ids = encode_prompt(tokenizer, prompt)
    tokens = torch.tensor([ids], device=model.device)
    settings = Sampling(**sampling)
    model = without_dropout(model)
    logits = model(tokens, last_only=True).float()  # (1, V)
    chances = settings.filter(logits, tokens).softmax(dim=-1)[0]  # (V,)
    generator = seeded(seed, tokens.device)
    token = settings.choose(logits, tokens, generator=generator)
    probabilities = logits.softmax(dim=-1)[0]  # (V,)

    def candidate(token_id: int) -> Candidate:
        return Candidate(
            token_id,
            tokenizer.decode([token_id]),
            float(logits[0, token_id]),
            float(probabilities[token_id]),
            float(chances[token_id]),
        )

    top = logits[0].topk(min(n_candidates, logits.size(-1))).indices
    return Prediction(
        tuple(ids),
        tuple(tokenizer.decode([token_id]) for token_id in ids),
        tuple(candidate(token_id) for token_id in top.tolist()),
        candidate(int(token)),
    )

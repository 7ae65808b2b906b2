"""Beam search: an approximate search for the likeliest continuation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gpt2.generation import Continuations
from gpt2.model import LanguageModel
from gpt2.sampling import finite


@torch.no_grad()
def beam_search(
    model: LanguageModel,
    tokens: Tensor,
    max_new_tokens: int = 100,
    *,
    n_beams: int = 4,
    length_penalty: float = 1.0,
    attention_mask: Tensor | None = None,
    stop_tokens: Sequence[int] = (),
    n_vocab: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Search for the likeliest continuation, keeping the best `n_beams`.

    Each step extends every beam of a prompt by every token and keeps the
    `n_beams` results with the highest sum of log-probabilities. A beam that
    has drawn a stop token stays as it is and competes with the others.

    Args:
        model: As for `generate`, like the arguments not described here.
        tokens: (B, T).
        max_new_tokens: The most tokens to add.
        n_beams: How many beams to keep; 1 is greedy decoding.
        length_penalty: The result is the beam with the highest
            log-probability divided by its number of added tokens to this
            power: 0 compares sums, 1 means.
        attention_mask: (B, T).
        stop_tokens: Ids that end a beam.
        n_vocab: The number of tokens.

    Returns:
        The best sequence for each prompt, (B, T + new), filled as by
        `generate`, and the log-probability of the tokens added to it, (B,) of
        float32, in nats.

    Raises:
        ValueError: As `generate`; or `n_beams` is below 1, or
            `length_penalty` is not finite.
        RuntimeError: As `generate`.
    """
    if n_beams < 1:
        raise ValueError(f"n_beams must be 1 or more; got {n_beams}")
    if not math.isfinite(length_penalty):
        raise ValueError(
            f"length_penalty must be finite; got {length_penalty}"
        )
    running = Continuations(
        model,
        tokens,
        max_new_tokens,
        attention_mask,
        stop_tokens,
        n_beams,
        n_vocab,
    )
    beams = Beams(len(tokens), n_beams, tokens.device)
    for _ in range(running.n_new):
        logits = running.next_logits()  # (B * n_beams, V)
        rows, drawn = beams.extend(logits, running.tokens[:, -1])
        running.select(rows)
        running.append(drawn)
        beams.ended = torch.isin(drawn, running.stops)
        if bool(beams.ended.all()):
            break
    best = beams.best(length_penalty)
    return running.tokens[best], beams.scores[best]


class Beams:
    """The scores of `n_beams` sequences for each prompt.

    Attributes:
        scores: (B * n_beams,) of float32, log-probabilities in nats.
        lengths: (B * n_beams,) of int64, how many tokens were added.
        ended: (B * n_beams,) of bool, true where a stop token was drawn.
    """

    def __init__(
        self, n_prompts: int, n_beams: int, device: torch.device
    ) -> None:
        """Begin with `n_beams` empty continuations of each prompt."""
        n_rows = n_prompts * n_beams
        self.first = torch.arange(0, n_rows, n_beams, device=device)  # (B,)
        # The beams of a prompt begin equal, so only the first is extended.
        self.scores = torch.full((n_rows,), -math.inf, device=device)
        self.scores[self.first] = 0.0
        self.lengths = torch.zeros_like(self.scores, dtype=torch.long)
        self.ended = torch.zeros_like(self.scores, dtype=torch.bool)

    def extend(self, logits: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Find the best extensions of the beams of each prompt.

        Args:
            logits: (B * n_beams, V), of each beam's next token.
            last: (B * n_beams,), each beam's last token.

        Returns:
            For each new beam the row that it extends and the token that it
            adds, each (B * n_beams,) of int64.
        """
        steps = finite(logits).log_softmax(dim=-1)  # (B * n_beams, V)
        # A beam that has ended repeats its last token, at no cost.
        steps[self.ended] = -math.inf
        steps[self.ended, last[self.ended]] = 0.0
        n_prompts, n_vocab = len(self.first), logits.size(-1)
        n_beams = len(logits) // n_prompts
        totals = (self.scores[:, None] + steps).view(n_prompts, -1)
        best = totals.topk(n_beams, dim=-1)  # of n_beams * V
        rows = (self.first[:, None] + best.indices // n_vocab).flatten()
        self.scores = best.values.flatten()
        self.lengths = self.lengths[rows] + (~self.ended[rows]).long()
        return rows, (best.indices % n_vocab).flatten()

    def best(self, length_penalty: float) -> Tensor:
        """Return the row of each prompt's best beam: (B,) of int64."""
        lengths = self.lengths.clamp(min=1).float()
        finals = self.scores / lengths**length_penalty
        return self.first + finals.view(len(self.first), -1).argmax(dim=-1)

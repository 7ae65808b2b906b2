"""GPT-2: embeddings, layers, a final norm, and the embeddings once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.attention import padding_mask
from gpt2.cache import KeyValueCache
from gpt2.config import GPT2Config
from gpt2.embeddings import Embedding, positions_of
from gpt2.layer import GPT2Layer
from gpt2.layer_norm import LayerNorm


class LanguageModel(Protocol):
    """What generation and evaluation ask of a model.

    `GPT2` is one, and so is the packed model of `gpt2.inference`.
    """

    config: GPT2Config

    @property
    def device(self) -> torch.device:
        """Where the token ids have to be."""

    def __call__(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        *,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Return logits, as `GPT2.forward` does."""

    def new_cache(
        self, batch_size: int, n_positions: int | None = None
    ) -> KeyValueCache:
        """Reserve a cache for sequences of up to `n_positions` tokens."""


class GPT2(nn.Module):
    """The whole model, from token ids to logits.

    Its state dict is a GPT-2 checkpoint, key for key and shape for shape:
    `wte` is the table of token embeddings, `wpe` that of the positions, `h`
    the layers, `ln_f` the final norm. There is no output matrix: the logit of
    a token is the dot product of the last hidden state with that token's
    embedding. Radford et al. (2019), section 2.3; openai/gpt-2 `src/model.py`.

    A new model is random, drawn as GPT-2 was from PyTorch's generator
    (`torch.manual_seed`), and, like every module, in training mode: call
    `eval()` to switch dropout off.
    """

    def __init__(self, config: GPT2Config) -> None:
        """Build the model that `config` describes."""
        super().__init__()
        self.config = config
        self.wte = Embedding(config.n_vocab, config.n_embd)
        self.wpe = Embedding(config.n_ctx, config.n_embd, std=0.01)
        self.drop = nn.Dropout(config.embd_dropout)
        self.h = nn.ModuleList(
            GPT2Layer(config) for _ in range(config.n_layer)
        )
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)

    @property
    def device(self) -> torch.device:
        """The device of the weights, where the token ids have to be."""
        return self.wte.weight.device

    def forward(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        *,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Return the logits of the token that follows each position.

        Args:
            tokens: (B, T) token ids.
            attention_mask: (B, S), true or 1 for a token, false or 0 for
                padding, on any side. S is T, or with a cache the positions it
                holds plus T. None: no padding. The logits at padding mean
                nothing.
            cache: Memory of earlier positions, from `new_cache`; the new ones
                are added.
            last_only: Compute only the logits after each sequence's last
                token, which is all that generation needs.

        Returns:
            (B, T, V), or with `last_only` (B, V).

        Raises:
            ValueError: The shapes do not go together, a token id is not in the
                vocabulary, or there are more positions than `n_ctx`.
        """
        hidden = self.hidden_states(tokens, attention_mask, cache)  # (B, T, C)
        if last_only:
            last = last_tokens(tokens, attention_mask)  # (B,)
            hidden = hidden[torch.arange(len(last), device=last.device), last]
        return self.unembed(hidden)  # (B, T, V) or (B, V)

    def unembed(self, hidden: Tensor) -> Tensor:
        """Compare each vector with every token's: (..., C) to (..., V)."""
        return F.linear(hidden, self.wte.weight)

    def hidden_states(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the stream after the final norm; arguments as in `forward`.

        Returns:
            (B, T, C).
        """
        past = 0 if cache is None else cache.length
        positions, mask = self.positions_and_mask(tokens, attention_mask, past)
        x = self.drop(self.wte(tokens) + self.wpe(positions))  # (B, T, C)
        memory = None if cache is None else cache.of_layers(len(self.h))
        for i, layer in enumerate(self.h):
            x = layer(x, mask, None if memory is None else memory[i])
        return self.ln_f(x)

    def positions_and_mask(
        self, tokens: Tensor, attention_mask: Tensor | None, past: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return where each token stands, and the mask that hides padding.

        Args:
            tokens: (B, T).
            attention_mask: (B, past + T) or None.
            past: How many positions the cache holds.

        Returns:
            Positions, (T,) or (B, T), and a mask (B, 1, T, past + T), or None
            where there is no padding.
        """
        check_tokens(tokens, attention_mask, past)
        n_new, n_ctx = tokens.size(1), self.config.n_ctx
        n_tokens, mask = past + n_new, None
        positions = torch.arange(past, n_tokens, device=tokens.device)
        if attention_mask is not None:
            positions = positions_of(attention_mask)[:, past:]  # (B, T)
            mask = padding_mask(attention_mask, n_new)
            # Only where it could be too long: `max` makes the CPU wait for a
            # GPU.
            if n_tokens > n_ctx:
                n_tokens = int(positions.max()) + 1
        if n_tokens > n_ctx:
            raise ValueError(
                f"the model has {n_ctx} positions (n_ctx), and {n_tokens} "
                "tokens do not fit"
            )
        return positions, mask

    def new_cache(
        self, batch_size: int, n_positions: int | None = None
    ) -> KeyValueCache:
        """Reserve a cache for sequences of up to `n_positions` tokens."""
        weight = self.wte.weight
        return KeyValueCache(
            self.config, batch_size, n_positions, weight.dtype, weight.device
        )

    def num_parameters(self) -> int:
        """Count the parameters; the tied output is `wte` and counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


def check_tokens(
    tokens: Tensor, attention_mask: Tensor | None, past: int
) -> None:
    """Refuse what is not a batch of tokens, or a mask that does not fit it.

    Raises:
        ValueError: The tokens are not whole numbers (B, T), or the mask is not
            (B, past + T).
    """
    whole = tokens.dtype in (torch.int64, torch.int32)
    if not whole or tokens.dim() != 2 or tokens.size(1) == 0:
        raise ValueError(
            "tokens must be int64 or int32 of shape (B, T) with T at least 1; "
            f"got {tokens.dtype} of shape {tuple(tokens.shape)}"
        )
    shape = (tokens.size(0), past + tokens.size(1))
    if attention_mask is not None and attention_mask.shape != shape:
        raise ValueError(
            f"attention_mask must have shape {shape}, one entry for each "
            f"token{' including those in the cache' if past else ''}; got "
            f"{tuple(attention_mask.shape)}"
        )


def last_tokens(
    tokens: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Return the column of each sequence's last token, passing over padding.

    A sequence that has nothing but padding among these columns gets the last
    column. Returns (B,).
    """
    n_new, real = tokens.size(1), torch.ones_like(tokens)  # (B, T)
    if attention_mask is not None:
        real = attention_mask[:, -n_new:].long()
    # Of several maxima, argmax finds the first: how much padding is behind.
    return n_new - 1 - real.flip(-1).argmax(dim=-1)


def next_token_loss(
    model: nn.Module,
    tokens: Tensor,
    attention_mask: Tensor | None = None,
    cross_entropy: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    r"""Return the mean surprise at each next token.

    The surprise is $-\log p(x_{t+1} \mid x_0 \ldots x_t)$, in nats.

    The one place where targets are shifted: the model reads all tokens but the
    last and is asked for all but the first. It is called as `model(tokens,
    attention_mask)`, so that a wrapped or compiled one will do.

    Args:
        model: Maps (B, T) to logits (B, T, V).
        tokens: (B, T + 1).
        attention_mask: (B, T + 1), true or 1 for a token. A prediction counts
            where both the token it is made from and the token it is for are
            real.
        cross_entropy: Maps logits (N, V) and targets (N,), -100 where nothing
            is to be predicted, to the mean. None: PyTorch's, in float32.

    Returns:
        A scalar, in nats per token; float32 even where the logits are not.

    Raises:
        ValueError: There is nothing to predict.
    """
    inputs, targets = [tokens[:, :-1]], tokens[:, 1:].long()
    if attention_mask is not None:
        counts = attention_mask[:, :-1].bool() & attention_mask[:, 1:].bool()
        if not counts.any():
            raise ValueError(
                "nothing to predict: no token has a real one before it"
            )
        targets = targets.masked_fill(~counts, IGNORED)
        inputs.append(attention_mask[:, :-1])
    logits = model(*inputs).flatten(0, 1)  # (B * T, V)
    if cross_entropy is not None:
        return cross_entropy(logits, targets.flatten())
    return F.cross_entropy(
        logits.float(), targets.flatten(), ignore_index=IGNORED
    )


IGNORED = -100
"""A target that is not to be predicted."""

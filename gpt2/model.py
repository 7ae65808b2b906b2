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
    """What generation and evaluation need of a model.

    `GPT2` is one, and so is the packed model of `gpt2.inference`.
    """

    config: GPT2Config

    @property
    def device(self) -> torch.device:
        """The device that the token ids must be on."""

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
        """Reserve a cache, as `GPT2.new_cache` does."""


class GPT2(nn.Module):
    """The whole model, from token ids to logits.

    Its state dict is a GPT-2 checkpoint, key for key and shape for shape:
    `wte` is the table of token embeddings, `wpe` that of the positions, `h`
    the layers, `ln_f` the final norm. There is no output matrix: the logit of
    a token is the dot product of the last hidden state with that token's
    embedding. Radford et al. (2019), section 2.3; openai/gpt-2 `src/model.py`.

    The weights of a new model are drawn from GPT-2's distributions, by
    PyTorch's generator (`torch.manual_seed`). Like every new module, it is in
    training mode: call `eval()` to turn dropout off.
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
        """The device of the weights, which the token ids must be on."""
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
            tokens: (B, T) token ids, int64 or int32.
            attention_mask: (B, S), any dtype; true or 1 for a token, false or
                0 for padding, on any side. S is T, plus the length of the
                cache. None means no padding. Logits at padding mean nothing.
            cache: The keys and values of earlier positions, from `new_cache`;
                the new ones are appended to it.
            last_only: Compute only the logits after each sequence's last
                token, which is all that generation needs.

        Returns:
            (B, T, V), or (B, V) with `last_only`, the dtype of the weights.

        Raises:
            ValueError: The tokens are not (B, T), the mask or the cache does
                not match them, a token id is not in the vocabulary, or there
                are more tokens than `n_ctx`.
        """
        hidden = self.hidden_states(tokens, attention_mask, cache)  # (B, T, C)
        if last_only:
            last = last_tokens(tokens, attention_mask)  # (B,)
            hidden = hidden[torch.arange(len(last), device=last.device), last]
        return self.unembed(hidden)  # (B, T, V) or (B, V)

    def unembed(self, hidden: Tensor) -> Tensor:
        """Multiply by the token embeddings: (..., C) to logits (..., V)."""
        return F.linear(hidden, self.wte.weight)

    def hidden_states(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the residual stream after the final norm.

        Args:
            tokens: As in `forward`.
            attention_mask: As in `forward`.
            cache: As in `forward`.

        Returns:
            (B, T, C), the dtype of the weights.

        Raises:
            ValueError: As in `forward`.
        """
        past = 0 if cache is None else cache.length
        positions, mask = self.positions_and_mask(tokens, attention_mask, past)
        x = self.drop(self.wte(tokens) + self.wpe(positions))  # (B, T, C)
        n = len(self.h)
        caches = [None] * n if cache is None else cache.of_layers(n)
        for layer, layer_cache in zip(self.h, caches, strict=True):
            x = layer(x, mask, layer_cache)
        return self.ln_f(x)

    def positions_and_mask(
        self, tokens: Tensor, attention_mask: Tensor | None, past: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return the position of each token, and the mask that hides padding.

        Args:
            tokens: (B, T), int64 or int32.
            attention_mask: (B, past + T), any dtype, or None.
            past: The number of positions in the cache.

        Returns:
            Positions, (T,) or (B, T) of int64, and a boolean mask (B, 1, T,
            past + T), or None where there is no padding.

        Raises:
            ValueError: The tokens are not (B, T), the mask does not match
                them, or there are more tokens than `n_ctx`.
        """
        check_tokens(tokens, attention_mask, past)
        n_new, n_ctx = tokens.size(1), self.config.n_ctx
        if attention_mask is None:
            positions = torch.arange(past, past + n_new, device=tokens.device)
            mask = None
        else:
            positions = positions_of(attention_mask)[:, past:]  # (B, T)
            mask = padding_mask(attention_mask, n_new)
        # Check only when it could be too long: `max` makes the CPU wait for
        # the GPU.
        if past + n_new > n_ctx and (last := int(positions.max())) >= n_ctx:
            raise ValueError(
                f"the model has {n_ctx} positions (n_ctx), and {last + 1} "
                "tokens do not fit"
            )
        return positions, mask

    def new_cache(
        self, batch_size: int, n_positions: int | None = None
    ) -> KeyValueCache:
        """Reserve a cache that fits this model.

        Args:
            batch_size: B, the number of sequences.
            n_positions: The most tokens in a sequence, padding included; None
                means `n_ctx`.
        """
        weight = self.wte.weight
        return KeyValueCache(
            self.config, batch_size, n_positions, weight.dtype, weight.device
        )

    def num_parameters(self) -> int:
        """Count the parameters; the tied output is `wte` and counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def extra_repr(self) -> str:
        """Show what `repr` says beside the parts."""
        n_ctx = self.config.n_ctx
        return f"{self.num_parameters():,} parameters, n_ctx={n_ctx}"


def check_tokens(
    tokens: Tensor, attention_mask: Tensor | None, past: int
) -> None:
    """Raise an error unless the tokens are a batch, and the mask matches it.

    Args:
        tokens: Must be (B, T), int64 or int32, with T at least 1.
        attention_mask: Must be (B, past + T), or None.
        past: The number of positions in the cache.

    Raises:
        ValueError: They are something else.
    """
    whole = (torch.int64, torch.int32)
    is_ids = isinstance(tokens, Tensor) and tokens.dtype in whole
    if not is_ids or tokens.dim() != 2 or tokens.size(1) == 0:
        raise ValueError(
            "tokens must be an int64 or int32 tensor (B, T) with T at least 1 "
            f"(for a list of ids: `torch.tensor([ids])`); got {shown(tokens)}"
        )
    if attention_mask is None:
        return
    shape = (tokens.size(0), past + tokens.size(1))
    if not isinstance(attention_mask, Tensor) or attention_mask.shape != shape:
        raise ValueError(
            f"attention_mask must be a tensor of shape {shape}, which counts "
            f"the tokens in the cache too; got {shown(attention_mask)}"
        )


def shown(value: object) -> str:
    """Describe an argument in a message: its shape, or the start of it."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"{value!r:.60}"


def last_tokens(
    tokens: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Return the index of each sequence's last token, skipping padding.

    Args:
        tokens: (B, T), int64 or int32.
        attention_mask: (B, S), any dtype, whose last T columns belong to the
            tokens. None means no padding.

    Returns:
        (B,) of int64. A row that is all padding gets T - 1.
    """
    n_new, real = tokens.size(1), torch.ones_like(tokens)  # (B, T)
    if attention_mask is not None:
        real = attention_mask[:, -n_new:].long()
    # Of several maxima, argmax returns the first: the length of the padding at
    # the end.
    return n_new - 1 - real.flip(-1).argmax(dim=-1)


IGNORED = -100
"""The target where nothing is predicted, as in `F.cross_entropy`."""


def next_token_loss(
    model: Callable[..., Tensor],
    tokens: Tensor,
    attention_mask: Tensor | None = None,
    cross_entropy: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    r"""Return the mean surprise at each next token.

    The surprise is $-\log p(x_{t+1} \mid x_0 \ldots x_t)$, in nats.

    This is the one place where targets are shifted: the model reads all tokens
    but the last, and predicts all but the first.

    Args:
        model: Called as `model(tokens)` or `model(tokens, attention_mask)`,
            returns logits (B, T, V). It may be wrapped or compiled.
        tokens: (B, T + 1), int64 or int32.
        attention_mask: (B, T + 1), any dtype; true or 1 for a token, false or
            0 for padding. A prediction counts if both the token that it
            follows and the token that it predicts are real.
        cross_entropy: Maps logits (N, V) and int64 targets (N,), which are
            -100 where nothing is predicted, to their mean. None means
            PyTorch's, in float32.

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
                "nothing to predict: no token follows another without padding "
                "in between"
            )
        targets = targets.masked_fill(~counts, IGNORED)
        inputs.append(attention_mask[:, :-1])
    logits = model(*inputs).flatten(0, 1)  # (B * T, V)
    if cross_entropy is not None:
        return cross_entropy(logits, targets.flatten())
    return F.cross_entropy(logits.float(), targets.flatten())

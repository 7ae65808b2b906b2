"""From one token to many: the loop that continues prompts."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gpt2.dropout import without_dropout
from gpt2.embeddings import check_ids
from gpt2.model import LanguageModel
from gpt2.sampling import Sampling, seeded


def generate(
    model: LanguageModel,
    tokens: Tensor,
    max_new_tokens: int = 100,
    sampling: Sampling = Sampling(),
    *,
    attention_mask: Tensor | None = None,
    n_samples: int = 1,
    stop_tokens: Sequence[int] = (),
    n_vocab: int | None = None,
    seed: int | torch.Generator | None = None,
) -> Tensor:
    """Continue each prompt, one token at a time.

    Args:
        model: Runs without dropout and is not changed; see `without_dropout`.
        tokens: (B, T), int64 or int32: the prompts.
        max_new_tokens: The most tokens to add to each prompt. Fewer are added
            if the longest prompt and the new tokens would not fit in `n_ctx`.
        sampling: How each token is drawn.
        attention_mask: (B, T), true or 1 for a token, false or 0 for padding,
            on either side. None: no padding.
        n_samples: How many continuations of each prompt.
        stop_tokens: Ids that end a sequence when they are drawn.
        n_vocab: The number of tokens, if the model's table is padded beyond
            them: the model then generates as if it had no further rows. Pass
            the tokenizer's `n_vocab`. None, or too large: every row.
        seed: A number below 2**32, or a generator on the device of `tokens`:
            the same call then gives the same tokens. None: PyTorch's default
            generator.

    Returns:
        (B * n_samples, T + new), the prompts with what was added to them; the
        samples of one prompt are adjacent. A sequence that has ended repeats
        its stop token.

    Raises:
        ValueError: `tokens` is not such a tensor, a prompt is empty or longer
            than `n_ctx`, an id in `tokens` or `stop_tokens` is not in the
            vocabulary, or a number is out of its range.
        RuntimeError: The model's logits are not finite.
    """
    added = stream(
        model,
        tokens,
        max_new_tokens,
        sampling,
        attention_mask=attention_mask,
        n_samples=n_samples,
        stop_tokens=stop_tokens,
        n_vocab=n_vocab,
        seed=seed,
    )
    columns = [token[:, None] for token in added]  # (B * n_samples, 1) each
    return torch.cat([tokens.repeat_interleave(n_samples, 0), *columns], dim=1)


def stream(
    model: LanguageModel,
    tokens: Tensor,
    max_new_tokens: int = 100,
    sampling: Sampling = Sampling(),
    *,
    attention_mask: Tensor | None = None,
    n_samples: int = 1,
    stop_tokens: Sequence[int] = (),
    n_vocab: int | None = None,
    seed: int | torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield the tokens that `generate` adds: (B * n_samples,), int64, a step.

    Arguments and errors are those of `generate`. A ValueError is raised by the
    call itself; the model runs each time the next step is requested.
    """
    running = Continuations(
        model,
        tokens,
        max_new_tokens,
        attention_mask,
        stop_tokens,
        n_samples,
        n_vocab,
    )
    generator = seeded(seed, tokens.device)

    @torch.no_grad()
    def steps() -> Iterator[Tensor]:
        ended = torch.zeros_like(running.tokens[:, 0], dtype=torch.bool)
        for _ in range(running.n_new):
            logits = running.next_logits()  # (B * n_samples, V)
            drawn = sampling.choose(
                logits, running.tokens, running.real, generator
            )
            drawn = torch.where(ended, running.tokens[:, -1], drawn)
            running.append(drawn)
            yield drawn
            if len(running.stops):  # `bool` makes the CPU wait for a GPU
                ended = torch.isin(drawn, running.stops)
                if bool(ended.all()):
                    return

    return steps()


class Continuations:
    """The sequences that a model is continuing, and its cache of them.

    Attributes:
        n_new: How many tokens may be added.
        tokens: (B * n_samples, S), the prompts and what has been added.
        real: (B * n_samples, S) of bool, false at padding; None: no padding.
        stops: (N,) of int64, the ids that end a sequence.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: Tensor,
        max_new_tokens: int,
        attention_mask: Tensor | None,
        stop_tokens: Sequence[int],
        n_samples: int,
        n_vocab: int | None,
    ) -> None:
        """Check the arguments, those of `generate`, and reserve the cache."""
        if n_samples < 1:
            raise ValueError(f"n_samples must be 1 or more; got {n_samples}")
        if n_vocab is not None and n_vocab < 1:
            raise ValueError(f"n_vocab must be 1 or more; got {n_vocab}")
        self.n_new = room(model, tokens, attention_mask, max_new_tokens)
        n_rows = model.config.n_vocab
        self._n_vocab = n_rows if n_vocab is None else min(n_vocab, n_rows)
        check_ids(tokens, self._n_vocab, "tokens")
        stops = [operator.index(token) for token in stop_tokens]
        self.stops = torch.tensor(
            stops, dtype=torch.long, device=tokens.device
        )
        check_ids(self.stops, self._n_vocab, "stop_tokens")
        self.tokens = tokens.repeat_interleave(n_samples, dim=0)
        self.real: Tensor | None = None
        if attention_mask is not None:
            self.real = attention_mask.bool().repeat_interleave(n_samples, 0)
        self._model = without_dropout(model)
        self._n_samples, (batch_size, self._n_prompt) = n_samples, tokens.shape
        n_positions = self._n_prompt + self.n_new
        self._cache = self._model.new_cache(batch_size, n_positions)

    def next_logits(self) -> Tensor:
        """Run the model on what its cache lacks: (B * n_samples, V)."""
        if self.tokens.size(1) > self._n_prompt:
            return self._run(self.tokens[:, -1:], self.real)
        # Each prompt is read once, however many continuations it gets.
        n = self._n_samples
        real = None if self.real is None else self.real[::n]
        logits = self._run(self.tokens[::n], real)  # (B, V)
        if n == 1:
            return logits
        rows = torch.arange(len(logits), device=logits.device)
        rows = rows.repeat_interleave(n)  # (B * n_samples,)
        self._cache.select(rows)
        return logits[rows]

    def _run(self, tokens: Tensor, real: Tensor | None) -> Tensor:
        logits = self._model(tokens, real, cache=self._cache, last_only=True)
        return logits[:, : self._n_vocab]  # no rows without a token

    def append(self, drawn: Tensor) -> None:
        """Add one token to each sequence, (B * n_samples,) of int64."""
        self.tokens = torch.cat([self.tokens, drawn[:, None]], dim=1)
        if self.real is not None:
            new = torch.ones_like(self.real[:, :1])
            self.real = torch.cat([self.real, new], dim=1)

    def select(self, rows: Tensor) -> None:
        """Replace the sequences by these rows, (B * n_samples,) of int64."""
        self._cache.select(rows)
        self.tokens = self.tokens[rows]
        self.real = None if self.real is None else self.real[rows]


def room(
    model: LanguageModel,
    tokens: Tensor,
    attention_mask: Tensor | None,
    max_new_tokens: int,
) -> int:
    """Check prompts, and return how many tokens may be added to them.

    Raises:
        ValueError: As `generate`.
    """
    if max_new_tokens < 0:
        raise ValueError(
            f"max_new_tokens must be 0 or more; got {max_new_tokens}"
        )
    check_batch(tokens)
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
            "a prompt is empty; begin with the tokenizer's end_of_text, the "
            "token before every text in GPT-2's training data"
        )
    n_ctx = model.config.n_ctx
    if longest > n_ctx:
        raise ValueError(
            f"the prompt has {longest} tokens, and the model reads at most "
            f"{n_ctx} (n_ctx); shorten it"
        )
    return min(max_new_tokens, n_ctx - longest)


def check_batch(tokens: object) -> None:
    """Refuse what is not a batch of prompts, and name the call that makes one.

    Raises:
        ValueError: `tokens` is not an int64 or int32 tensor (B, T).
    """
    got, instead = f"a {type(tokens).__name__}", ""
    if isinstance(tokens, Tensor):
        whole = tokens.dtype in (torch.int64, torch.int32)
        if whole and tokens.dim() == 2 and len(tokens) > 0:
            return
        got = f"{tokens.dtype} of shape {tuple(tokens.shape)}"
        if tokens.dim() == 1:
            instead = "; tokens[None] adds the batch axis"
    elif isinstance(tokens, Sequence) and tokens:
        instead = "; torch.tensor([ids]) makes a batch of one list of ids"
        if isinstance(tokens[0], str):
            instead = "; gpt2.complete continues a text"
        elif isinstance(tokens[0], Sequence):
            instead = (
                "; tokens, attention_mask = gpt2.data.pad(lists) makes a "
                "batch of lists of ids, whatever their lengths"
            )
    raise ValueError(
        "tokens must be int64 or int32 of shape (B, T), one row for each "
        f"prompt and at least one; got {got}{instead}"
    )

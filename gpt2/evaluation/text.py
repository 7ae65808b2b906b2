"""Losses and benchmark scores that are also published for other models.

Texts are read as in training: the name of a special token in them means the
token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2.data import pad
from gpt2.dropout import without_dropout
from gpt2.embeddings import check_ids
from gpt2.model import LanguageModel
from gpt2.progress import track
from gpt2.texts import split_documents
from gpt2.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Score:
    """The log-probabilities of N tokens of one sequence."""

    log_probabilities: Tensor
    """(N,) float32: of each token given those before it, in nats."""
    likeliest: Tensor
    """(N,) bool: true where no other token was more likely."""

    @property
    def nats(self) -> float:
        """The loss: the sum of -log p over the tokens, in nats."""
        return -float(self.log_probabilities.double().sum())

    def __repr__(self) -> str:
        return f"Score(n_tokens={len(self.likeliest)}, nats={self.nats:.4f})"


def score(
    model: LanguageModel,
    sequences: Sequence[Sequence[int]],
    batch_size: int = 16,
    *,
    n_last: Sequence[int] | None = None,
    n_vocab: int | None = None,
) -> Iterator[Score]:
    """Score sequences of up to `n_ctx + 1` tokens, one by one.

    The softmax is over all rows of the model's table, as in training, even if
    the table is padded beyond the tokenizer's tokens.

    Args:
        model: A `GPT2` or a packed model; runs without dropout.
        sequences: Token ids, at least two in each sequence.
        batch_size: How many sequences go through the model together. They are
            padded, which does not change the scores.
        n_last: How many tokens at the end of each sequence to score. None:
            all but the first, which has no context.
        n_vocab: The number of tokens, which `likeliest` is decided among; as
            for `gpt2.generate`.

    Returns:
        An iterator of one `Score` per sequence; the model runs as it is read.

    Raises:
        ValueError: A sequence is too short or too long, an id is not in the
            vocabulary, `batch_size` is below 1 or an `n_last` out of range.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more; got {batch_size}")
    if n_last is None:
        n_last = [len(sequence) - 1 for sequence in sequences]
    longest = model.config.n_ctx + 1
    for sequence, n in zip(sequences, n_last, strict=True):
        if not 2 <= len(sequence) <= longest:
            raise ValueError(
                f"a sequence to score must have 2 to {longest} tokens; got "
                f"{len(sequence)}"
            )
        if not 1 <= n < len(sequence):
            raise ValueError(
                f"n_last must be from 1 to {len(sequence) - 1} for a sequence "
                f"of {len(sequence)} tokens; got {n}"
            )
        check_ids(torch.tensor(sequence), model.config.n_vocab, "tokens")
    return _scores(model, sequences, batch_size, n_last, n_vocab)


@torch.no_grad()
def _scores(
    model: LanguageModel,
    sequences: Sequence[Sequence[int]],
    batch_size: int,
    n_last: Sequence[int],
    n_vocab: int | None,
) -> Iterator[Score]:
    """Run the model and yield scores; `score` has checked the arguments."""
    model = without_dropout(model)
    for first in range(0, len(sequences), batch_size):
        batch = slice(first, first + batch_size)
        tokens, mask = (
            part.to(model.device) for part in pad(sequences[batch])
        )
        logits = model(tokens[:, :-1], mask[:, :-1]).float()  # (B, T, V)
        targets = tokens[:, 1:, None]  # (B, T, 1)
        log_p = logits.log_softmax(dim=-1).gather(-1, targets).squeeze(-1)
        best = logits[..., :n_vocab].argmax(dim=-1)  # (B, T)
        likeliest = best == targets.squeeze(-1)  # (B, T)
        ends = mask.sum(dim=-1) - 1  # (B,), where the padding begins
        for row, (end, n) in enumerate(
            zip(ends.tolist(), n_last[batch], strict=True)
        ):
            scored = row, slice(end - n, end)
            yield Score(log_p[scored].cpu(), likeliest[scored].cpu())


@dataclass(frozen=True)
class TextLoss:
    """The loss on a text."""

    nats: float
    """The sum of -log p over all tokens, in nats."""
    n_tokens: int
    n_bytes: int
    """The length of the documents in UTF-8. An `<|endoftext|>` that separates
    them is no text: neither its bytes nor its prediction count."""

    @property
    def nats_per_token(self) -> float:
        """The mean of -log p over the tokens, in nats."""
        return self.nats / self.n_tokens

    @property
    def perplexity(self) -> float:
        """exp(loss): how many equally likely tokens would be as surprising.

        Comparable only between models with the same tokenizer.
        """
        try:
            return math.exp(self.nats_per_token)
        except OverflowError:  # more than 709 nats
            return math.inf

    @property
    def bits_per_byte(self) -> float:
        """The loss in bits per byte of text, comparable between all models."""
        return self.nats / math.log(2) / self.n_bytes

    def __repr__(self) -> str:
        return (
            f"TextLoss({self.nats_per_token:.4f} nats per token, perplexity "
            f"{self.perplexity:.3f}, {self.bits_per_byte:.4f} bits per byte)"
        )


def text_loss(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str | Sequence[str],
    *,
    stride: int | None = None,
    batch_size: int = 4,
    allow_special: bool = True,
) -> TextLoss:
    """Measure the loss on a text of any length, with a sliding window.

    Every token is predicted once, the first one from `<|endoftext|>`. A window
    of `n_ctx` tokens advances by `stride` tokens, and only the tokens new to
    it count. So every token past the first window is predicted from at least
    `n_ctx - stride` tokens. Probabilities are over all rows of the model's
    table, as in training; see `score`.

    The end-of-text token in the text separates documents, as in training. Each
    document is measured by itself, and the sums are returned.

    Args:
        model: A `GPT2` or a packed model.
        tokenizer: The tokenizer that the model was trained with.
        text: The text to measure on, or several of them.
        stride: In tokens, from 1 to `n_ctx`; `n_ctx // 2` by default. A
            smaller stride is slower and gives every token more context.
        batch_size: How many windows go through the model together.
        allow_special: Encode the name of a special token as that token, as in
            texts for training. If false, it is text like any other, and a text
            is one document.

    Raises:
        ValueError: The text is empty, or the stride is out of range.
    """
    n_ctx = model.config.n_ctx
    stride = max(1, n_ctx // 2) if stride is None else stride
    if not 1 <= stride <= n_ctx:
        raise ValueError(f"stride must be from 1 to {n_ctx}; got {stride}")
    documents = [text] if isinstance(text, str) else list(text)
    if allow_special:
        separator = tokenizer.decode([tokenizer.end_of_text])
        parts = [split_documents(each, separator) for each in documents]
        documents = [document for some in parts for document in some]
    windows, n_new, n_bytes = [], [], 0
    for document in track(
        documents, "Encoding the text", len(documents), "documents"
    ):
        ids = tokenizer.encode(document, allow_special)
        ids.insert(0, tokenizer.end_of_text)
        begin, done = 0, 1  # ids before `done` have been predicted
        while done < len(ids):
            end = min(begin + n_ctx + 1, len(ids))
            windows.append(ids[begin:end])
            n_new.append(end - done)
            begin, done = begin + stride, end
        n_bytes += len(document.encode())
    if not windows:
        raise ValueError("an empty text has no loss")
    scores = score(model, windows, batch_size, n_last=n_new)
    scores = track(scores, "Measuring the loss", len(windows), "windows")
    nats = math.fsum(one.nats for one in scores)
    return TextLoss(nats, sum(n_new), n_bytes)


@dataclass(frozen=True)
class Choice:
    """A question with several endings, of which one is right."""

    context: str
    endings: tuple[str, ...]
    """Each with the space before it, if there is one."""
    label: int
    """The index of the right ending, from 0."""

    def __post_init__(self) -> None:
        """Refuse a string of endings, each letter of which would be one.

        Raises:
            ValueError: `endings` is a string.
        """
        if isinstance(self.endings, str):
            raise ValueError(
                f"endings must be a tuple of strings; got {self.endings!r:.60}"
            )


@dataclass(frozen=True)
class ChoiceResult:
    """How many questions were answered right."""

    n_questions: int
    n_right: int
    """By the log-probabilities of the endings."""
    n_right_normalized: int
    """By their mean log-probability per token."""


def choose_endings(
    model: LanguageModel,
    tokenizer: Tokenizer,
    questions: Sequence[Choice],
    batch_size: int = 16,
) -> ChoiceResult:
    """Count the questions whose right ending is the likeliest.

    The longer an ending, the lower its log-probability tends to be. So the
    endings are also compared by the mean over their tokens. Zellers et al.
    (2019), "HellaSwag".

    Args:
        model: A `GPT2` or a packed model.
        tokenizer: The tokenizer that the model was trained with.
        questions: At least one. An empty context is read as `<|endoftext|>`.
        batch_size: How many endings go through the model together.

    Raises:
        ValueError: There are no questions; or a question has an empty ending,
            has no ending with its label, or does not fit into `n_ctx`.
    """
    if not questions:
        raise ValueError("there are no questions")
    sequences, n_ending = [], []
    for question in questions:
        for context, ending in _encoded(question, tokenizer):
            if len(context) + len(ending) > model.config.n_ctx + 1:
                raise ValueError(
                    f"context and ending must have at most "
                    f"{model.config.n_ctx + 1} tokens; got {len(context)} and "
                    f"{len(ending)} for {question.context!r:.60}"
                )
            sequences.append(context + ending)
            n_ending.append(len(ending))
    scores = score(model, sequences, batch_size, n_last=n_ending)
    scores = track(scores, "Scoring endings", len(sequences), "endings")
    nats = [one.nats for one in scores]
    right = right_normalized = begin = 0
    for question in questions:
        end = begin + len(question.endings)
        sums, lengths = nats[begin:end], n_ending[begin:end]
        means = [x / n for x, n in zip(sums, lengths, strict=True)]
        right += sums.index(min(sums)) == question.label
        right_normalized += means.index(min(means)) == question.label
        begin = end
    return ChoiceResult(len(questions), right, right_normalized)


def _encoded(
    question: Choice, tokenizer: Tokenizer
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the ids of the context and of the ending, for each ending."""
    context = tokenizer.encode(question.context, allow_special=True)
    context = context or [tokenizer.end_of_text]
    if not 0 <= question.label < len(question.endings):
        raise ValueError(
            f"label must be from 0 to {len(question.endings) - 1}, one of the "
            f"endings; got {question.label} for {question.context!r:.60}"
        )
    for text in question.endings:
        ending = tokenizer.encode(text, allow_special=True)
        if not ending:
            raise ValueError(
                f"endings must not be empty; got {text!r} for "
                f"{question.context!r:.60}"
            )
        yield context, ending


def continues_greedily(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[tuple[str, str]],
    batch_size: int = 16,
) -> list[bool]:
    """Tell for each prompt whether greedy decoding would give its answer.

    It would if at each token of the answer no other token is more likely.

    Args:
        model: A `GPT2` or a packed model.
        tokenizer: The tokenizer that the model was trained with.
        prompts: Pairs of a prompt and its answer, which includes the space
            before it. `<|endoftext|>` is put before a prompt; of a prompt
            that is too long, only the end is read.
        batch_size: How many prompts go through the model together.

    Raises:
        ValueError: An answer is empty, or longer than `n_ctx` tokens; or a
            string is in the place of a pair.
    """
    sequences, n_answer = [], []
    for pair in prompts:
        if isinstance(pair, str):
            raise ValueError(
                f"expected pairs of a prompt and its answer; got {pair!r:.60}"
            )
        prompt, text = pair
        answer = tokenizer.encode(text, allow_special=True)
        if not answer:
            raise ValueError(f"the answer to {prompt!r:.60} is empty")
        room = model.config.n_ctx + 1 - len(answer)
        before = tokenizer.encode(prompt, allow_special=True)
        context = [tokenizer.end_of_text, *before][-room:]
        sequences.append(context + answer)
        n_answer.append(len(answer))
    scores = score(
        model,
        sequences,
        batch_size,
        n_last=n_answer,
        n_vocab=tokenizer.n_vocab,
    )
    scores = track(scores, "Scoring answers", len(sequences), "answers")
    return [bool(one.likeliest.all()) for one in scores]


def last_word(text: str) -> tuple[str, str]:
    """Split off the last word of a passage, for `continues_greedily`.

    In the passages of Paperno et al. (2016), "LAMBADA", people can guess the
    last word from the whole passage but not from the last sentence alone.

    Returns:
        What comes before the word, and the word with the space before it.

    Raises:
        ValueError: The passage has only one word.
    """
    prompt, space, word = text.rstrip().rpartition(" ")
    if not prompt.strip():
        raise ValueError(
            f"a passage must have two words or more; got {text!r:.60}"
        )
    return prompt, space + word

"""How good a model is, in numbers that others publish too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2.data import pad
from gpt2.dropout import without_dropout
from gpt2.embeddings import check_ids
from gpt2.model import GPT2
from gpt2.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Score:
    """What a model makes of one sequence, token by token."""

    log_probabilities: Tensor
    """(N - 1,), of each token but the first, given those before it; nats."""
    likeliest: Tensor
    """(N - 1,), true where no other token was more likely."""


def score(
    model: GPT2, sequences: Sequence[Sequence[int]], batch_size: int = 16
) -> Iterator[Score]:
    """Score sequences of up to `n_ctx + 1` tokens, one after the other.

    Args:
        model: Any GPT-2.
        sequences: Each with two tokens or more.
        batch_size: How many go through the model together. They are padded,
            which changes nothing but the speed.

    Raises:
        ValueError: A sequence is too short or too long, or an id is not in
            the vocabulary; raised at once.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more; got {batch_size}")
    longest = model.config.n_ctx + 1
    for sequence in sequences:
        if not 2 <= len(sequence) <= longest:
            raise ValueError(
                f"a sequence to score must have 2 to {longest} tokens; got "
                f"{len(sequence)}"
            )
        check_ids(torch.tensor(sequence), model.config.n_vocab, "tokens")
    return _scores(model, sequences, batch_size)


@torch.no_grad()
def _scores(
    model: GPT2, sequences: Sequence[Sequence[int]], batch_size: int
) -> Iterator[Score]:
    model = without_dropout(model)
    device = model.device
    for first in range(0, len(sequences), batch_size):
        some = sequences[first : first + batch_size]
        tokens, mask = (part.to(device) for part in pad(some))
        logits = model(tokens[:, :-1], mask[:, :-1]).float()  # (B, T, V)
        targets = tokens[:, 1:, None]  # (B, T, 1)
        found = logits.log_softmax(dim=-1).gather(-1, targets).squeeze(-1)
        best = logits.argmax(dim=-1) == targets.squeeze(-1)  # (B, T)
        for row, sequence in enumerate(some):
            n = len(sequence) - 1
            yield Score(found[row, :n].cpu(), best[row, :n].cpu())


@dataclass(frozen=True)
class TextLoss:
    """The loss on a text."""

    nats: float
    """The surprise at the whole text."""
    n_tokens: int
    n_bytes: int
    """Of the text in UTF-8."""

    @property
    def nats_per_token(self) -> float:
        """The mean surprise at a token."""
        return self.nats / self.n_tokens

    @property
    def perplexity(self) -> float:
        """Among how many equally likely tokens one would be so surprised.

        It can be compared only between models with the same tokenizer.
        """
        try:
            return math.exp(self.nats_per_token)
        except OverflowError:  # more than 709 nats
            return math.inf

    @property
    def bits_per_byte(self) -> float:
        """The surprise at a byte, which any two models have in common."""
        return self.nats / math.log(2) / self.n_bytes


def text_loss(
    model: GPT2,
    tokenizer: Tokenizer,
    text: str,
    *,
    stride: int | None = None,
    batch_size: int = 4,
) -> TextLoss:
    """Measure the loss on a text of any length, with a sliding window.

    Every token is predicted once, the first one from an end of text. A window
    of `n_ctx` tokens moves on by `stride`, and only what is new in it counts;
    so each token but the first ones is predicted from at least
    `n_ctx - stride` tokens.

    Args:
        model: Any GPT-2.
        tokenizer: The one it was trained with.
        text: What to measure on.
        stride: From 1 to `n_ctx`; `n_ctx // 2` by default. Smaller is slower
            and gives more context.
        batch_size: Windows that go through the model together.

    Raises:
        ValueError: The text is empty, or the stride out of its range.
    """
    n_ctx = model.config.n_ctx
    stride = max(1, n_ctx // 2) if stride is None else stride
    if not 1 <= stride <= n_ctx:
        raise ValueError(f"stride must be from 1 to {n_ctx}; got {stride}")
    ids = [tokenizer.end_of_text, *tokenizer.encode(text)]
    if len(ids) == 1:
        raise ValueError("an empty text has no loss")
    windows, fresh = [], []
    begin, done = 0, 1  # ids before `done` have been predicted
    while done < len(ids):
        end = min(begin + n_ctx + 1, len(ids))
        windows.append(ids[begin:end])
        fresh.append(end - done)
        begin, done = begin + stride, end
    nats = 0.0
    scores = score(model, windows, batch_size)
    for one, n_new in zip(scores, fresh, strict=True):
        nats -= float(one.log_probabilities[-n_new:].double().sum())
    return TextLoss(nats, len(ids) - 1, len(text.encode()))


@dataclass(frozen=True)
class Choice:
    """A question with several endings, one of which is right."""

    context: str
    endings: tuple[str, ...]
    """Each begins with a space, where one belongs between."""
    label: int
    """Which ending is right, from 0."""


@dataclass(frozen=True)
class ChoiceResult:
    """How many of the questions were answered right."""

    n_questions: int
    n_right: int
    """By the endings' log-probabilities."""
    n_right_normalized: int
    """By their mean log-probability per token."""


def choose_endings(
    model: GPT2,
    tokenizer: Tokenizer,
    questions: Sequence[Choice],
    batch_size: int = 16,
) -> ChoiceResult:
    """Let a model choose the likeliest ending of each question.

    The longer an ending, the less likely, whatever it says; so the mean over
    its tokens is compared, beside the sum. Zellers et al. (2019) set the task.

    Raises:
        ValueError: There are no questions, or one has an empty ending, no
            ending with its label, or does not fit into `n_ctx`.
    """
    if not questions:
        raise ValueError("there are no questions")
    sequences, n_new = [], []
    for question in questions:
        context = tokenizer.encode(question.context)
        context = context or [tokenizer.end_of_text]
        if not 0 <= question.label < len(question.endings):
            raise ValueError(
                f"label must be one of {len(question.endings)} endings, "
                f"counted from 0; got {question.label} for "
                f"{question.context!r:.60}"
            )
        for ending in question.endings:
            added = tokenizer.encode(ending)
            if not added:
                raise ValueError(
                    f"an ending must not be empty, as one of "
                    f"{question.context!r:.60} is"
                )
            sequences.append(context + added)
            n_new.append(len(added))
    scores = score(model, sequences, batch_size)
    sums = [
        one.log_probabilities[-n:].double().sum()
        for one, n in zip(scores, n_new, strict=True)
    ]
    right = right_normalized = begin = 0
    for question in questions:
        end = begin + len(question.endings)
        total = torch.stack(sums[begin:end])
        mean = total / torch.tensor(n_new[begin:end])
        right += int(total.argmax()) == question.label
        right_normalized += int(mean.argmax()) == question.label
        begin = end
    return ChoiceResult(len(questions), right, right_normalized)


def continues_greedily(
    model: GPT2,
    tokenizer: Tokenizer,
    prompts: Sequence[tuple[str, str]],
    batch_size: int = 16,
) -> list[bool]:
    """Say for each prompt whether a model would go on with its answer.

    It would, if at each token of the answer no other was more likely; that is
    what greedy decoding writes.

    Args:
        model: Any GPT-2.
        tokenizer: The one it was trained with.
        prompts: Prompt and answer; the answer with the space before it. A
            prompt is read from an end of text on; of one that is too long,
            the last part.
        batch_size: Prompts that go through the model together.
    """
    sequences, n_new = [], []
    for prompt, answer in prompts:
        added = tokenizer.encode(answer)
        if not added:
            raise ValueError(f"the answer to {prompt!r:.60} is empty")
        room = model.config.n_ctx + 1 - len(added)
        read = [tokenizer.end_of_text, *tokenizer.encode(prompt)][-room:]
        sequences.append(read + added)
        n_new.append(len(added))
    scores = score(model, sequences, batch_size)
    return [
        bool(one.likeliest[-n:].all())
        for one, n in zip(scores, n_new, strict=True)
    ]


def last_word(text: str) -> tuple[str, str]:
    """Cut a passage before its last word, for `continues_greedily`.

    Paperno et al. (2016) chose passages whose last word can be guessed from
    the whole, and not from the last sentence: LAMBADA.

    Raises:
        ValueError: The passage has only one word.
    """
    prompt, space, word = text.rstrip().rpartition(" ")
    if not space:
        raise ValueError(
            f"a passage needs two words or more; got {text!r:.60}"
        )
    return prompt, space + word

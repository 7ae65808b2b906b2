"""Text in, text out: a continuation, and a prediction explained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from gpt2.generation import Continuations, stream
from gpt2.model import LanguageModel
from gpt2.prediction import Candidate, Prediction
from gpt2.sampling import Sampling, seeded
from gpt2.tokenizer.tokenizer import Tokenizer


def encode_prompt(
    tokenizer: Tokenizer, prompt: str, allow_special: bool = False
) -> list[int]:
    """Return the ids of a prompt.

    GPT-2 learned texts that follow `<|endoftext|>`, so this token stands in
    for an empty prompt. It precedes every prompt if the tokenizer has
    `add_bos_token` set. `allow_special` is as for `Tokenizer.encode`.
    """
    return tokenizer.encode_prompt(prompt, allow_special)


def complete(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int = 100,
    sampling: Sampling = Sampling(),
    *,
    stop: Sequence[str] = (),
    seed: int | torch.Generator | None = None,
    allow_special: bool = False,
) -> str:
    """Return a continuation of `prompt`, without the prompt.

    It ends at `<|endoftext|>`, before any of the strings in `stop`, after
    `max_new_tokens` tokens, or at `n_ctx`.

    Args:
        model: Any GPT-2.
        tokenizer: The one that the model was trained with.
        prompt: The text to continue; may be empty.
        max_new_tokens: The most tokens to add.
        sampling: How each token is drawn.
        stop: Strings to end before.
        seed: As for `gpt2.generate`.
        allow_special: Read the name of a special token in the prompt as that
            token; unsafe for text from users, as in `Tokenizer.encode`.

    Raises:
        ValueError: The prompt is longer than `n_ctx`, `stop` is a string or
            contains an empty one, or a number is out of its range.
        RuntimeError: The model's logits are not finite.
    """
    return "".join(
        stream_text(
            model,
            tokenizer,
            prompt,
            max_new_tokens,
            sampling,
            stop=stop,
            seed=seed,
            allow_special=allow_special,
        )
    )


def stream_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int = 100,
    sampling: Sampling = Sampling(),
    *,
    stop: Sequence[str] = (),
    seed: int | torch.Generator | None = None,
    allow_special: bool = False,
) -> Iterator[str]:
    """Yield what `complete` returns, piece by piece, as it is drawn.

    No piece holds part of a character, or the beginning of a string in `stop`.
    Arguments and errors are those of `complete`; a ValueError is raised by the
    call itself.
    """
    ids = encode_prompt(tokenizer, prompt, allow_special)
    end = tokenizer.end_of_text
    drawn = stream(
        model,
        torch.tensor([ids], device=model.device),
        max_new_tokens,
        sampling,
        stop_tokens=[end],
        n_vocab=tokenizer.n_vocab,
        seed=seed,
    )
    new = (int(token) for token in drawn)
    return until(tokenizer.stream(t for t in new if t != end), stop)


def until(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """Yield pieces of text, up to the first of the strings in `stop`.

    The first is the one that begins first, however the text is divided into
    pieces. Text that may be the beginning of a stop is held back until that is
    decided.

    Raises:
        ValueError: `stop` is a string or contains an empty one.
    """
    if isinstance(stop, str) or not all(stop):
        raise ValueError(
            f"stop must be a list of strings that are not empty; got {stop!r}"
        )

    def cut() -> Iterator[str]:
        held = ""
        for piece in pieces:
            held += piece
            may_begin = (
                i
                for i in range(len(held))
                if any(
                    held.startswith(s, i) or s.startswith(held[i:])
                    for s in stop
                )
            )
            at = next(may_begin, len(held))
            if at:
                yield held[:at]
            held = held[at:]
            if held.startswith(tuple(stop)):
                return
        # The text has ended, so the beginning of a stop is no stop.
        found = (held.find(s) for s in stop if s in held)
        if held := held[: min(found, default=len(held))]:
            yield held

    return cut()


@torch.no_grad()
def predict(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    n_candidates: int = 10,
    sampling: Sampling = Sampling(),
    *,
    seed: int | torch.Generator | None = None,
    allow_special: bool = False,
) -> Prediction:
    """Predict the token after a prompt, and keep every step on the way.

    Probabilities are over the tokenizer's tokens, even if the model's table is
    padded beyond them. (Losses, in training and in `gpt2.evaluation.text`, are
    over all rows.)

    Args:
        model: Any GPT-2.
        tokenizer: The one that the model was trained with.
        prompt: The text; may be empty.
        n_candidates: How many of the likeliest tokens to list.
        sampling: How the token is drawn.
        seed: As for `gpt2.generate`.
        allow_special: As for `complete`.

    Raises:
        ValueError: The prompt is longer than `n_ctx`, or the seed is out of
            its range.
        RuntimeError: The model's logits are not finite.
    """
    ids = encode_prompt(tokenizer, prompt, allow_special)
    tokens = torch.tensor([ids], device=model.device)
    prompts = Continuations(model, tokens, 0, None, (), 1, tokenizer.n_vocab)
    logits = prompts.next_logits().float()  # (1, V)
    chances = sampling.filter(logits, tokens).softmax(dim=-1)[0]  # (V,)
    generator = seeded(seed, tokens.device)
    drawn = sampling.choose(logits, tokens, generator=generator)  # (1,)
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
        candidate(int(drawn)),
    )

"""The programs that sample, each in a process of its own.

    python samplers.py NAME

reads jobs from standard input, one line of JSON each, and answers each with a
line of JSON. `NAME` is a key of `PROGRAMS`. A job names a model, the settings,
and the tokens so far; the answer is the distribution from which the program
draws the next token. transformers, llama.cpp and this package tell it; for
CTranslate2, which does not, many tokens are drawn and counted.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from processes import answering

DRAWS = 100_000


@dataclass(frozen=True)
class Job:
    """A question to a sampler."""

    folder: str
    """The model, in every format."""
    settings: dict[str, float]
    """Those of `gpt2.Sampling`."""
    defaults: bool
    """Leave what is not in `settings` to the program; else, turn it off."""
    prompt: list[int]
    """Ids that the user gave."""
    generated: list[int]
    """Ids that came after, from the program. Only llama.cpp tells them from
    the prompt; the others get them as a part of it."""
    greedy: int | None
    """If given: how many tokens to generate without drawing."""
    in_result: bool
    """CTranslate2's `include_prompt_in_result`, which is true by default."""


# An answer is the probability of each id, or the ids that were generated; or
# None, if the program does not have the setting.
Probabilities = dict[int, float]
Answer = Probabilities | list[int] | None


def _kept(logits: Any) -> Probabilities:
    """Turn filtered logits (V,) into probabilities; drop the zeros."""
    logits = np.asarray(logits, np.float64)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    return {int(i): float(shares[i]) for i in np.flatnonzero(shares)}


# --- gpt2 ---


@cache
def _our_model(folder: str) -> Any:
    from gpt2.weights.loading import load_model

    return load_model(Path(folder) / "hf")


def _ours(job: Job) -> Answer:
    import torch

    from gpt2.generation import generate
    from gpt2.sampling import Sampling

    model = _our_model(job.folder)
    tokens = torch.tensor([job.prompt + job.generated])
    if job.greedy is not None:
        sampling = Sampling(**{"temperature": 0, **job.settings})
        written = generate(model, tokens, job.greedy, sampling)
        return written[0, tokens.size(1) :].tolist()
    with torch.inference_mode():
        logits = model(tokens)[:, -1]
    return _kept(Sampling(**job.settings).filter(logits, tokens)[0])


# --- transformers ---


@cache
def _their_model(folder: str) -> Any:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(Path(folder) / "hf").eval()


def _transformers(job: Job) -> Answer:
    import torch

    model = _their_model(job.folder)
    tokens = torch.tensor([job.prompt + job.generated])
    off = {} if job.defaults or job.greedy is not None else {"top_k": 0}
    torch.manual_seed(0)
    came = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=job.greedy is None,
        max_new_tokens=job.greedy or 1,
        return_dict_in_generate=True,
        output_scores=True,
        **{**off, **job.settings},
    )
    if job.greedy is not None:
        return came.sequences[0, tokens.size(1) :].tolist()
    return _kept(came.scores[0][0])


# --- CTranslate2 ---


@cache
def _generator(folder: str) -> tuple[Any, list[str]]:
    import ctranslate2
    from transformers import AutoTokenizer

    ctranslate2.set_random_seed(0)
    generator = ctranslate2.Generator(
        str(Path(folder) / "ct2"), intra_threads=1
    )
    tokenizer = AutoTokenizer.from_pretrained(Path(folder) / "hf")
    words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return generator, words


def _ctranslate2(job: Job) -> Answer:
    generator, words = _generator(job.folder)
    if (
        "min_p" in job.settings
        and "min_p" not in generator.generate_batch.__doc__
    ):
        return None
    names = {
        "temperature": "sampling_temperature",
        "top_k": "sampling_topk",
        "top_p": "sampling_topp",
    }
    settings = {names.get(n, n): value for n, value in job.settings.items()}
    off = (
        {} if job.defaults or job.greedy is not None else {"sampling_topk": 0}
    )
    tokens = job.prompt + job.generated
    prompt = [words[i] for i in tokens]

    # `max_length` does not count the first token of the prompt.
    shown = len(prompt) if job.in_result else 0

    def write(n_rows: int, n_new: int) -> list[list[int]]:
        rows = generator.generate_batch(
            [prompt] * n_rows,
            max_length=max(shown - 1, 0) + n_new,
            include_prompt_in_result=job.in_result,
            **{**off, **settings},
        )
        return [row.sequences_ids[0][shown:] for row in rows]

    if job.greedy is not None:
        return write(1, job.greedy)[0]
    drawn: Counter[int] = Counter()
    for _ in range(DRAWS // 1000):
        # Without its end, a text that ends at once is empty.
        drawn.update(
            new[0] if new else len(words) - 1 for new in write(1000, 1)
        )
    return {token: n / DRAWS for token, n in drawn.items()}


# --- llama.cpp ---


@cache
def _llama(folder: str) -> Any:
    import llama_cpp

    return llama_cpp.Llama(
        str(Path(folder) / "model.gguf"),
        n_ctx=128,
        n_threads=1,
        n_threads_batch=1,
        verbose=False,
    )


OFF = {"temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def _llama_settings(job: Job) -> dict[str, float]:
    names = {"temperature": "temp", "repetition_penalty": "repeat_penalty"}
    settings = {names.get(n, n): value for n, value in job.settings.items()}
    return settings if job.defaults else {**OFF, **settings}


def _llama_cpp(job: Job) -> Answer:
    model, settings = _llama(job.folder), _llama_settings(job)
    if job.greedy is not None:
        stream = model.generate(job.prompt, **{**settings, "temp": 0.0})
        return [int(next(stream)) for _ in range(job.greedy)]
    found = _by_chain(model, job, settings)
    if not job.generated:
        _check_drawn(model, job, settings, found)
    return found


def _by_chain(model: Any, job: Job, settings: dict[str, float]) -> Answer:
    """Let the chain that `generate` builds filter the model's logits."""
    import llama_cpp as llama

    model.reset()
    model.eval(job.prompt)
    chain = model._init_sampler(**settings)
    for token in job.generated:  # as `llama_sampler_sample` does
        llama.llama_sampler_accept(chain.sampler, token)
    logits = np.ctypeslib.as_array(
        model._ctx.get_logits_ith(-1), (model.n_vocab(),)
    )
    data = (llama.llama_token_data * len(logits))()
    for i, logit in enumerate(logits):
        data[i].id, data[i].logit, data[i].p = i, float(logit), 0.0
    array = llama.llama_token_data_array(
        data=data, size=len(logits), selected=-1, sorted=False
    )
    llama.llama_sampler_apply(chain.sampler, ctypes.byref(array))
    if chain_names(chain.sampler)[-1] == "greedy":
        return {int(array.data[array.selected].id): 1.0}
    left = np.full(len(logits), -math.inf)
    for i in range(array.size):
        left[array.data[i].id] = array.data[i].logit
    return _kept(left)


def chain_names(sampler: Any) -> list[str]:
    """Return the names of the samplers in a chain, in their order."""
    import llama_cpp as llama

    return [
        llama.llama_sampler_name(
            llama.llama_sampler_chain_get(sampler, i)
        ).decode()
        for i in range(llama.llama_sampler_chain_n(sampler))
    ]


def _check_drawn(
    model: Any, job: Job, settings: dict[str, float], found: Any
) -> None:
    """Draw tokens by `generate`, and hold them against the distribution."""
    drawn = Counter(
        int(next(model.generate(job.prompt, **settings))) for _ in range(1000)
    )
    assert drawn.keys() <= found.keys(), (drawn, found)
    expected = {token for token, share in found.items() if share > 0.02}
    assert expected <= drawn.keys(), (drawn, found)


PROGRAMS: dict[str, Callable[[Job], Answer]] = {
    "gpt2": _ours,
    "transformers": _transformers,
    "CTranslate2": _ctranslate2,
    "llama.cpp": _llama_cpp,
}


def _answer(name: str, job: dict[str, Any]) -> dict[str, Any]:
    question = Job(**job)
    alone = name == "CTranslate2"
    came = PROGRAMS[name](question) if question.in_result or alone else None
    if came is None:
        return {"lacks": True}
    if isinstance(came, list):
        return {"ids": came}
    return {"probabilities": sorted(came.items(), key=lambda pair: -pair[1])}


if __name__ == "__main__":
    answering(lambda job: _answer(sys.argv[1], job))

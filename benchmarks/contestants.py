"""The engines, each behind the same interface and in its own process.

    python contestants.py NAME FOLDER THREADS

reads requests from standard input, one line of JSON each. It answers each with
a line of JSON: the seconds from the request to every new token, and the bytes
of memory that the process uses, now and at its peak.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

Prompts = list[list[int]]


def _ours(folder: Path, dtype: str, threads: int) -> Callable[..., Any]:
    from gpt2.commands.starting import load_torch

    load_torch()  # as the command line does
    import torch

    torch.set_num_threads(threads)
    from gpt2.generation import stream
    from gpt2.inference.packed import for_inference
    from gpt2.sampling import Sampling
    from gpt2.weights.loading import load_model

    model = load_model(folder / "hf")
    if dtype != "taught":
        model = for_inference(model, dtype, consume=True)

    def write(prompts: Prompts, n_new: int) -> Iterator[list[int]]:
        tokens = torch.tensor(prompts)
        for drawn in stream(model, tokens, n_new, Sampling(0)):
            yield drawn.tolist()

    return write


def _transformers(
    folder: Path, dtype: str, threads: int
) -> Callable[..., Any]:
    import torch

    torch.set_num_threads(threads)
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(
        folder / "hf", dtype=dtype, attn_implementation="sdpa"
    ).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0

    class Steps:
        """Receives the tokens from `generate`, the prompt first."""

        def __init__(self) -> None:
            self.told: list[tuple[float, list[int]]] = []

        def put(self, value: Any) -> None:
            self.told.append((time.perf_counter(), value.tolist()))

        def end(self) -> None:
            pass

    @torch.inference_mode()
    def write(prompts: Prompts, n_new: int) -> Iterator[Any]:
        tokens, steps = torch.tensor(prompts), Steps()
        model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=n_new,
            do_sample=False,
            streamer=steps,
        )
        yield from steps.told[1:]

    return write


def _ctranslate2(folder: Path, dtype: str, threads: int) -> Callable[..., Any]:
    import ctranslate2

    generator = ctranslate2.Generator(
        str(folder / f"ct2-{dtype}"),
        device="cpu",
        compute_type=dtype,
        inter_threads=1,
        intra_threads=threads,
    )

    def write(prompts: Prompts, n_new: int) -> Iterator[list[int]]:
        words = [[f"t{i}" for i in prompt] for prompt in prompts]
        steps = generator.generate_tokens(
            words,
            max_length=n_new,
            min_length=n_new,
            sampling_topk=1,
        )
        step: list[int] = []
        for result in steps:
            step.append(result.token_id)
            if len(step) == len(prompts):
                yield step
                step = []

    return write


def _llama_cpp(folder: Path, dtype: str, threads: int) -> Callable[..., Any]:
    import llama_cpp as llama
    import numpy as np

    kind, _, fed = dtype.partition("-")
    model = llama.llama_model_load_from_file(
        str(folder / f"{kind}.gguf").encode(),
        llama.llama_model_default_params(),
    )
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

    def context(n_sequences: int, n_positions: int) -> Any:
        params = llama.llama_context_default_params()
        params.n_ctx = n_positions * n_sequences
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        params.n_seq_max = n_sequences
        return llama.llama_init_from_model(model, params)

    def read(ctx: Any, tokens: list[tuple[int, int, int, bool]]) -> None:
        """Feed (token, position, sequence, needs logits), 512 at a time."""
        for start in range(0, len(tokens), 512):
            part = tokens[start : start + 512]
            batch = llama.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            for i, (token, position, sequence, wanted) in enumerate(part):
                batch.token[i], batch.pos[i] = token, position
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
                batch.logits[i] = wanted
            code = llama.llama_decode(ctx, batch)
            llama.llama_batch_free(batch)
            if code:
                raise RuntimeError(f"llama_decode returns {code}")

    def write(prompts: Prompts, n_new: int) -> Iterator[list[int]]:
        n_prompt = len(prompts[0])
        ctx = context(len(prompts), -(-(n_prompt + n_new) // 256) * 256)
        table = [
            [(token, i, row, i == n_prompt - 1) for i, token in enumerate(p)]
            for row, p in enumerate(prompts)
        ]
        if fed:  # token by token, where a long prompt would crash
            for column in zip(*table, strict=True):
                read(ctx, list(column))
        else:
            # The last tokens of all sequences go into one batch of their own.
            read(ctx, [entry for row in table for entry in row[:-1]])
            read(ctx, [row[-1] for row in table])
        for place in range(n_prompt, n_prompt + n_new):
            step = []
            for row in range(len(prompts)):
                logits = llama.llama_get_logits_ith(ctx, row)
                values = np.ctypeslib.as_array(logits, shape=(n_vocab,))
                step.append(int(values.argmax()))
            yield step
            if place < n_prompt + n_new - 1:
                read(
                    ctx,
                    [(t, place, row, True) for row, t in enumerate(step)],
                )
        llama.llama_free(ctx)

    return write


ENGINES = {
    "gpt2": (_ours, "torch"),
    "transformers": (_transformers, "transformers"),
    "ctranslate2": (_ctranslate2, "ctranslate2"),
    "llama.cpp": (_llama_cpp, "llama-cpp-python"),
}
NAMES = (
    *("gpt2 taught", "gpt2 float32", "gpt2 bfloat16"),
    "gpt2 int8",
    *("transformers float32", "transformers bfloat16"),
    *("ctranslate2 float32", "ctranslate2 bfloat16"),
    "ctranslate2 int8_float32",
    *("llama.cpp F32", "llama.cpp BF16", "llama.cpp Q8_0"),
    "llama.cpp Q8_0-fed",
)


def _timed(write: Callable[..., Any], request: dict[str, Any]) -> Any:
    began = time.perf_counter()
    seconds, tokens = [], []
    for step in write(request["prompts"], request["n_new"]):
        if isinstance(step, tuple):  # with its own time stamp
            at, step = step
        else:
            at = time.perf_counter()
        seconds.append(at - began)
        tokens.append(step)
    return {"seconds": seconds, "tokens": tokens}


def memory() -> dict[str, int]:
    """Return the bytes of memory that this process uses, now and at its peak.

    Not `ru_maxrss`: on Linux, a process inherits its parent's peak there.
    """
    status = Path("/proc/self/status").read_text()
    now, peak = (
        1024 * int(status.split(f"{name}:")[1].split()[0])
        for name in ("VmRSS", "VmHWM")
    )
    return {"now": now, "peak": peak}


def main(name: str, folder: str, threads: str) -> None:
    """Serve requests until standard input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keep the output of engines out of the answers
    engine, dtype = name.split()
    make, package = ENGINES[engine]
    write = make(Path(folder), dtype, int(threads))
    for line in sys.stdin:
        try:
            answer = _timed(write, json.loads(line))
        except NotImplementedError as error:
            answer = {"cannot": str(error)}
        facts = {"memory": memory(), "version": version(package)}
        print(json.dumps({**answer, **facts}), file=out)


if __name__ == "__main__":
    main(*sys.argv[1:])

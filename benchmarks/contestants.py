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

    device = "cuda" if dtype == "cuda" else "cpu"
    if dtype == "cuda":
        model = load_model(folder / "hf", "bfloat16", device)
    else:
        model = load_model(folder / "hf")
        if dtype != "taught":
            model = for_inference(model, dtype, consume=True)

    def write(prompts: Prompts, n_new: int) -> Iterator[list[int]]:
        tokens = torch.tensor(prompts, device=device)
        for drawn in stream(model, tokens, n_new, Sampling(0)):
            yield drawn.tolist()

    return write


def _transformers(
    folder: Path, dtype: str, threads: int, static: bool = False
) -> Callable[..., Any]:
    import torch

    torch.set_num_threads(threads)
    from transformers import GPT2LMHeadModel

    device = "cuda" if dtype == "cuda" else "cpu"
    model = GPT2LMHeadModel.from_pretrained(
        folder / "hf",
        dtype="bfloat16" if dtype == "cuda" else dtype,
        attn_implementation="sdpa",
    )
    model.eval().to(device)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    if static:
        # A cache of fixed size makes `generate` compile the steps after the
        # prompt: https://huggingface.co/docs/transformers/kv_cache
        # By itself it does so on accelerators only, hence the flag.
        from transformers import CompileConfig

        config = CompileConfig()
        config._compile_all_devices = True
        model.generation_config.cache_implementation = "static"
        model.generation_config.compile_config = config

    class Steps:
        """Receives the tokens from `generate`, the prompt first."""

        def __init__(self) -> None:
            self.told: list[tuple[float, list[int]]] = []

        def put(self, value: Any) -> None:
            tokens = value.tolist()  # on a GPU, this waits for them
            self.told.append((time.perf_counter(), tokens))

        def end(self) -> None:
            pass

    @torch.inference_mode()
    def write(prompts: Prompts, n_new: int) -> Iterator[Any]:
        tokens, steps = torch.tensor(prompts, device=device), Steps()
        model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=n_new,
            do_sample=False,
            streamer=steps,
        )
        yield from steps.told[1:]

    return write


def _compiled(folder: Path, dtype: str, threads: int) -> Callable[..., Any]:
    # Else many processes that wait to compile would stay.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    return _transformers(folder, dtype, threads, static=True)


def _openvino(folder: Path, dtype: str, threads: int) -> Callable[..., Any]:
    import numpy as np
    import openvino
    import openvino_genai as genai

    core = openvino.Core()
    can = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if dtype == "bfloat16" and "BF16" not in can:
        raise RuntimeError("OpenVINO does not use bfloat16 on this processor")
    # What the default, the mode for performance, lowers to bfloat16 and int8
    # stays float32 in the other mode:
    # https://docs.openvino.ai/2024/openvino-workflow/running-inference/optimize-inference/precision-control.html
    mode = "ACCURACY" if dtype == "float32" else "PERFORMANCE"
    kind = "float32" if dtype == "bfloat16" else dtype
    # As in `LLMPipeline`, all prompts are read in one step:
    # https://openvinotoolkit.github.io/openvino.genai/docs/concepts/optimization-techniques/continuous-batching
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = 1 << 20
    # Without this, the prompts of the last round would not be read again.
    scheduler.enable_prefix_caching = False
    pipeline = genai.ContinuousBatchingPipeline(
        str(folder / f"openvino-{kind}"),
        scheduler,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "EXECUTION_MODE_HINT": mode,
            "INFERENCE_NUM_THREADS": threads,
        },
    )

    def write(prompts: Prompts, n_new: int) -> Iterator[list[int]]:
        config = genai.GenerationConfig(max_new_tokens=n_new, ignore_eos=True)
        config.do_sample = False
        handles = [
            pipeline.add_request(i, openvino.Tensor(np.array([p])), config)
            for i, p in enumerate(prompts)
        ]
        while pipeline.has_non_finished_requests():
            pipeline.step()
            step = []
            for handle in handles:
                (new,) = handle.read().values()
                step += new.generated_ids
            yield step

    return write


def _onnxruntime(folder: Path, dtype: str, threads: int) -> Callable[..., Any]:
    import numpy as np
    import onnxruntime as ort

    # https://onnxruntime.ai/docs/performance/tune-performance/threading.html
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        str(folder / f"{dtype}.onnx"),
        options,
        providers=["CPUExecutionProvider"],
    )
    kept = [
        (place.name, place.shape)
        for place in session.get_inputs()
        if place.name.startswith("past")
    ]

    def write(prompts: Prompts, n_new: int) -> Iterator[list[int]]:
        tokens = np.array(prompts)
        n_rows, total = tokens.shape
        cache = {}
        for name, (_, n_head, _, size) in kept:
            empty = np.zeros((n_rows, n_head, total + n_new, size), "float32")
            cache[name] = ort.OrtValue.ortvalue_from_numpy(empty)
        positions = np.arange(total)[None].repeat(n_rows, 0)
        for _ in range(n_new):
            # The keys and values stay where they are:
            # https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html
            binding = session.io_binding()
            binding.bind_cpu_input("tokens", tokens)
            binding.bind_cpu_input("positions", positions)
            last = np.full(n_rows, total - 1, np.int32)
            binding.bind_cpu_input("last", last)
            binding.bind_cpu_input("total", np.array(total, np.int32))
            binding.bind_output("logits", "cpu")
            for name, values in cache.items():
                binding.bind_ortvalue_input(name, values)
                now = name.replace("past", "present")
                binding.bind_ortvalue_output(now, values)
            session.run_with_iobinding(binding)
            tokens = binding.get_outputs()[0].numpy().argmax(-1)[:, None]
            positions, total = np.full_like(tokens, total), total + 1
            yield tokens[:, 0].tolist()

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

    model = llama.llama_model_load_from_file(
        str(folder / f"{dtype}.gguf").encode(),
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
    "transformers-compiled": (_compiled, "transformers"),
    "openvino": (_openvino, "openvino-genai"),
    "onnxruntime": (_onnxruntime, "onnxruntime"),
    "ctranslate2": (_ctranslate2, "ctranslate2"),
    "llama.cpp": (_llama_cpp, "llama-cpp-python"),
}
NAMES = (
    *("gpt2 taught", "gpt2 float32", "gpt2 bfloat16", "gpt2 int8"),
    "gpt2 int4",
    *("transformers float32", "transformers bfloat16"),
    *("transformers-compiled float32", "transformers-compiled bfloat16"),
    *("openvino float32", "openvino bfloat16"),
    *("openvino int8", "openvino int4"),
    *("onnxruntime float32", "onnxruntime int8", "onnxruntime int4"),
    *("ctranslate2 float32", "ctranslate2 bfloat16"),
    "ctranslate2 int8_float32",
    *("llama.cpp F32", "llama.cpp BF16", "llama.cpp Q8_0"),
    *("llama.cpp Q4_0", "llama.cpp Q4_K_M"),
)
GPU_NAMES = ("gpt2 cuda", "transformers cuda", "transformers-compiled cuda")
"""In bfloat16, if there is a GPU."""


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
        answer = _timed(write, json.loads(line))
        facts = {"memory": memory(), "version": version(package)}
        print(json.dumps({**answer, **facts}), file=out)


if __name__ == "__main__":
    main(*sys.argv[1:])

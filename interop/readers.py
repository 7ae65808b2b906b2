"""The readers, each in a process of its own.

    python readers.py models NAME

reads jobs from standard input, one line of JSON each, and answers each with a
line of JSON: what came, or why the reader refused. `NAME` is a key of `MODELS`
or of `TOKENIZERS`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from processes import answering, why

HERE = Path(__file__).parent
LLAMA = HERE / ".venv" / "source" / "vendor" / "llama.cpp"
CONVERTER = LLAMA / "convert_hf_to_gguf.py"

# --- models: a folder and ids (T,), to logits (T, V) ---


def _ours(folder: Path, ids: list[int]) -> Any:
    import torch

    from gpt2.weights.loading import load_model

    with torch.inference_mode():
        return load_model(folder)(torch.tensor([ids]))[0]


def _transformers(attention: str) -> Callable[[Path, list[int]], Any]:
    def read(folder: Path, ids: list[int]) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation=attention
        ).eval()
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0]

    return read


def _onnx(folder: Path, ids: list[int]) -> Any:
    """Export transformers' model with PyTorch, and run the file."""
    import onnxruntime
    import torch
    from transformers import AutoModelForCausalLM

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForCausalLM.from_pretrained(folder).eval()

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.model(tokens, use_cache=False).logits

    tokens, path = torch.tensor([ids]), str(folder / "model.onnx")
    torch.onnx.export(
        Logits(), (tokens,), path, input_names=["tokens"], verbose=False
    )
    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"tokens": tokens.numpy()})[0][0]


def _ctranslate2(folder: Path, ids: list[int]) -> Any:
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    target = folder.with_name(f"{folder.name}-ct2")
    TransformersConverter(str(folder)).convert(
        str(target), quantization="float32", force=True
    )
    generator = ctranslate2.Generator(str(target), compute_type="float32")
    return np.array(generator.forward_batch([ids]))[0]


def _gguf(folder: Path, *options: str) -> Path:
    """Convert with llama.cpp's own converter."""
    path = folder.with_suffix(".gguf")
    command = [sys.executable, CONVERTER, folder, "--outfile", path, *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1]
        raise ValueError(f"convert_hf_to_gguf.py: {last}")
    return path


def _llama_model(path: Path, vocab_only: bool) -> Any:
    import llama_cpp as llama

    parameters = llama.llama_model_default_params()
    parameters.vocab_only = vocab_only
    told: list[str] = []

    @llama.llama_log_callback
    def keep(level: int, text: bytes, _: Any) -> None:
        told.append(text.decode("utf-8", "replace"))

    llama.llama_log_set(keep, llama.ctypes.c_void_p(0))
    model = llama.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        why = [line.strip() for line in told if "error" in line]
        raise ValueError(f"llama.cpp: {why[0] if why else 'no model'}")
    _llama_model.keep = keep  # type: ignore[attr-defined] # C still calls it
    return model


def _llama(folder: Path, ids: list[int]) -> Any:
    import llama_cpp as llama

    model = _llama_model(_gguf(folder, "--outtype", "f32"), False)
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = 32
    parameters.type_k = parameters.type_v = llama.GGML_TYPE_F32
    context = llama.llama_init_from_model(model, parameters)
    batch = llama.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
    if code := llama.llama_decode(context, batch):
        raise ValueError(f"llama_decode: {code}")
    rows = [
        np.ctypeslib.as_array(
            llama.llama_get_logits_ith(context, i), (n_vocab,)
        ).copy()
        for i in range(len(ids))
    ]
    return np.stack(rows)


def _keras(folder: Path, ids: list[int]) -> Any:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras_hub

    model = keras_hub.models.GPT2CausalLM.from_preset(
        str(folder), preprocessor=None
    )
    tokens = np.array([ids])
    inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    return model(inputs).detach()[0]


MODELS: dict[str, Callable[[Path, list[int]], Any]] = {
    "gpt2": _ours,
    "CTranslate2": _ctranslate2,
    "llama.cpp": _llama,
    "keras-hub": _keras,
    "ONNX Runtime": _onnx,
    "transformers, eager": _transformers("eager"),
    "transformers, sdpa": _transformers("sdpa"),
}

# --- tokenizers: a folder, to a function from text to ids ---

Encoder = Callable[[str], list[int]]


def _ours_words(folder: Path) -> Encoder:
    import gpt2

    tokenizer = gpt2.Tokenizer.load(folder)

    def encode(text: str) -> list[int]:
        ids = tokenizer.encode(text, allow_special=True)
        # What `encode_prompt` does, which takes no `allow_special`.
        return [tokenizer.end_of_text] * tokenizer.add_bos_token + ids

    return encode


def _tokenizers_words(folder: Path) -> Encoder:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: tokenizer.encode(text).ids


def _auto_words(folder: Path) -> Encoder:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return lambda text: tokenizer(text)["input_ids"]


def _gpt2_words(folder: Path) -> Encoder:
    from transformers import GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    return lambda text: tokenizer(text)["input_ids"]


def _tiktoken_words(folder: Path) -> Encoder:
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext.openai_public import ENDOFTEXT, r50k_pat_str

    ranks = data_gym_to_mergeable_bpe_ranks(
        str(folder / "merges.txt"), str(folder / "vocab.json")
    )
    ids = json.loads((folder / "vocab.json").read_text("utf-8"))
    encoding = tiktoken.Encoding(
        "read",
        pat_str=r50k_pat_str,
        mergeable_ranks=ranks,
        special_tokens={ENDOFTEXT: ids[ENDOFTEXT]} if ENDOFTEXT in ids else {},
    )
    return lambda text: encoding.encode(text, allowed_special="all")


def _llama_words(folder: Path) -> Encoder:
    import llama_cpp as llama

    model = _llama_model(_gguf(folder, "--vocab-only"), True)
    vocab = llama.llama_model_get_vocab(model)

    def encode(text: str) -> list[int]:
        data = text.encode()
        room = (llama.llama_token * (len(data) + 8))()
        found = llama.llama_tokenize(
            vocab, data, len(data), room, len(room), True, True
        )
        return list(room[:found])

    return encode


def _keras_words(folder: Path) -> Encoder:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras_hub

    tokenizer = keras_hub.models.GPT2Tokenizer.from_preset(str(folder))
    return lambda text: [int(i) for i in np.asarray(tokenizer(text))]


TOKENIZERS: dict[str, Callable[[Path], Encoder]] = {
    "gpt2": _ours_words,
    "tokenizers": _tokenizers_words,
    "AutoTokenizer": _auto_words,
    "GPT2Tokenizer": _gpt2_words,
    "tiktoken": _tiktoken_words,
    "llama.cpp": _llama_words,
    "keras-hub": _keras_words,
}


def _model_answer(name: str, job: dict[str, Any]) -> dict[str, Any]:
    import torch

    came = MODELS[name](Path(job["folder"]), job["ids"])
    if isinstance(came, torch.Tensor):
        came = came.float().numpy()
    np.save(job["to"], np.asarray(came, np.float64))
    return {"dtype": str(came.dtype)}


def _tokenizer_answer(name: str, job: dict[str, Any]) -> dict[str, Any]:
    encode, found = TOKENIZERS[name](Path(job["folder"])), []
    for text in job["texts"]:
        try:
            found.append(list(encode(text)))
        except Exception as error:
            found.append(why(error))
    return {"ids": found}


def main(kind: str, name: str) -> None:
    """Serve jobs until standard input ends."""
    answer = _model_answer if kind == "models" else _tokenizer_answer
    answering(partial(answer, name))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Compare llama.cpp's numbers with the package's, for files of `gpt2 convert`.

    benchmarks/.venv/bin/python benchmarks/check_gguf.py    # a few minutes
    benchmarks/.venv/bin/python benchmarks/check_gguf.py --only story

`make bench` sets up the environment for it.

Three models are written in every type: the story model, whose tokenizer is its
own; a small random one with GPT-2's vocabulary; and one in which as much as
possible differs from GPT-2 (epsilon, inner width, rows without a token, digits
one by one, added words, tokens around a text). For a few texts, llama.cpp
encodes the text, computes the logits of every position, and generates 32
tokens greedily. Ids must be the same. The largest difference of logits, and
how many generated tokens agree, are printed as a table and kept in
`results/gguf.md`. A difference above the bound of its type ends the script
with an error, and so does another token in `f32`.

The rounding of the weights themselves is taken out of the comparison: the
package computes in float32 from the weights as they are in the file. What is
left is llama.cpp's arithmetic: it takes GELU from a table of float16 numbers,
and rounds activations to the type of the matrix before it multiplies them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np
import torch
from gguf import GGUFReader, dequantize

import gpt2
from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2.tokenizer.settings import Settings
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights.gguf_writing import TYPES, gguf_name, write_gguf

RESULTS = Path(__file__).parent / "results" / "gguf.md"

# The largest difference of logits that is allowed, in standard deviations of
# the logits.
BOUNDS = {"f32": 0.005, "bf16": 0.05, "f16": 0.01, "q8_0": 0.2}

TEXTS = {
    "story": (
        "Ella lost her red",
        "Hugo lived in a",
        "Once upon a time, in 1987, there  was\n\n a cat's",
        "",
    ),
    "random": (
        "Alan Turing theorized that computers would one day",
        "In 1950,  it's said:\n\n\tnaïve café 日本語 🙂",
        "    def f(x):\n        return x**2  # don't",
        "",
    ),
    "odd": (
        "the cat sat <|endoftext|> on <user> the mat",
        "Naïve 日本語 🙂\r\n\t x, 1987 catnip",
        "",
    ),
}
N_NEW = 32

quiet = llama.llama_log_callback(lambda *_: None)
llama.llama_log_set(quiet, llama.ctypes.c_void_p(0))


@dataclass
class Row:
    """What was found for one text."""

    model: str
    kind: str
    n_tokens: int
    difference: float
    spread: float
    n_same: int


def models() -> dict[str, tuple[GPT2, Tokenizer]]:
    """Return the models by name."""
    plain = GPT2Config(n_ctx=256, n_embd=256, n_head=4, n_layer=4)
    odd = GPT2Config(
        *(300, 128, 96, 3, 2), n_inner=160, layer_norm_epsilon=0.1
    )
    own = Tokenizer.train("the cat sat on the mat, the cat sat", 265)
    special = {**own.special_tokens, "<user>": 265, "[PAD]": 266}
    settings = Settings(
        digits=r"\p{N}", before=(264,), after=(264,), words={"catnip": 267}
    )
    return {
        "story": gpt2.load("story"),
        "random": (random_model(plain), Tokenizer.gpt2()),
        "odd": (
            random_model(odd),
            Tokenizer(own.ranks, special, settings=settings),
        ),
    }


def random_model(config: GPT2Config) -> GPT2:
    """Return a model in which every part matters."""
    torch.manual_seed(0)
    model = GPT2(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def as_written(model: GPT2, path: Path) -> GPT2:
    """Return the model with the rounded weights of a GGUF file."""
    found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    state = {}
    for name, tensor in model.state_dict().items():
        theirs = found[gguf_name(name)]
        data = dequantize(theirs.data, theirs.tensor_type).copy()
        values = torch.from_numpy(data)
        matrix = tensor.dim() == 2 and name[:3] not in ("wte", "wpe")
        state[name] = values.T.contiguous() if matrix else values
    n_rows = len(state["wte.weight"])
    rounded = GPT2(replace(model.config, n_vocab=n_rows)).eval()
    rounded.load_state_dict(state)
    return rounded


class LlamaCpp:
    """A model that llama.cpp has loaded."""

    def __init__(self, path: Path) -> None:
        """Load a GGUF file."""
        self.model = llama.llama_model_load_from_file(
            str(path).encode(), llama.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self.vocabulary = llama.llama_model_get_vocab(self.model)
        self.n_vocab = llama.llama_vocab_n_tokens(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Encode a text as a prompt, with what goes before it."""
        data = text.encode()
        ids = (llama.llama_token * (len(data) + 8))()
        n = llama.llama_tokenize(
            *(self.vocabulary, data, len(data), ids, len(ids)), True, False
        )
        return list(ids[:n])

    def decode(self, token: int) -> bytes:
        """Return the bytes of a token."""
        buffer = (llama.ctypes.c_char * 256)()
        n = llama.llama_token_to_piece(
            self.vocabulary, token, buffer, 256, 0, True
        )
        return bytes(buffer[:n])

    def logits(self, tokens: list[int]) -> np.ndarray[Any, Any]:
        """Return the logits at every position, (T, V)."""
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 256
        params.n_threads = params.n_threads_batch = 1
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.type_k = params.type_v = llama.GGML_TYPE_F32
        context = llama.llama_init_from_model(self.model, params)
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        if code := llama.llama_decode(context, batch):
            raise RuntimeError(f"llama_decode returns {code}")
        rows = [
            np.ctypeslib.as_array(
                llama.llama_get_logits_ith(context, i), shape=(self.n_vocab,)
            ).copy()
            for i in range(len(tokens))
        ]
        llama.llama_batch_free(batch)
        llama.llama_free(context)
        return np.stack(rows)


def our_logits(model: GPT2, tokens: list[int]) -> np.ndarray[Any, Any]:
    """Return the package's logits at every position, (T, V)."""
    with torch.no_grad():
        return model(torch.tensor([tokens]))[0].numpy()


def check(name: str, kind: str, folder: Path) -> list[Row]:
    """Write one model in one type and compare."""
    model, tokenizer = models()[name]
    path = folder / f"{name}-{kind}.gguf"
    for note in write_gguf(path, model, tokenizer, kind):
        print(f"{path.name}: {note}")
    rounded, theirs = as_written(model, path), LlamaCpp(path)
    if theirs.n_vocab != tokenizer.n_vocab:
        raise SystemExit(f"{path.name}: {theirs.n_vocab} tokens")
    for token in range(tokenizer.n_vocab):
        if theirs.decode(token) != tokenizer.token_bytes(token):
            raise SystemExit(
                f"{path.name}: token {token} is spelled otherwise"
            )
    rows = []
    for text in TEXTS[name]:
        around = tokenizer.settings
        tokens = [*around.before, *tokenizer.encode(text), *around.after]
        if (found := theirs.encode(text)) != tokens:
            raise SystemExit(f"{path.name}: {text!r} is {found}, not {tokens}")
        tokens = tokens or [tokenizer.end_of_text]
        mine, its = our_logits(rounded, tokens), theirs.logits(tokens)
        written = [greedy(rounded, tokens), greedy(theirs, tokens)]
        same = [a == b for a, b in zip(*written, strict=True)]
        n_same = [*same, False].index(False)
        difference = float(np.abs(mine - its).max())
        spread = float(mine.std())
        rows.append(Row(name, kind, len(tokens), difference, spread, n_same))
    return rows


def greedy(model: GPT2 | LlamaCpp, tokens: list[int]) -> list[int]:
    """Append the most likely token, again and again."""
    tokens = list(tokens)
    for _ in range(N_NEW):
        if isinstance(model, LlamaCpp):
            rows = model.logits(tokens)
        else:
            rows = our_logits(model, tokens)
        tokens.append(int(rows[-1].argmax()))
    return tokens[-N_NEW:]


def main() -> None:
    """Check all, print a table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=TEXTS, help="one of the models")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    lines = [
        "| model | type | largest difference of logits | in standard "
        "deviations of the logits | generated tokens that agree |",
        "| --- | --- | --- | --- | --- |",
    ]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name in TEXTS:
            for kind in TYPES if only in (None, name) else ():
                rows = check(name, kind, Path(folder))
                difference = max(row.difference for row in rows)
                relative = max(row.difference / row.spread for row in rows)
                same = "; ".join(f"{row.n_same} of {N_NEW}" for row in rows)
                lines.append(
                    f"| {name} | {kind} | {difference:.2g} | {relative:.2g} "
                    f"| {same} |"
                )
                print(lines[-1])
                failed |= relative > BOUNDS[kind]
                failed |= kind == "f32" and any(r.n_same < N_NEW for r in rows)
    version = llama.__version__
    if only is None:
        RESULTS.write_text(
            f"Written by `check_gguf.py`, with llama-cpp-python {version}.\n\n"
            + "\n".join(lines)
            + "\n"
        )
    sys.exit("llama.cpp computes something else" if failed else 0)


if __name__ == "__main__":
    main()

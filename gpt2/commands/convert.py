"""`gpt2 convert`: write a checkpoint in another format."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2.commands.common import MODEL_HELP
from gpt2.commands.screen import say
from gpt2.commands.starting import load_torch
from gpt2.progress import task
from gpt2.tokenizer.bpe import TokenizerError
from gpt2.tokenizer.files import find_vocabulary
from gpt2.weights import loading
from gpt2.weights.gguf_writing import TYPES, write_gguf
from gpt2.weights.locating import locate
from gpt2.weights.nanogpt_writing import write_nanogpt
from gpt2.weights.readers import misread, unreadable

if TYPE_CHECKING:
    from gpt2.model import GPT2
    from gpt2.tokenizer.tokenizer import Tokenizer

HELP = "convert a checkpoint, also for llama.cpp or nanoGPT"
DESCRIPTION = (
    "Read any GPT-2 checkpoint and write it in another format, which the name "
    "OUT chooses. A folder gets Hugging Face's config.json, model.safetensors "
    "and tokenizer files. NAME.gguf is for llama.cpp; it contains the "
    "tokenizer, which need not be GPT-2's. NAME.pt is nanoGPT's ckpt.pt, for "
    "its sample.py; it contains no tokenizer. If llama.cpp or nanoGPT would "
    "compute something else, the setting is named and nothing is written: for "
    "GGUF, activations other than gelu_new, and tokenizers that change text "
    "before they split it; for nanoGPT, ReLU, and n_inner or "
    "layer_norm_epsilon other than GPT-2's. A file is written completely or "
    "not at all."
)
EXAMPLES = (
    "gpt2 convert path/to/model.ckpt folder",
    "gpt2 convert story story.gguf --type q8_0",
    "gpt2 convert story folder --dtype bfloat16",
)

# Names of single files that cannot be written, and would be odd as a folder's.
_OTHER_FORMATS = (
    *(".safetensors", ".bin", ".pth", ".ckpt", ".pkl", ".index", ".json"),
    *(".h5", ".msgpack", ".onnx", ".npz", ".ggml", ".zip", ".tar", ".gz"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("input", metavar="IN", help=MODEL_HELP)
    parser.add_argument(
        "output",
        metavar="OUT",
        help="the folder to write; or a file, NAME.gguf or NAME.pt",
    )
    parser.add_argument(
        "--dtype",
        choices=loading.DTYPES,
        help="for a folder or NAME.pt (default: the dtype of IN)",
    )
    parser.add_argument(
        "--type",
        choices=TYPES,
        help="for NAME.gguf, of its matrices (default: the dtype of IN); "
        "norms, biases and positions are always f32",
    )


def run(options: argparse.Namespace) -> None:
    """Read any checkpoint and write it in the chosen format."""
    suffix = _suffix(options)
    folder = locate(options.input).folder
    load_torch()
    with task(f"Reading {options.input}"):
        model = loading.load_model(options.input, options.dtype, "cpu")
    tokenizer = _tokenizer(folder, model, needed=suffix == ".gguf")
    out = Path(options.output).expanduser()
    if suffix and out.is_dir():
        raise IsADirectoryError(f"{out} is a folder, and not a file")
    with task(f"Writing {options.output}"):
        if suffix == ".gguf":
            assert tokenizer is not None
            notes = write_gguf(out, model, tokenizer, options.type)
        elif suffix == ".pt":
            notes = write_nanogpt(out, model, tokenizer)
        else:
            notes = _write_folder(out, model, tokenizer)
    for note in notes:
        say(f"note: {note}")
    dtype = options.type or str(model.wte.weight.dtype).removeprefix("torch.")
    print(f"{options.output}: {model.num_parameters():,} parameters, {dtype}")


def _suffix(options: argparse.Namespace) -> str:
    """Return `.gguf` or `.pt`, or nothing for a folder.

    Raises:
        ValueError: The name asks for another format, or an option does not go
            with it.
    """
    path = Path(options.output)
    suffix = path.suffix.lower()
    if suffix == ".gguf" and options.dtype is not None:
        raise ValueError(
            f"--dtype {options.dtype} does not go with {path.name}; choose "
            f"the numbers of GGUF by --type {', '.join(TYPES)}"
        )
    if suffix != ".gguf" and options.type is not None:
        raise ValueError(
            f"--type {options.type} goes only with NAME.gguf, and OUT is "
            f"{options.output}"
        )
    if suffix in (".gguf", ".pt"):
        return suffix
    if suffix in _OTHER_FORMATS and not path.is_dir():
        raise ValueError(
            f"{path.name} cannot be written: OUT must be a folder, NAME.gguf "
            f"or NAME.pt, and {suffix} is the name of another format"
        )
    return ""


def _tokenizer(folder: Path, model: GPT2, *, needed: bool) -> Tokenizer | None:
    """Read the tokenizer; if there is none and none is needed, say so."""
    try:
        return loading.read_tokenizer(folder, model.config)
    except TokenizerError as error:
        if needed or find_vocabulary(folder) is not None:
            raise
        say(f"no tokenizer is saved: {error}")
        return None


def _write_folder(
    folder: Path, model: GPT2, tokenizer: Tokenizer | None
) -> list[str]:
    """Write Hugging Face's layout, and say who cannot read it."""
    from gpt2.weights.saving import save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same notes, returned below
        save(model, tokenizer, folder)
    n_tokens = None if tokenizer is None else tokenizer.n_vocab
    return misread(model.config) + unreadable(model.config, n_tokens)

"""`gpt2 convert`: write a checkpoint in Hugging Face's layout."""

from __future__ import annotations

import argparse
import sys
import warnings

from gpt2.commands.common import MODEL_HELP
from gpt2.tokenizer.bpe import TokenizerError
from gpt2.tokenizer.files import find_vocabulary
from gpt2.weights import loading
from gpt2.weights.locating import locate
from gpt2.weights.readers import misread, unreadable

HELP = "write a checkpoint in Hugging Face's layout"
DESCRIPTION = (
    "Read any GPT-2 checkpoint and write config.json, model.safetensors and "
    "the tokenizer's files."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("input", metavar="IN", help=MODEL_HELP)
    parser.add_argument("output", metavar="OUT", help="the folder to write")
    parser.add_argument(
        "--dtype", choices=loading.DTYPES, help="default: the dtype of IN"
    )


def run(options: argparse.Namespace) -> None:
    """Read any checkpoint and write it in Hugging Face's layout."""
    from gpt2.weights.saving import save

    folder = locate(options.input).folder
    model = loading.load_model(options.input, options.dtype, "cpu")
    tokenizer = None
    try:
        tokenizer = loading.read_tokenizer(folder, model.config)
    except TokenizerError as error:
        if find_vocabulary(folder) is not None:
            raise
        print(f"gpt2: no tokenizer is saved: {error}", file=sys.stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same notes, printed below
        save(model, tokenizer, options.output)
    n_tokens = None if tokenizer is None else tokenizer.n_vocab
    for note in misread(model.config) + unreadable(model.config, n_tokens):
        print(f"gpt2: note: {note}", file=sys.stderr)
    print(
        f"{options.output}: {model.num_parameters():,} parameters, "
        f"{str(model.wte.weight.dtype).removeprefix('torch.')}"
    )

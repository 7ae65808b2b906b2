"""What several commands have in common."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gpt2.weights import loading

if TYPE_CHECKING:  # torch is imported when a command needs it, not for --help
    import torch

    from gpt2.model import GPT2
    from gpt2.tokenizer import Tokenizer

DEFAULT_MODEL = loading.STORY

WHICH_MODEL = (
    "Runs the small model of stories that comes along; --model gpt2 is the "
    "real GPT-2."
)

MODEL_HELP = (
    "a preset (story, which comes along; gpt2, gpt2-medium, gpt2-large, "
    "gpt2-xl, which are fetched), a folder, a file of weights, or a Hugging "
    "Face id (owner/name)"
)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add which model to use, and how to compute with it."""
    add = parser.add_argument
    add(
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"{MODEL_HELP} (default: {DEFAULT_MODEL})",
    )
    add("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")
    add(
        "--dtype",
        choices=(*loading.DTYPES, "int8"),
        default="float32",
        help="the numbers to compute with; bfloat16 and int8, for which "
        "weights are packed on a CPU, are faster and round (default: float32)",
    )


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """Add a text, a model, and how to draw from it."""
    add = parser.add_argument
    add(
        "text",
        nargs="?",
        metavar="TEXT",
        help="where to go on from; standard input if there is none",
    )
    add_model_options(parser)
    add(
        "--seed",
        type=int,
        metavar="N",
        help="draw the same every time (default: another seed every time)",
    )
    add(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="below 1 sharpens, above 1 flattens, 0 takes the likeliest "
        "token (default: 1)",
    )
    add("--top-k", type=int, metavar="K", help="draw from the K likeliest")
    add(
        "--top-p",
        type=float,
        metavar="P",
        help="draw from the likeliest that together reach probability P",
    )
    add(
        "--min-p",
        type=float,
        metavar="P",
        help="draw from what is at least P times as likely as the likeliest",
    )
    add(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="R",
        help="above 1 makes what came before less likely (default: 1)",
    )
    add("--json", action="store_true", help="print JSON")


def read_text(options: argparse.Namespace) -> str:
    """Return the text of the command line, or else standard input."""
    try:
        if options.text is not None:
            options.text.encode()  # what a shell hands over may be any bytes
            return str(options.text)
        if sys.stdin.isatty():
            print("gpt2: reading the text; Ctrl-D ends it", file=sys.stderr)
        return (
            sys.stdin.buffer.read()
            .decode()
            .removesuffix("\n")
            .removesuffix("\r")
        )
    except UnicodeError as error:
        raise ValueError(f"the text is not UTF-8: {error}") from error


def load(
    options: argparse.Namespace, *, writes: bool = False
) -> tuple[GPT2, Tokenizer]:
    """Load the model that was asked for, packed where that is faster.

    Args:
        options: The command line.
        writes: It will be run many times, token by token.
    """
    place, dtype = device(options), options.dtype
    if dtype == "int8" and place.type != "cpu":
        raise ValueError(f"int8 is for the CPU; got --device {options.device}")
    fast = ("float32", "bfloat16", "int8") if writes else ("bfloat16", "int8")
    if place.type != "cpu" or dtype not in fast:
        return loading.load(options.model, dtype, place)
    from gpt2.inference import for_inference

    # Packed from what the file has: it is rounded once.
    model, tokenizer = loading.load(options.model, None, place)
    model = for_inference(model, dtype, use_up=True)
    return model, tokenizer


def device(options: argparse.Namespace) -> torch.device:
    """Return the device asked for, or refuse one that is not there."""
    import torch

    try:
        torch.empty(0, device=options.device)
        return torch.device(options.device)
    except (RuntimeError, AssertionError) as error:
        raise RuntimeError(
            f"device {options.device!r} cannot be used: "
            f"{str(error).splitlines()[0]}"
        ) from error


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `Sampling`, refusing bad ones before a model loads.

    Where no seed is given, one is drawn, so that it can be shown.
    """
    import torch

    from gpt2.sampling import Sampling, seeded

    if options.seed is None:
        options.seed = secrets.randbelow(2**32)
    seeded(options.seed, torch.device("cpu"))
    names = [field.name for field in fields(Sampling)]
    settings = {name: getattr(options, name) for name in names}
    Sampling(**settings)
    return settings


def quoted(text: str) -> str:
    """Show a token with its spaces and line ends visible."""
    return json.dumps(text, ensure_ascii=False)


def print_json(value: Any) -> None:
    """Print a value for a program to read, whole whatever the encoding."""
    escape = (sys.stdout.encoding or "").lower() != "utf-8"
    print(json.dumps(value, indent=2, ensure_ascii=escape))


def print_table(
    rows: Sequence[Sequence[object]], right: Collection[int] = ()
) -> None:
    """Print rows in columns, of which those named go to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(padded).rstrip())


def positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number

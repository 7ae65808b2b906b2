"""What several commands have in common."""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gpt2.weights import loading

if TYPE_CHECKING:  # torch is imported when a command needs it, not for --help
    import torch

    from gpt2.model import LanguageModel
    from gpt2.tokenizer.tokenizer import Tokenizer

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
        type=SEED,
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
    add(
        "--top-k", type=positive, metavar="K", help="draw from the K likeliest"
    )
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
    except UnicodeError as error:
        raise ValueError(f"the text is not UTF-8: {error}") from error
    if sys.stdin is not None and sys.stdin.isatty():
        print("gpt2: reading the text; Ctrl-D ends it", file=sys.stderr)
    return read_standard_input().removesuffix("\n").removesuffix("\r")


def read_standard_input() -> str:
    """Return all of standard input."""
    if sys.stdin is None:
        raise ValueError("there is no text: standard input is closed")
    return decoded(sys.stdin.buffer.read(), "the text")


def decoded(data: bytes, name: str) -> str:
    """Decode UTF-8, or say that this file or text is something else."""
    try:
        return data.decode()
    except UnicodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error}") from error


def load(
    options: argparse.Namespace, *, writes: bool = False
) -> tuple[LanguageModel, Tokenizer]:
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
    from gpt2.inference.packed import for_inference

    # Packed from what the file has: it is rounded once.
    model, tokenizer = loading.load(options.model, None, place)
    return for_inference(model, dtype, consume=True), tokenizer


def device(options: argparse.Namespace) -> torch.device:
    """Return the device asked for, or refuse one that is not there."""
    import torch

    try:
        torch.zeros(1, device=options.device).item()  # computes and answers
        return torch.device(options.device)
    except (RuntimeError, AssertionError) as error:
        raise RuntimeError(
            f"--device {options.device!r:.40} cannot be used: "
            f"{str(error).splitlines()[0]:.200}"
        ) from error


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `Sampling`, refusing bad ones before a model loads.

    Where no seed is given, one is drawn, so that it can be shown.
    """
    from gpt2.sampling import Sampling

    if options.seed is None:
        options.seed = secrets.randbelow(2**32)
    names = [field.name for field in fields(Sampling)]
    settings = {name: getattr(options, name) for name in names}
    with by_option(*names):
        Sampling(**settings)
    return settings


@contextmanager
def by_option(*names: str) -> Iterator[None]:
    """Let a ValueError about a field speak of the option that sets it.

    Args:
        *names: Fields that are called like their option, `top_k` for
            `--top-k`.
    """
    try:
        yield
    except ValueError as error:
        either = "|".join(sorted(names, key=len, reverse=True))
        raise ValueError(
            re.sub(
                rf"\b({either})\b",
                lambda found: f"--{found[0].replace('_', '-')}",
                str(error),
            )
        ) from error


def check_memory(n_bytes: int, what: str) -> None:
    """Refuse what this machine cannot hold, before it is tried.

    Args:
        n_bytes: The least that is needed.
        what: What it is needed for, and the options that decide it.

    Raises:
        ValueError: The machine has less memory. Where it does not say how much
            it has, nothing is refused.
    """
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if n_bytes > there:
        raise ValueError(
            f"{what} would take {n_bytes / 1e9:,.1f} GB of memory at least, "
            f"and this machine has {there / 1e9:,.1f} GB"
        )


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


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """Return what parses a whole number, in bounds, for an option."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"must be a whole number, got {text!r:.40}"
            ) from error
        if number < least:
            raise argparse.ArgumentTypeError(
                f"must be {least} or more, got {number}"
            )
        if number > most:
            raise argparse.ArgumentTypeError(
                f"must be at most {most}, got {number}"
            )
        return number

    return parse


positive = whole(1)

SEED = whole(0, 2**32 - 1)
"""For a seed; PyTorch's generator for the CPU looks at no more of it."""

WRITTEN = whole(1, 1_000_000)
"""For how many texts there are to be: all of them are held in memory."""

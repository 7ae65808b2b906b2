"""Options and functions that several commands share."""

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

from gpt2.commands.devices import add_device_option, device
from gpt2.commands.screen import say
from gpt2.commands.starting import load_torch
from gpt2.prediction import table
from gpt2.progress import task
from gpt2.tokenizer.bpe import END_OF_TEXT
from gpt2.weights import loading
from gpt2.weights.locating import PRESET_NAMES, STORY

if TYPE_CHECKING:  # torch is imported when a command needs it, not for --help
    from gpt2.model import LanguageModel
    from gpt2.sampling import Sampling
    from gpt2.tokenizer.tokenizer import Tokenizer

DEFAULT_MODEL = STORY

WHICH_MODEL = (
    "By default, this runs the small story model that ships with the package; "
    "--model gpt2 runs the real GPT-2."
)

END_OF_INPUT = "Ctrl-Z and Enter" if os.name == "nt" else "Ctrl-D"
"""What ends standard input at a terminal."""

MODEL_HELP = (
    f"a preset ({', '.join(PRESET_NAMES)}; {STORY} ships with the package, "
    f"the others are fetched), a folder, a file of weights, or a Hugging Face "
    f"id (owner/name)"
)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model, a device and a dtype."""
    add = parser.add_argument
    add(
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"{MODEL_HELP} (default: {DEFAULT_MODEL})",
    )
    add_device_option(add)
    add(
        "--dtype",
        choices=(*loading.DTYPES, *loading.PACKED_ONLY),
        default="float32",
        help="the dtype to compute in; on a CPU, bfloat16, int8 and int4 use "
        "packed weights, each faster and less precise than the one before "
        "(default: float32)",
    )


def add_special_option(parser: argparse.ArgumentParser, task: str) -> None:
    """Add the option that reads the names of special tokens as text.

    Args:
        parser: The command's parser.
        task: What the help begins with, where only one task has the option.
    """
    parser.add_argument(
        "--no-special-tokens",
        dest="special_tokens",
        action="store_false",
        help=f"{task}read {END_OF_TEXT} and the names of other special tokens "
        "as characters (default: as those tokens, as train does)",
    )


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for a text, a model, and sampling from it."""
    add = parser.add_argument
    add(
        "text",
        nargs="?",
        metavar="TEXT",
        help="the prompt (default: standard input)",
    )
    add_special_option(parser, "")
    add_model_options(parser)
    add(
        "--seed",
        type=SEED,
        metavar="N",
        help="seed of the random numbers (default: a new one every time)",
    )
    _add_sampling_options(parser)
    add("--json", action="store_true", help="print JSON")


def _add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the fields of `Sampling`."""
    add = parser.add_argument
    add(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="below 1 sharpens the distribution, above 1 flattens it; 0 takes "
        "the most likely token (default: 1)",
    )
    add(
        "--top-k",
        type=positive,
        metavar="K",
        help="sample from the K most likely tokens",
    )
    add(
        "--top-p",
        type=float,
        metavar="P",
        help="sample from the fewest tokens that together have probability P",
    )
    add(
        "--min-p",
        type=float,
        metavar="P",
        help="sample from tokens at least P times as likely as the top one",
    )
    add(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="R",
        help="above 1 makes earlier tokens less likely (default: 1)",
    )


def read_text(options: argparse.Namespace) -> str:
    """Return the text from the command line, or else standard input."""
    try:
        if options.text is not None:
            options.text.encode()  # a shell may pass any bytes
            return str(options.text)
    except UnicodeError as error:
        raise ValueError(f"the text is not UTF-8: {error}") from error
    return read_standard_input().removesuffix("\n").removesuffix("\r")


def read_standard_input() -> str:
    """Read standard input; a ValueError says if it is closed."""
    if sys.stdin is None:
        raise ValueError("there is no text, and standard input is closed")
    if sys.stdin.isatty():
        say(f"reading the text; {END_OF_INPUT} ends it")
    return decoded(sys.stdin.buffer.read(), "the text")


def decoded(data: bytes, name: str) -> str:
    """Decode UTF-8 without its byte-order mark, if there is one.

    Raises:
        ValueError: The data are not UTF-8; the message has the name.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error}") from error


def load(
    options: argparse.Namespace, *, generates: bool = False
) -> tuple[LanguageModel, Tokenizer]:
    """Load the chosen model, packed if that is faster.

    Args:
        options: The command line.
        generates: Whether the model will run token by token.

    Raises:
        ValueError: int8 or int4 on another device than the CPU.
    """
    place, dtype = device(options), options.dtype
    if dtype in loading.PACKED_ONLY and place.type != "cpu":
        raise ValueError(
            f"{dtype} works only on the CPU; got --device {options.device}"
        )
    fast = {"bfloat16", *loading.PACKED_ONLY}
    if generates:
        fast.add("float32")
    with task(f"Loading {options.model}"):
        if place.type != "cpu" or dtype not in fast:
            return loading.load(options.model, dtype, place)
        from gpt2.inference.packed import for_inference

        # Packed from what the file has: it is rounded once.
        model, tokenizer = loading.load(options.model, None, place)
        return for_inference(model, dtype, consume=True), tokenizer


def sampling(options: argparse.Namespace) -> Sampling:
    """Return the sampling settings, checked before a model is loaded.

    If no seed is given, one is drawn and stored, so that it can be shown.

    Raises:
        ValueError: A setting is out of its range.
    """
    load_torch()
    from gpt2.sampling import Sampling

    if options.seed is None:
        options.seed = new_seed()
    names = [field.name for field in fields(Sampling)]
    with by_option(*names):
        return Sampling(**{name: getattr(options, name) for name in names})


def new_seed() -> int:
    """Draw a seed that no other run is likely to have."""
    return secrets.randbelow(2**32)


@contextmanager
def by_option(
    *names: str, kind: type[ValueError] = ValueError
) -> Iterator[None]:
    """Replace the name of a field in a ValueError by the option's.

    Args:
        *names: Fields with the names of their options, such as `top_k` for
            `--top-k`.
        kind: The errors to change.
    """
    try:
        yield
    except kind as error:
        either = "|".join(sorted(names, key=len, reverse=True))
        raise ValueError(
            re.sub(
                rf"\b({either})\b",
                lambda found: f"--{found[0].replace('_', '-')}",
                str(error),
            )
        ) from error


def check_memory(n_bytes: int, what: str) -> None:
    """Refuse what does not fit into this machine's memory.

    Args:
        n_bytes: The least memory that is needed.
        what: What needs it, and the options that decide how much.

    Raises:
        ValueError: The machine has less memory. If the system does not tell
            how much it has, nothing is refused.
    """
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if n_bytes > available:
        raise ValueError(
            f"{what} would take at least {n_bytes / 1e9:,.1f} GB of memory; "
            f"this machine has {available / 1e9:,.1f} GB"
        )


def print_json(value: Any) -> None:
    """Print a value as JSON, in ASCII unless standard output is UTF-8."""
    escape = (sys.stdout.encoding or "").lower() != "utf-8"
    print(json.dumps(value, indent=2, ensure_ascii=escape))


def print_table(
    rows: Sequence[Sequence[object]], right: Collection[int] = ()
) -> None:
    """Print rows in columns; those in `right` are aligned right."""
    print(table(rows, right))


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range, for an option."""

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
"""For a seed; PyTorch's CPU generator uses only 32 bits of it."""

N_TEXTS = whole(1, 1_000_000)
"""For a number of texts; all of them are held in memory."""

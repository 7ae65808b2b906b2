"""`gpt2 predict`: from a prompt to the next token, step by step."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from gpt2.commands.common import (
    WHICH_MODEL,
    add_text_options,
    load,
    positive,
    print_json,
    read_text,
    sampling,
)
from gpt2.commands.starting import load_torch

HELP = "explain the next token"
DESCRIPTION = (
    f"{WHICH_MODEL} Show a prompt as tokens, the likeliest next tokens, and "
    "the token that is drawn."
)
EXAMPLES = (
    'gpt2 predict "Hugo lived in a"',
    'gpt2 predict "John and Mary went to the" --model gpt2 --top 5',
    'gpt2 predict "Ella lost" --temperature 0 --json',
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_text_options(parser)
    parser.add_argument(
        "--top",
        type=positive,
        default=10,
        metavar="N",
        help="how many of the likeliest tokens to show (default: 10)",
    )


def run(options: argparse.Namespace) -> None:
    """Print the prediction of the next token."""
    load_torch()
    from gpt2.completion import predict

    settings = sampling(options)
    prompt = read_text(options)
    model, tokenizer = load(options)
    found = predict(
        model,
        tokenizer,
        prompt,
        options.top,
        settings,
        seed=options.seed,
        allow_special=options.special_tokens,
    )
    if options.json:
        print_json({"model": options.model, "prompt": prompt, **asdict(found)})
    else:
        print(f"{found}\nSeed: {options.seed}")

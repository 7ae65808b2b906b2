"""`gpt2 predict`: the whole way from a text to the token that follows."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from gpt2.commands.common import (
    add_text_options,
    load,
    positive,
    print_json,
    quoted,
    read_text,
    sampling,
)

HELP = "explain the next token"
DESCRIPTION = (
    "Show a text as tokens, what the model expects next, and the token that "
    "is drawn."
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
    """Show the way from a text to the token that follows it."""
    from gpt2.completion import predict as predict_next

    settings = sampling(options)
    prompt = read_text(options)
    model, tokenizer = load(options)
    found = predict_next(
        model,
        tokenizer,
        prompt,
        options.top,
        seed=options.seed,
        **settings,
    )
    if options.json:
        print_json({"model": options.model, "prompt": prompt, **asdict(found)})
        return
    print("The text as tokens:\n")
    print("position     id  token")
    for i, (token, text) in enumerate(
        zip(found.ids, found.texts, strict=True)
    ):
        print(f"{i:8} {token:6}  {quoted(text)}")
    print("\nWhat may come next:\n")
    print("rank     id  token              logit  probability  drawn with")
    for rank, candidate in enumerate(found.candidates, 1):
        print(
            f"{rank:4} {candidate.id:6}  {quoted(candidate.text):<16} "
            f"{candidate.logit:7.2f} {candidate.probability:11.2%} "
            f"{candidate.chance:11.2%}"
        )
    print(
        f"\nDrawn with seed {options.seed}: {quoted(found.sampled.text)} "
        f"(id {found.sampled.id}, probability {found.sampled.probability:.2%})"
    )

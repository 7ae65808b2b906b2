"""`gpt2 predict`: the whole way from a text to the token that follows."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from gpt2.commands.common import (
    WHICH_MODEL,
    add_text_options,
    load,
    positive,
    print_json,
    print_table,
    quoted,
    read_text,
    sampling,
)

HELP = "explain the next token"
DESCRIPTION = (
    f"{WHICH_MODEL} Show a text as tokens, what the model expects next, and "
    "the token that is drawn."
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
    ids_and_texts = zip(found.ids, found.texts, strict=True)
    print_table(
        [("position", "id", "token")]
        + [
            (i, id_, quoted(text))
            for i, (id_, text) in enumerate(ids_and_texts)
        ],
        right={0, 1},
    )
    print("\nWhat may come next, and the chance with which it is drawn:\n")
    print_table(
        [("rank", "id", "token", "logit", "probability", "chance")]
        + [
            (
                rank,
                each.id,
                quoted(each.text),
                f"{each.logit:.2f}",
                percent(each.probability),
                percent(each.chance),
            )
            for rank, each in enumerate(found.candidates, 1)
        ],
        right={0, 1, 3, 4, 5},
    )
    drawn = found.sampled
    print(
        f"\nDrawn with seed {options.seed}: {quoted(drawn.text)} "
        f"(id {drawn.id}, probability {percent(drawn.probability)}, "
        f"chance {percent(drawn.chance)})"
    )


def percent(share: float) -> str:
    """Write a share of 1 with three digits that count, however small."""
    return f"{100 * share:#.3g}".rstrip(".") + "%" if share else "0%"

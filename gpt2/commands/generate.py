"""`gpt2 generate`: continue a text."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from gpt2.commands.common import (
    WHICH_MODEL,
    WRITTEN,
    add_text_options,
    check_memory,
    device,
    load,
    print_json,
    read_text,
    sampling,
    whole,
)

if TYPE_CHECKING:
    from gpt2.model import GPT2
    from gpt2.tokenizer.tokenizer import Tokenizer

HELP = "continue a text"
DESCRIPTION = (
    f"{WHICH_MODEL} Print a text and stream what the model adds to it."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_text_options(parser)
    add = parser.add_argument
    add(
        "-n",
        "--max-tokens",
        type=whole(0),
        default=200,
        metavar="N",
        help="the most tokens to add (default: 200)",
    )
    add(
        "--samples",
        type=WRITTEN,
        default=1,
        metavar="N",
        help="how many continuations to write (default: 1)",
    )
    add(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end before this text; may be given several times",
    )
    add(
        "--beams",
        type=whole(1, 1000),
        metavar="N",
        help="search for the likeliest continuation with N beams instead of "
        "drawing one",
    )


def run(options: argparse.Namespace) -> None:
    """Stream continuations of a text."""
    import torch

    from gpt2.completion import complete
    from gpt2.sampling import Sampling

    settings = sampling(options)
    if "" in options.stop:
        raise ValueError("--stop must not be empty")
    if options.beams:
        usual = {**asdict(Sampling()), "samples": 1}
        drawing = [
            f"--{name.replace('_', '-')}"
            for name, value in usual.items()
            if getattr(options, name) != value
        ]
        if drawing:
            raise ValueError(
                f"--beams finds one continuation and draws nothing; drop "
                f"{', '.join(drawing)}"
            )
    prompt = read_text(options)
    model, tokenizer = load(options, generates=True)
    if options.beams is not None:
        beam = _beam(model, tokenizer, prompt, options)
        parts = iter([iter([beam])])
    else:
        generator = torch.Generator(device(options))
        generator.manual_seed(options.seed)
        parts = (
            complete(
                model,
                tokenizer,
                prompt,
                options.max_tokens,
                stop=options.stop,
                seed=generator,
                **settings,
            )
            for _ in range(options.samples)
        )
    if options.json:
        continuations = ["".join(pieces) for pieces in parts]
        print_json(
            {
                "model": options.model,
                "prompt": prompt,
                "continuations": continuations,
                "seed": options.seed,
            }
        )
        return
    for i, pieces in enumerate(parts):
        if i:
            print("\n---")
        print(prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()


def _beam(
    model: GPT2, tokenizer: Tokenizer, prompt: str, options: argparse.Namespace
) -> str:
    """Return what beam search adds to the prompt."""
    import torch

    from gpt2.completion import encode_prompt, until
    from gpt2.sampling import beam_search

    ids = encode_prompt(tokenizer, prompt)
    place, config = device(options), model.config
    if place.type == "cpu":  # cache and scores, of two bytes a number or more
        n_positions = min(len(ids) + options.max_tokens, config.n_ctx)
        cached = 2 * config.n_layer * n_positions * config.n_embd
        needed = 2 * options.beams * (cached + config.n_vocab)
        check_memory(needed, f"the search with --beams {options.beams}")
    tokens = torch.tensor([ids], device=place)
    best, _ = beam_search(
        model,
        tokens,
        options.max_tokens,
        n_beams=options.beams,
        stop_tokens=[tokenizer.end_of_text],
    )
    added = best[0, len(ids) :].tolist()
    if tokenizer.end_of_text in added:
        added = added[: added.index(tokenizer.end_of_text)]
    return "".join(until([tokenizer.decode(added)], options.stop))

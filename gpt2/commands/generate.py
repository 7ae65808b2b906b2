"""`gpt2 generate`: continue a text."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from gpt2.commands.common import (
    N_TEXTS,
    WHICH_MODEL,
    add_text_options,
    check_memory,
    device,
    load,
    print_json,
    read_text,
    sampling,
    whole,
)
from gpt2.weights import loading

if TYPE_CHECKING:
    from gpt2.model import LanguageModel
    from gpt2.sampling import Sampling
    from gpt2.tokenizer.tokenizer import Tokenizer

HELP = "continue a text"
DESCRIPTION = (
    f"{WHICH_MODEL} Print a text and stream its continuation. "
    "On a CPU, except in float16, this runs the packed model "
    "(gpt2.for_inference): the same weights, laid out for fast decoding. Its "
    "C code is compiled on first use and kept in ~/.cache/gpt2-from-scratch; "
    "without a C compiler, PyTorch does the work. --unpacked runs gpt2.GPT2, "
    "the model that the book builds."
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
        type=N_TEXTS,
        default=1,
        metavar="N",
        help="how many continuations to generate (default: 1)",
    )
    add(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end before this text; may be repeated",
    )
    add(
        "--beams",
        type=whole(1, 1000),
        metavar="N",
        help="search for the likeliest continuation with N beams instead of "
        "sampling",
    )
    add(
        "--unpacked",
        action="store_true",
        help="run the model as the book builds it; slower",
    )


def run(options: argparse.Namespace) -> None:
    """Stream continuations of a text."""
    settings = sampling(options)
    _check(options)
    prompt = read_text(options)
    model, tokenizer = _load(options)
    if options.beams is None:
        parts = _samples(model, tokenizer, prompt, settings, options)
    else:
        parts = iter([[_beam(model, tokenizer, prompt, options)]])
    if options.json:
        found = {
            "model": options.model,
            "prompt": prompt,
            "continuations": ["".join(pieces) for pieces in parts],
            "seed": options.seed,
        }
        print_json(found)
        return
    for i, pieces in enumerate(parts):
        if i:
            print("\n---")
        print(prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()


def _check(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other, before a model is loaded."""
    from gpt2.sampling import Sampling

    if "" in options.stop:
        raise ValueError("--stop must not be empty")
    if options.unpacked and options.dtype in loading.PACKED_ONLY:
        raise ValueError(f"--dtype {options.dtype} is packed; drop --unpacked")
    if options.beams is not None:
        usual = {**asdict(Sampling()), "samples": 1}
        changed = [
            f"--{name.replace('_', '-')}"
            for name, value in usual.items()
            if getattr(options, name) != value
        ]
        if changed:
            raise ValueError(
                f"--beams finds one continuation and does not sample; drop "
                f"{', '.join(changed)}"
            )


def _load(options: argparse.Namespace) -> tuple[LanguageModel, Tokenizer]:
    """Load the model, packed where that is faster."""
    if options.unpacked:
        return loading.load(options.model, options.dtype, device(options))
    return load(options, generates=True)


def _samples(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    settings: Sampling,
    options: argparse.Namespace,
) -> Iterator[Iterable[str]]:
    """Yield the continuations, each as an iterator over its pieces."""
    import torch

    from gpt2.completion import stream_text

    generator = torch.Generator(device(options)).manual_seed(options.seed)
    for _ in range(options.samples):
        yield stream_text(
            model,
            tokenizer,
            prompt,
            options.max_tokens,
            settings,
            stop=options.stop,
            seed=generator,
            allow_special=options.special_tokens,
        )


def _beam(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    options: argparse.Namespace,
) -> str:
    """Return the continuation that beam search finds."""
    import torch

    from gpt2.beams import beam_search
    from gpt2.completion import encode_prompt, until

    ids = encode_prompt(tokenizer, prompt, options.special_tokens)
    place, config = device(options), model.config
    if place.type == "cpu":  # cache and scores, two bytes a number or more
        n_positions = min(len(ids) + options.max_tokens, config.n_ctx)
        cached = 2 * config.n_layer * n_positions * config.n_embd
        needed = 2 * options.beams * (cached + config.n_vocab)
        check_memory(needed, f"the search with --beams {options.beams}")
    best, _ = beam_search(
        model,
        torch.tensor([ids], device=place),
        options.max_tokens,
        n_beams=options.beams,
        stop_tokens=[tokenizer.end_of_text],
        n_vocab=tokenizer.n_vocab,
    )
    added = best[0, len(ids) :].tolist()
    if tokenizer.end_of_text in added:
        added = added[: added.index(tokenizer.end_of_text)]
    return "".join(until([tokenizer.decode(added)], options.stop))

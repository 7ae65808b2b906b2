"""`gpt2 generate`: continue a text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING

from gpt2.commands.common import (
    END_OF_INPUT,
    N_TEXTS,
    WHICH_MODEL,
    add_text_options,
    check_memory,
    load,
    new_seed,
    print_json,
    read_text,
    sampling,
    whole,
)
from gpt2.commands.devices import device
from gpt2.commands.screen import StandingText, ask, interrupts_raised, say
from gpt2.progress import task, track
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
EXAMPLES = (
    'gpt2 generate "Ella lost her red"',
    'gpt2 generate "" --temperature 0.7 --seed 1',
    'gpt2 generate "Alan Turing" --model gpt2 --max-tokens 50 --top-p 0.95',
    'gpt2 generate "Hugo lived in a" --samples 3 --stop "." --json',
    "gpt2 generate --beams 4 < beginning.txt",
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
    """Stream continuations of a text; without a text, ask for some."""
    if options.text is None and sys.stdin is not None and sys.stdin.isatty():
        _ask(options)
        return
    prompt = read_text(options)
    with _shown(prompt, options) as text:
        settings = sampling(options)
        _check(options)
        _write(*_load(options), prompt, settings, options, text)


def _ask(options: argparse.Namespace) -> None:
    """Ask for texts at a terminal, and continue each, until there are no more.

    Ctrl-C ends a continuation, or takes a text back, and the next text is
    asked for.
    """
    draws_seeds, settings = options.seed is None, sampling(options)
    _check(options)
    model, tokenizer = _load(options)
    say(
        "type a text for the model to continue; Ctrl-C stops a continuation, "
        f"{END_OF_INPUT} ends"
    )
    with interrupts_raised():
        while True:
            try:
                options.text = ask("> ")
                prompt = read_text(options)
                if draws_seeds:
                    options.seed = new_seed()
                with _shown(prompt, options) as text:
                    _write(model, tokenizer, prompt, settings, options, text)
            except EOFError:
                print(file=sys.stderr)
                return
            except KeyboardInterrupt:
                print(file=sys.stderr)
            except ValueError as error:  # of this text, such as its length
                say(error)


def _shown(
    prompt: str, options: argparse.Namespace
) -> StandingText | nullcontext[None]:
    """Show a prompt on a terminal at once, unless JSON is wanted."""
    return nullcontext() if options.json else StandingText(prompt)


def _write(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    settings: Sampling,
    options: argparse.Namespace,
    text: StandingText | None,
) -> None:
    """Print continuations of a prompt that `text` shows; None: as JSON."""
    if options.beams is None:
        parts = _samples(model, tokenizer, prompt, settings, options)
    else:
        parts = iter([[_beam(model, tokenizer, prompt, options)]])
    if text is None:
        parts = track(parts, "Generating", options.samples, "continuations")
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
            print(f"\n---\n{prompt}", end="", flush=True)
        else:
            text.show()
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
        place = device(options)
        with task(f"Loading {options.model}"):
            return loading.load(options.model, options.dtype, place)
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
    with task("Searching"):
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

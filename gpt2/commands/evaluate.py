"""`gpt2 eval`: how good a model is."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.commands.common import (
    N_TEXTS,
    SEED,
    add_model_options,
    by_option,
    decoded,
    load,
    positive,
    print_json,
    read_standard_input,
    whole,
)
from gpt2.files.reading import field, parse_json

if TYPE_CHECKING:
    from gpt2.evaluation.text import Choice

HELP = "measure how good a model is"
DESCRIPTION = (
    "Measure a model on text (perplexity and bits per byte), on HellaSwag "
    "questions or LAMBADA passages (files of JSON lines), or on stories, the "
    "probabilities of which are known."
)

_COUNTS = (
    ("--stories", whole(2, 1_000_000), 1000, "stories to measure the loss on"),
    ("--samples", N_TEXTS, 200, "stories to generate and check"),
    ("--probes", N_TEXTS, 100, "questions of each kind"),
)
"""For the task `stories`: an option, its type, its default, what it counts."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add = parser.add_argument
    add(
        "task",
        choices=("text", "hellaswag", "lambada", "stories"),
        help="what to measure on",
    )
    add(
        "files",
        nargs="*",
        metavar="FILE",
        help="files to measure on; default: standard input; none for stories",
    )
    add_model_options(parser)
    add(
        "--stride",
        type=positive,
        metavar="N",
        help="text: how many tokens the window advances (default: half of "
        "its length)",
    )
    add(
        "--special-as-text",
        action="store_true",
        help="text: read <|endoftext|> and other special tokens as ordinary "
        "text (default: as tokens, as in texts for training)",
    )
    for option, kind, default, what in _COUNTS:
        add(
            option,
            type=kind,
            default=default,
            metavar="N",
            help=f"stories: number of {what} (default: {default})",
        )
    add(
        "--seed",
        type=SEED,
        default=0,
        metavar="N",
        help="stories: the random seed (default: 0)",
    )
    add("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Measure a model on one of the tasks, and print the result.

    Raises:
        ValueError: An option, a file or the model does not fit the task.
    """
    tasks = {
        "text": _text,
        "hellaswag": _hellaswag,
        "lambada": _lambada,
        "stories": _stories,
    }
    if options.task == "stories" and options.files:
        raise ValueError(
            "eval stories generates its own stories; drop the files: "
            + " ".join(options.files)
        )
    tasks[options.task](options)


def _text(options: argparse.Namespace) -> None:
    from gpt2.evaluation.text import text_loss

    texts = _read(options)
    if not (text := "".join(texts.values())):
        raise ValueError(f"{', '.join(texts)}: there is no text")
    model, tokenizer = load(options)
    with by_option("stride"):
        loss = text_loss(
            model,
            tokenizer,
            text,
            stride=options.stride,
            allow_special=not options.special_as_text,
        )
    facts = {
        "tokens": loss.n_tokens,
        "bytes": loss.n_bytes,
        "nats_per_token": loss.nats_per_token,
        "perplexity": loss.perplexity,
        "bits_per_byte": loss.bits_per_byte,
    }
    if options.json:
        print_json({"model": options.model, **facts})
        return
    print(f"tokens          {loss.n_tokens:,}")
    print(f"bytes           {loss.n_bytes:,}")
    print(f"nats per token  {loss.nats_per_token:.4f}")
    print(f"perplexity      {loss.perplexity:.3f}")
    print(f"bits per byte   {loss.bits_per_byte:.4f}")


def _hellaswag(options: argparse.Namespace) -> None:
    from gpt2.evaluation.text import choose_endings

    questions = [_question(*line) for line in _lines(options)]
    result = choose_endings(*load(options), questions)
    if options.json:
        print_json({"model": options.model, **asdict(result)})
        return
    n = result.n_questions
    print(f"questions                {n:,}")
    print(f"right                    {result.n_right / n:.4f}")
    print(f"right, length-normalized {result.n_right_normalized / n:.4f}")


def _lambada(options: argparse.Namespace) -> None:
    from gpt2.evaluation.text import continues_greedily, last_word

    passages = [
        last_word(field(line, "text", str, place, ValueError))
        for line, place in _lines(options)
    ]
    right = continues_greedily(*load(options), passages)
    if options.json:
        print_json(
            {
                "model": options.model,
                "n_passages": len(right),
                "n_right": sum(right),
            }
        )
        return
    print(f"passages         {len(right):,}")
    print(f"last word right  {sum(right) / len(right):.4f}")


def _stories(options: argparse.Namespace) -> None:
    from gpt2.evaluation.stories import (
        grade_probes,
        grade_samples,
        measure_gap,
    )

    model, tokenizer = load(options)
    gap = measure_gap(model, tokenizer, options.stories, options.seed)
    samples = grade_samples(model, tokenizer, options.samples, options.seed)
    grades = grade_probes(model, tokenizer, options.probes, options.seed)
    accepted = sum(bool(sample.verdict) for sample in samples)
    if options.json:
        print_json(
            {
                "model": options.model,
                "gap": {**asdict(gap), "per_token": gap.per_token},
                "n_samples": len(samples),
                "n_accepted": accepted,
                "probes": [asdict(grade) for grade in grades],
            }
        )
        return
    print(
        f"loss      {gap.nats / gap.n_tokens:.4f} nats per token, on "
        f"{gap.n_stories:,} new stories"
    )
    print(
        f"entropy   {gap.least_nats / gap.n_tokens:.4f} of the same stories, "
        "the lowest possible loss"
    )
    print(f"gap       {gap.per_token:.4f} ± {gap.standard_error:.4f}")
    print(f"samples   {accepted} of {len(samples)} are valid stories")
    for sample in samples:
        if not sample.verdict:
            print(f"          not valid: {sample.verdict}")
    print("\nquestions about combinations never seen in training:\n")
    print("kind         right      words back")
    for grade in grades:
        share = f"{grade.n_right} of {grade.n_probes}"
        print(f"{grade.kind:<11} {share:>11} {grade.mean_distance:9.1f}")


def _read(options: argparse.Namespace) -> dict[str, str]:
    """Read the files, or standard input; map each name to its text."""
    if not options.files:
        return {"standard input": read_standard_input()}
    return {
        name: decoded(Path(name).read_bytes(), name)
        .replace("\r\n", "\n")
        .replace("\r", "\n")
        for name in options.files
    }


def _lines(options: argparse.Namespace) -> list[tuple[dict[str, Any], str]]:
    """Read JSON lines: each object, with its file and line number."""
    found, texts = [], _read(options)
    for name, text in texts.items():
        for number, line in enumerate(text.split("\n"), 1):
            place = f"{name}, line {number}"
            if not line.strip():
                continue
            value = parse_json(line.encode(), place, ValueError)
            if not isinstance(value, dict):
                raise ValueError(
                    f"{place}: expected a JSON object, got {line:.60}"
                )
            found.append((value, place))
    if not found:
        raise ValueError(f"{', '.join(texts)}: there are no lines of JSON")
    return found


def _question(line: dict[str, Any], place: str) -> Choice:
    """Read a question of HellaSwag from a line of JSON."""
    from gpt2.evaluation.text import Choice

    endings = field(line, "endings", list, place, ValueError)
    if not all(isinstance(ending, str) for ending in endings):
        raise ValueError(
            f"{place}: field 'endings' must be a list of strings, got "
            f"{endings!r:.80}"
        )
    label = field(line, "label", (int, str), place, ValueError)
    try:
        number = int(label)  # in some copies of the data a string
    except ValueError as error:
        raise ValueError(
            f"{place}: field 'label' must be a whole number, got {label!r:.60}"
        ) from error
    context = field(line, "ctx", str, place, ValueError)
    return Choice(context, tuple(f" {ending}" for ending in endings), number)

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
    add_special_option,
    by_option,
    load,
    positive,
    print_json,
    read_standard_input,
    whole,
)
from gpt2.commands.starting import load_torch
from gpt2.files.reading import field, parse_json
from gpt2.texts import find_texts, read_blocks
from gpt2.tokenizer.bpe import END_OF_TEXT

if TYPE_CHECKING:
    from gpt2.evaluation.text import Choice

HELP = "measure how good a model is"
DESCRIPTION = (
    "Measure a model on text (perplexity and bits per byte), on HellaSwag "
    "questions or LAMBADA passages (files of JSON lines), or on stories, the "
    "probabilities of which are known."
)
EXAMPLES = (
    "gpt2 eval stories",
    "gpt2 eval text book.txt --model gpt2",
    "gpt2 eval hellaswag hellaswag_val.jsonl --model gpt2 --dtype bfloat16",
    "gpt2 eval lambada lambada_test.jsonl --json",
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
        help="files to measure on, and for text folders of them; each file is "
        f"a document, and {END_OF_TEXT} separates documents within one "
        "(default: standard input; none for stories)",
    )
    add_model_options(parser)
    add(
        "--stride",
        type=positive,
        metavar="N",
        help="text: how many tokens the window advances (default: half of "
        "its length)",
    )
    add_special_option(parser, "text: ")
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
    load_torch()
    tasks[options.task](options)


def _text(options: argparse.Namespace) -> None:
    from gpt2.evaluation.text import text_loss
    from gpt2.texts import split_documents

    texts = _read(options)
    if not any(map(split_documents, texts.values())):
        raise ValueError(f"{', '.join(texts)}: there is no text")
    model, tokenizer = load(options)
    with by_option("stride"):
        loss = text_loss(
            model,
            tokenizer,
            list(texts.values()),
            stride=options.stride,
            allow_special=options.special_tokens,
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

    passages = []
    for line, place in _lines(options):
        text = field(line, "text", str, place, ValueError)
        try:
            passages.append(last_word(text))
        except ValueError as error:
            raise ValueError(f"{place}: field 'text': {error}") from error
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
        text = read_standard_input().replace("\r\n", "\n")
        return {"standard input": text.replace("\r", "\n")}
    paths = [Path(name) for name in options.files]
    if options.task == "text":
        paths = find_texts(paths)
    return {str(path): "".join(read_blocks(path)) for path in paths}


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
    if len(endings) < 2 or not all(
        isinstance(ending, str) and ending.strip() for ending in endings
    ):
        raise ValueError(
            f"{place}: field 'endings' must be a list of two strings or more, "
            f"none of them empty, got {endings!r:.80}"
        )
    context = field(line, "ctx", str, place, ValueError)
    return Choice(
        context,
        tuple(f" {ending}" for ending in endings),
        _label(line, len(endings), place),
    )


def _label(line: dict[str, Any], n_endings: int, place: str) -> int:
    """Read the index of the right ending, in some copies a string."""
    if line.get("label") in (None, ""):
        raise ValueError(
            f"{place} has no 'label', the index of the right ending; "
            f"HellaSwag's test split has none, so measure on the validation "
            f"split"
        )
    label = field(line, "label", (int, str), place, ValueError)
    allowed = [str(index) for index in range(n_endings)]
    if str(label) not in allowed:
        raise ValueError(
            f"{place}: field 'label' must be from 0 to {n_endings - 1}, one "
            f"of the endings, got {label!r:.60}"
        )
    return allowed.index(str(label))

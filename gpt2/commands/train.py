"""`gpt2 train`: train a model on stories or on any text."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2 import stories
from gpt2.commands.common import MODEL_HELP, positive
from gpt2.config import ACTIVATIONS, GPT2Config
from gpt2.tokenizer import END_OF_TEXT, Tokenizer

if TYPE_CHECKING:
    from gpt2.data import Tokens
    from gpt2.model import GPT2
    from gpt2.training.workers import Workers

HELP = "train a model, on stories or on any text"
DESCRIPTION = (
    "Train a GPT-2. Without further options, this is how the small model of "
    "stories was made; --data trains on text files, --model goes on from a "
    "checkpoint."
)

# The first stories of a stream are learned from, this many are held out, and
# the streams begin at different seeds.
_HELD_OUT_STORIES = 5_000
_TRAINING_SEED, _HELD_OUT_SEED = 1, 2
_TOKENIZER_CHARACTERS = 10_000_000
_BLOCK_CHARACTERS = 1 << 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add = parser.add_argument
    add("output", metavar="OUT", help="the folder of the run")
    add("--resume", action="store_true", help="go on with the run in OUT")
    group = parser.add_argument_group("what is learned")
    add = group.add_argument
    add(
        "--data",
        nargs="+",
        metavar="FILE",
        help=f"text files; documents in one are parted by {END_OF_TEXT} "
        f"(default: stories)",
    )
    add(
        "--stories",
        type=positive,
        default=400_000,
        metavar="N",
        help="how many stories to write, where there is no --data "
        "(default: 400000)",
    )
    add(
        "--held-out",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="how much of --data to keep for measuring (default: 0.05)",
    )
    group = parser.add_argument_group("who learns it")
    add = group.add_argument
    add("--model", metavar="MODEL", help=f"go on from {MODEL_HELP}")
    add(
        "--tokenizer",
        choices=("own", "gpt2", "bytes"),
        default="own",
        help="own: learned from the data; gpt2: OpenAI's; bytes: no merges "
        "(default: own, or that of --model)",
    )
    add(
        "--n-vocab",
        type=positive,
        default=2048,
        metavar="N",
        help="entries of a tokenizer that is learned (default: 2048)",
    )
    for size, default, what in (
        ("n_ctx", 256, "positions"),
        ("n_embd", 192, "width"),
        ("n_head", 4, "heads in a layer"),
        ("n_layer", 4, "layers"),
    ):
        _add_field(group, size, positive, default, what)
    add(
        "--activation",
        choices=ACTIVATIONS,
        default="gelu_new",
        help="of the feed-forward network (default: gelu_new)",
    )
    add(
        "--dropout",
        type=float,
        default=0.0,
        metavar="P",
        help="share of numbers to drop while training (default: 0)",
    )
    group = parser.add_argument_group("how")
    choices: tuple[tuple[str, Any, float | None, str], ...] = (
        ("n_steps", positive, 8000, "steps"),
        ("batch_size", positive, 16, "rows for each step"),
        ("n_accumulate", positive, 1, "parts that these are cut into"),
        ("context", positive, None, "tokens in a row; the most, by default"),
        ("learning_rate", float, 2e-3, "the highest learning rate"),
        ("final_learning_rate", float, 2e-5, "the last learning rate"),
        ("n_warmup", int, 200, "steps of warm-up"),
        ("weight_decay", float, 0.1, "decay of matrices"),
        ("clip", float, 1.0, "longest gradient"),
        ("seed", int, 0, "of the weights, the rows and the dropout"),
        ("evaluate_every", positive, 200, "steps between held-out losses"),
        ("evaluate_rows", positive, 256, "rows to measure them on"),
        ("patience", positive, None, "stop after N of them without a best"),
        ("save_every", positive, 200, "steps between checkpoints"),
    )
    for name, kind, standard, what in choices:
        _add_field(group, name, kind, standard, what)
    add = group.add_argument
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        default="bfloat16",
        help="of matrix products; weights stay float32 (default: bfloat16)",
    )
    add(
        "--attention",
        choices=("fused", "explicit"),
        default="explicit",
        help="who computes attention (default: explicit, which on a CPU was "
        "the faster one for 256 tokens)",
    )
    add("--compile", action="store_true", help="let torch.compile fuse more")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add(
        "--sharing",
        choices=("ddp", "fsdp"),
        default="ddp",
        help="under torchrun: a whole model for each process, or a share",
    )
    add(
        "--snapshots",
        type=int,
        nargs="+",
        default=[],
        metavar="STEP",
        help="keep a copy of the model after these steps",
    )
    add("--quiet", action="store_true", help="no progress bar and no samples")


def _add_field(
    group: Any, name: str, kind: Any, default: Any, what: str
) -> None:
    shown = "" if default is None else f" (default: {default})"
    group.add_argument(
        f"--{name.replace('_', '-')}",
        type=kind,
        default=default,
        metavar="N",
        help=what + shown,
    )


def run(options: argparse.Namespace) -> None:
    """Prepare the data and the model, train, and show how it goes."""
    from gpt2.training.workers import Workers

    settings = _settings(options)
    workers = Workers.join(options.device, options.sharing)
    try:
        _train(options, settings, workers)
    finally:
        workers.leave()


def _settings(options: argparse.Namespace) -> Any:
    """Return the run's settings, refusing bad ones before any work."""
    from gpt2.training.settings import TrainingSettings

    values = {
        field.name: getattr(options, field.name)
        for field in fields(TrainingSettings)
        if hasattr(options, field.name)
    }
    return TrainingSettings(
        **values,
        fused_attention=options.attention == "fused",
        windows="anywhere" if options.data else "documents",
    )


def _train(
    options: argparse.Namespace, settings: Any, workers: Workers
) -> None:
    import torch

    from gpt2.training.loop import Run
    from gpt2.training.metrics import Metrics, draw

    folder = Path(options.output)
    # The first process prepares the data, the others then find it ready.
    if not workers.is_first:
        workers.wait()
    data = _prepare(options, folder, quiet=not workers.is_first)
    if workers.is_first:
        workers.wait()
    torch.manual_seed(options.seed)
    model = _model(options, data.tokenizer)
    run = Run(
        model,
        data.tokens,
        data.held_out,
        settings,
        folder,
        tokenizer=data.tokenizer,
        workers=workers,
        snapshots=frozenset(options.snapshots),
        resume=options.resume,
    )
    if not workers.is_first:
        for _ in run.steps():
            pass
        return
    facts = {
        "title": f"{model.num_parameters():,} parameters",
        "n_parameters": model.num_parameters(),
        "config": asdict(model.config),
        "settings": asdict(settings),
        "entropy": data.entropy,
    }
    metrics = Metrics(folder, facts, run.progress.step)
    try:
        _show(run, model, data, metrics, options)
    finally:
        metrics.close()
    draw(folder)
    progress = run.progress
    print(
        f"{folder}: {progress.step:,} steps, {progress.n_tokens:,} tokens; "
        f"lowest held-out loss {progress.best_loss:.4f} nats per token, after "
        f"step {progress.best_step:,}"
    )
    if data.entropy is not None:
        gap = progress.best_loss - data.entropy
        print(
            f"The entropy of the stories is {data.entropy:.4f} nats per "
            f"token; the model is {gap:.4f} above it"
        )


def _show(
    run: Any,
    model: GPT2,
    data: Data,
    metrics: Any,
    options: argparse.Namespace,
) -> None:
    """Take the steps, with a progress bar, a record and now and then a sample.

    The samples have a generator of their own: they do not change the run.
    """
    from tqdm import tqdm

    bar = tqdm(
        total=run.settings.n_steps,
        initial=run.progress.step,
        unit="step",
        disable=options.quiet,
        dynamic_ncols=True,
    )
    with bar:
        speed = held_out = 0.0
        for report in run.steps():
            metrics.add(report)
            tokens = run.settings.batch_size * run.context
            now = tokens / report.seconds
            speed = now if speed == 0 else 0.9 * speed + 0.1 * now
            if report.held_out_loss is not None:
                held_out = report.held_out_loss
                if not options.quiet:
                    bar.write(_sample(model, data.tokenizer, report.step))
            shown = {"loss": f"{report.loss:.3f}", "tok/s": f"{speed:,.0f}"}
            if held_out:
                shown["held-out"] = f"{held_out:.4f}"
            bar.set_postfix(shown, refresh=False)
            bar.update()


def _sample(model: GPT2, tokenizer: Tokenizer, step: int) -> str:
    from gpt2.completion import complete

    pieces = complete(model, tokenizer, "", 100, seed=step)
    text = "".join(islice(pieces, 100)).replace("\n", " ")
    return f"[step {step:,}] {text}"


@dataclass(frozen=True)
class Data:
    """What a run is trained and measured on."""

    tokens: Tokens
    held_out: Tokens
    tokenizer: Tokenizer
    entropy: float | None
    """Of the stories that the loss is measured on, in nats per token."""


def _prepare(options: argparse.Namespace, folder: Path, quiet: bool) -> Data:
    """Make the tokenizer and the files of tokens, or find them made.

    They are kept with a note of what they were made from, and made anew if
    that has changed.
    """
    from gpt2.data import read_tokens, write_tokens

    place = folder / "data"
    recipe = {
        name: getattr(options, name)
        for name in ("data", "stories", "held_out", "model", "tokenizer")
    } | {"n_vocab": options.n_vocab}
    note = place / "recipe.json"
    made = note.exists() and json.loads(note.read_text()) == recipe
    if made:
        tokenizer = Tokenizer.load(place)
        tokens = read_tokens(place / "train.bin")
    else:
        if not quiet:
            print("Preparing the data ...", file=sys.stderr)
        tokenizer = _tokenizer(options)
        tokenizer.save(place)
        tokens = write_tokens(
            place / "train.bin",
            _chunks(options, tokenizer),
            tokenizer.n_vocab,
            tokenizer.end_of_text,
        )
    if options.data:
        tokens, held_out = tokens.split(options.held_out)
        note.write_text(json.dumps(recipe))
        return Data(tokens, held_out, tokenizer, None)
    texts = list(_stories(_HELD_OUT_SEED, _HELD_OUT_STORIES))
    held_out = (
        read_tokens(place / "held-out.bin")
        if made
        else write_tokens(
            place / "held-out.bin",
            (_ended(tokenizer, text) for text in texts),
            tokenizer.n_vocab,
            tokenizer.end_of_text,
        )
    )
    note.write_text(json.dumps(recipe))
    measured = texts[: options.evaluate_rows]
    nats = -sum(map(stories.log_probability, measured))
    n_tokens = sum(len(_ended(tokenizer, text)) for text in measured)
    return Data(tokens, held_out, tokenizer, nats / n_tokens)


def _tokenizer(options: argparse.Namespace) -> Tokenizer:
    if options.model is not None:
        from gpt2.weights import loading
        from gpt2.weights.formats import open_weights

        place = loading.locate(options.model)
        infos = open_weights(place.weights).infos
        config = loading.read_config(place, infos)
        return loading.read_tokenizer(place.folder, config)
    if options.tokenizer == "gpt2":
        return Tokenizer.gpt2()
    if options.tokenizer == "bytes":
        return Tokenizer.bytes()
    texts = (
        _texts(options) if options.data else _stories(_TRAINING_SEED, 20000)
    )
    return Tokenizer.train(
        _some(texts, _TOKENIZER_CHARACTERS), options.n_vocab
    )


def _stories(seed: int, count: int) -> Iterator[str]:
    rng = random.Random(seed)
    return (stories.sample(rng) for _ in range(count))


def _some(texts: Iterator[str], most: int) -> Iterator[str]:
    """Pass texts on until they have `most` characters."""
    for text in texts:
        yield text
        most -= len(text)
        if most <= 0:
            return


def _texts(options: argparse.Namespace) -> Iterator[str]:
    """Read the files block by block, so that none has to fit into memory.

    A block ends where a line does, which is where no token crosses but such
    as hold several line ends; those are cut.
    """
    for name in options.data:
        with Path(name).open(encoding="utf-8", errors="replace") as file:
            while block := file.read(_BLOCK_CHARACTERS):
                yield block + file.readline()


def _chunks(
    options: argparse.Namespace, tokenizer: Tokenizer
) -> Iterator[list[int]]:
    """Encode the training texts, with an end of text behind each document."""
    if options.data is None:
        for text in _stories(_TRAINING_SEED, options.stories):
            yield _ended(tokenizer, text)
        return
    for block in _texts(options):
        yield tokenizer.encode(block, allow_special=True)
    yield [tokenizer.end_of_text]


def _ended(tokenizer: Tokenizer, text: str) -> list[int]:
    return [*tokenizer.encode(text), tokenizer.end_of_text]


def _model(options: argparse.Namespace, tokenizer: Tokenizer) -> GPT2:
    """Build the model that is to learn, or load the one that is to go on."""
    from gpt2.model import GPT2
    from gpt2.weights import loading

    dropout = {
        f"{place}_dropout": options.dropout
        for place in ("embd", "attn", "resid")
    }
    if options.model is not None:
        loaded = loading.load_model(options.model)
        model = GPT2(replace(loaded.config, **dropout))
        model.load_state_dict(loaded.state_dict())
        return model
    sizes = ("n_ctx", "n_embd", "n_head", "n_layer", "activation")
    chosen = {name: getattr(options, name) for name in sizes}
    return GPT2(GPT2Config(n_vocab=tokenizer.n_vocab, **chosen, **dropout))

"""`gpt2 train`: train a model on stories or on any text."""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2 import stories
from gpt2.bpe import END_OF_TEXT
from gpt2.commands.common import MODEL_HELP, device, positive
from gpt2.config import ACTIVATIONS, GPT2Config
from gpt2.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2.data import Tokens
    from gpt2.model import GPT2
    from gpt2.training.checkpoint import Progress
    from gpt2.training.loop import Report, Run
    from gpt2.training.metrics import Metrics
    from gpt2.training.settings import TrainingSettings
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
        help=f"text files; documents within one are parted by {END_OF_TEXT} "
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
        type=_share,
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
        help="own: learned from the data, or that of --model; gpt2: OpenAI's; "
        "bytes: no merges (default: own)",
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
        type=_share,
        default=0.0,
        metavar="P",
        help="share of numbers to drop while training (default: 0)",
    )
    group = parser.add_argument_group("how")
    choices: tuple[tuple[str, Any, float | None, str], ...] = (
        ("n_steps", positive, 12000, "steps"),
        ("batch_size", positive, 32, "rows for each step"),
        (
            "n_accumulate",
            positive,
            None,
            "parts that these are cut into (default: 1; for stories 2, which "
            "need less padding each)",
        ),
        ("context", positive, None, "tokens in a row; the most, by default"),
        ("learning_rate", float, 2e-3, "the highest learning rate"),
        (
            "final_learning_rate",
            float,
            None,
            "the last; a hundredth of it, by default",
        ),
        ("n_warmup", int, 200, "steps of warm-up"),
        ("weight_decay", float, 0.01, "decay of matrices"),
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
        "--optimizer",
        choices=("adamw", "muon"),
        default="muon",
        help="muon: for the matrices of the layers, adamw for the rest; or "
        "adamw for all (default: muon)",
    )
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


def _share(text: str) -> float:
    """Parse a share of something, from 0 up to but not 1."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(
            f"must be from 0 up to but not 1, got {number}"
        )
    return number


def run(options: argparse.Namespace) -> None:
    """Prepare the data and the model, train, and show how it goes."""
    from gpt2.training.checkpoint import check_folder
    from gpt2.training.workers import Workers

    settings = _settings(options)
    if options.model is None:
        _config(options, n_vocab=1)
    elif options.tokenizer != "own":
        raise ValueError(
            f"--model has a tokenizer of its own; got --tokenizer "
            f"{options.tokenizer}"
        )
    check_folder(Path(options.output), options.resume)
    workers = Workers.join(options.device, options.sharing)
    try:
        device(options)
        _train(options, settings, workers)
    finally:
        workers.leave()


def _settings(options: argparse.Namespace) -> TrainingSettings:
    """Return the run's settings, refusing bad ones before any work."""
    from gpt2.training.settings import TrainingSettings

    if options.final_learning_rate is None:
        options.final_learning_rate = options.learning_rate / 100
    if options.n_accumulate is None:
        options.n_accumulate = 1 if options.data else 2
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
    options: argparse.Namespace, settings: TrainingSettings, workers: Workers
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
        for report in run.steps():
            if _is_shown(report, options):
                _whole(run, model)
        return
    entropy = None
    if options.data is None:
        entropy = _entropy(settings.evaluate_rows, data.tokenizer, run.context)
    facts = {
        "title": f"{model.num_parameters():,} parameters",
        "n_parameters": model.num_parameters(),
        "config": asdict(model.config),
        "settings": asdict(settings),
        "entropy": entropy,
    }
    metrics = Metrics(folder, facts, run.progress.step)
    try:
        _show(run, model, data, metrics, options)
    finally:
        metrics.close()
    try:
        draw(folder)
    except ImportError as error:
        print(f"gpt2: no picture of the loss: {error}", file=sys.stderr)
    _summarise(folder, run.progress, entropy)


def _summarise(
    folder: Path, progress: Progress, entropy: float | None
) -> None:
    """Print what came out."""
    print(f"{folder}: {progress.step:,} steps, {progress.n_tokens:,} tokens")
    if progress.best_loss is None:
        return
    print(
        f"The lowest held-out loss was {progress.best_loss:.4f} nats per "
        f"token, after step {progress.best_step:,}"
    )
    if entropy is not None:
        print(
            f"The entropy of the stories is {entropy:.4f} nats per token; the "
            f"model is {progress.best_loss - entropy:.4f} above it"
        )


def _show(
    run: Run,
    model: GPT2,
    data: Data,
    metrics: Metrics,
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
        speed = 0.0
        shown = {}
        for report in run.steps():
            metrics.add(report)
            tokens = run.settings.batch_size * run.context
            now = tokens / report.seconds
            speed = now if speed == 0 else 0.9 * speed + 0.1 * now
            shown["loss"] = f"{report.loss:.3f}"
            shown["tok/s"] = f"{speed:,.0f}"
            if report.held_out_loss is not None:
                shown["held-out"] = f"{report.held_out_loss:.4f}"
            if _is_shown(report, options):
                text = _sample(_whole(run, model), data.tokenizer, report.step)
                bar.write(text, file=sys.stderr)
            bar.set_postfix(shown, refresh=False)
            bar.update()


def _is_shown(report: Report, options: argparse.Namespace) -> bool:
    """Tell whether there is to be a sample after this step."""
    look = report.step % options.evaluate_every == 0
    return (look or report.step == options.n_steps) and not options.quiet


def _whole(run: Run, model: GPT2) -> GPT2:
    """Return a model to draw from; all processes have to call this."""
    return run.whole_model() if run.workers.divides_model else model


def _sample(model: GPT2, tokenizer: Tokenizer, step: int) -> str:
    from gpt2.completion import complete

    n_tokens = min(100, model.config.n_ctx - 1)
    pieces = complete(model, tokenizer, "", n_tokens, seed=step)
    text = "".join(pieces).replace("\n", " ")
    return f"[step {step:,}] {text}"


@dataclass(frozen=True)
class Data:
    """What a run is trained and measured on."""

    tokens: Tokens
    held_out: Tokens | None
    tokenizer: Tokenizer


def _prepare(options: argparse.Namespace, folder: Path, quiet: bool) -> Data:
    """Make the tokenizer and the files of tokens, or find them made.

    They are kept with a note of what they were made from, and made anew if
    that has changed.

    Raises:
        ResumeError: They belong to a run that is to go on, and have changed.
    """
    from gpt2.data import read_tokens
    from gpt2.training.checkpoint import ResumeError, differences

    place = folder / "data"
    recipe = _recipe(options)
    note = place / "recipe.json"
    made_from = json.loads(note.read_text()) if note.exists() else {}
    if made_from != recipe:
        if made_from and options.resume:
            raise ResumeError(
                f"{folder} holds a run on other data: "
                f"{differences(made_from, recipe)}"
            )
        if not quiet:
            print("Preparing the data ...", file=sys.stderr)
        note.unlink(missing_ok=True)
        _make_data(options, place)
        stage = note.with_suffix(".part")
        stage.write_text(json.dumps(recipe))
        stage.replace(note)
    tokenizer = Tokenizer.load(place)
    tokens = read_tokens(place / "train.bin")
    if options.data is None:
        return Data(tokens, read_tokens(place / "held-out.bin"), tokenizer)
    if options.held_out == 0:
        return Data(tokens, None, tokenizer)
    return Data(*tokens.split(options.held_out), tokenizer)


def _recipe(options: argparse.Namespace) -> dict[str, Any]:
    """Return what decides the tokenizer and the tokens."""
    from gpt2.data import checksum

    names = ("stories", "held_out", "model", "tokenizer", "n_vocab")
    recipe = {name: getattr(options, name) for name in names}
    files = [Path(name) for name in options.data or []]
    for path in files:
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty")
    return recipe | {
        "data": [f"{path.name} ({checksum(path):08x})" for path in files]
    }


def _make_data(options: argparse.Namespace, place: Path) -> None:
    """Make the tokenizer, and the files of tokens with it."""
    from gpt2.data import write_tokens

    tokenizer = _tokenizer(options)
    # Where every row begins with a story, so should a prompt.
    tokenizer.add_bos_token = not options.data
    tokenizer.save(place)
    held_out = (
        _ended(tokenizer, text)
        for text in _stories(_HELD_OUT_SEED, _HELD_OUT_STORIES)
    )
    corpora = {"train.bin": _chunks(options, tokenizer)}
    if options.data is None:
        corpora["held-out.bin"] = held_out
    for name, chunks in corpora.items():
        write_tokens(
            place / name, chunks, tokenizer.n_vocab, tokenizer.end_of_text
        )


def _entropy(n_rows: int, tokenizer: Tokenizer, context: int) -> float | None:
    """Return how surprising the stories are that the loss is measured on.

    In nats per token, by the stories' own odds: no model can do better but by
    luck. None if one is too long for the context, since then the loss is
    measured on beginnings, which are more surprising than the rest.
    """
    texts = list(_stories(_HELD_OUT_SEED, min(n_rows, _HELD_OUT_STORIES)))
    lengths = [len(_ended(tokenizer, text)) for text in texts]
    if max(lengths) > context:
        return None
    return -sum(map(stories.log_probability, texts)) / sum(lengths)


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
    """Read the files block by block, so that none has to fit into memory."""
    for name in options.data:
        yield from _blocks(Path(name))


# Up to the last place where white space follows a character that shows: from
# the one to the other, no token crosses.
_UP_TO_SEAM = re.compile(r".*\S(?=[ \n])", re.DOTALL)


def _blocks(path: Path) -> Iterator[str]:
    """Read a file in blocks, of which each can be encoded by itself.

    The tokens are those of the whole, unless a block has no place to cut it,
    being one word or nothing but white space: then a token may be cut.
    """
    rest = ""
    longest = len(END_OF_TEXT)
    with path.open(encoding="utf-8", errors="replace") as file:
        while block := file.read(_BLOCK_CHARACTERS):
            rest += block
            found = _UP_TO_SEAM.match(rest)
            cut = max(found.end() if found else 0, rest.rfind(END_OF_TEXT))
            if cut <= 0 and len(rest) > 2 * longest:
                cut = len(rest) - longest  # never through an end of text
            if cut > 0:
                yield rest[:cut]
                rest = rest[cut:]
    if rest:
        yield rest


def _chunks(
    options: argparse.Namespace, tokenizer: Tokenizer
) -> Iterator[list[int]]:
    """Encode the training texts, with an end of text behind each document."""
    if options.data is None:
        for text in _stories(_TRAINING_SEED, options.stories):
            yield _ended(tokenizer, text)
        return
    for name in options.data:
        for block in _blocks(Path(name)):
            yield tokenizer.encode(block, allow_special=True)
        yield [tokenizer.end_of_text]


def _ended(tokenizer: Tokenizer, text: str) -> list[int]:
    return [*tokenizer.encode(text), tokenizer.end_of_text]


def _model(options: argparse.Namespace, tokenizer: Tokenizer) -> GPT2:
    """Build the model that is to learn, or load the one that is to go on."""
    from gpt2.model import GPT2
    from gpt2.weights import loading

    if options.model is None:
        return GPT2(_config(options, tokenizer.n_vocab))
    loaded = loading.load_model(options.model)
    model = GPT2(replace(loaded.config, **_dropout(options)))
    model.load_state_dict(loaded.state_dict())
    return model


def _config(options: argparse.Namespace, n_vocab: int) -> GPT2Config:
    sizes = ("n_ctx", "n_embd", "n_head", "n_layer", "activation")
    chosen = {name: getattr(options, name) for name in sizes}
    return GPT2Config(n_vocab, **chosen, **_dropout(options))


def _dropout(options: argparse.Namespace) -> dict[str, Any]:
    places = ("embd", "attn", "resid")
    return {f"{place}_dropout": options.dropout for place in places}

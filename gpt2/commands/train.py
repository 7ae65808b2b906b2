"""`gpt2 train`: train a model on stories or on any text."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.commands.common import (
    MODEL_HELP,
    SEED,
    by_option,
    check_memory,
    device,
    positive,
    whole,
)
from gpt2.config import ACTIVATIONS, GPT2Config
from gpt2.tokenizer.bpe import END_OF_TEXT
from gpt2.training import corpus

if TYPE_CHECKING:
    from gpt2.model import GPT2
    from gpt2.tokenizer.tokenizer import Tokenizer
    from gpt2.training.checkpoint import Progress
    from gpt2.training.corpus import Data, Source
    from gpt2.training.hold import Hold
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
        type=share,
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
        type=whole(257),
        default=1440,
        metavar="N",
        help="entries of a tokenizer that is learned (default: 1440)",
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
        type=share,
        default=0.0,
        metavar="P",
        help="share of numbers to drop while training (default: 0)",
    )
    group = parser.add_argument_group("how")
    choices: tuple[tuple[str, Any, float | None, str], ...] = (
        ("n_steps", positive, 7500, "steps"),
        ("batch_size", positive, 48, "rows for each step"),
        (
            "n_accumulate",
            positive,
            None,
            "parts that these are cut into (default: 1; for stories 3, which "
            "need less padding each)",
        ),
        ("context", positive, None, "tokens in a row; the most, by default"),
        (
            "learning_rate",
            float,
            None,
            "the highest learning rate (default: 0.002; for a new model of "
            "stories 0.004)",
        ),
        (
            "final_learning_rate",
            float,
            None,
            "the last; a hundredth of it, by default",
        ),
        ("n_warmup", whole(0), 200, "steps of warm-up"),
        (
            "weight_decay",
            float,
            None,
            "decay of matrices (default: 0.01; for a new model of stories 0)",
        ),
        ("clip", float, 1.0, "longest gradient"),
        ("seed", SEED, 0, "of the weights, the rows and the dropout"),
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
        help="of matrix products; weights stay float32. A CPU that does not "
        "compute in bfloat16 is faster with float32 (default: bfloat16)",
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
        type=whole(0),
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


def share(text: str) -> float:
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
    from gpt2.training.hold import hold
    from gpt2.training.workers import Workers

    settings = read_settings(options)
    check_options(options)
    check_folder(Path(options.output), options.resume)
    if not options.device.startswith("cuda"):
        device(options)
    workers = Workers.join(options.device, options.sharing)
    try:
        device(options)  # of CUDA's, each process has one of its own by now
        folder = Path(options.output)
        with hold(folder) if workers.is_first else nullcontext() as held:
            _train(options, settings, workers, held)
    finally:
        workers.leave()


def read_settings(options: argparse.Namespace) -> TrainingSettings:
    """Return the run's settings, refusing bad ones before any work."""
    from gpt2.training.settings import TrainingSettings

    on_stories = options.data is None
    begins = on_stories and options.model is None
    if options.learning_rate is None:
        options.learning_rate = 4e-3 if begins else 2e-3
    if options.weight_decay is None:
        # Decay holds back the logits of what never comes: with it, a model of
        # stories ends with more probability on words that cannot stand there.
        options.weight_decay = 0.0 if begins else 0.01
    if options.final_learning_rate is None:
        options.final_learning_rate = options.learning_rate / 100
    if options.n_accumulate is None:
        in_parts = on_stories and options.batch_size % 3 == 0
        options.n_accumulate = 3 if in_parts else 1
    values = {
        field.name: getattr(options, field.name)
        for field in fields(TrainingSettings)
        if hasattr(options, field.name)
    }
    with by_option(*values):
        return TrainingSettings(
            **values,
            fused_attention=options.attention == "fused",
            windows="anywhere" if options.data else "documents",
        )


def check_options(options: argparse.Namespace) -> None:
    """Refuse options that do not go together, before any work.

    Raises:
        ValueError: The message names them.
    """
    if (last := max(options.snapshots, default=0)) > options.n_steps:
        raise ValueError(
            f"--snapshots must be at most --n-steps, {options.n_steps}; got "
            f"{last}"
        )
    if options.patience and options.data and options.held_out == 0:
        raise ValueError(
            "--patience looks at held-out text, and there is none with "
            "--held-out 0"
        )
    if options.model is not None:
        if options.tokenizer != "own":
            raise ValueError(
                f"--model has a tokenizer of its own; got --tokenizer "
                f"{options.tokenizer}"
            )
        return
    with by_option("n_ctx", "n_embd", "n_head", "n_layer"):
        config = _config(options, n_vocab=1)
    if (options.context or 1) > config.n_ctx:
        raise ValueError(
            f"--context must be at most --n-ctx, {config.n_ctx}; got "
            f"{options.context}"
        )
    _check_sizes(options, config)


def _check_sizes(options: argparse.Namespace, config: GPT2Config) -> None:
    """Refuse a model or a batch that this machine's memory cannot hold."""
    width, length = config.n_embd, (options.context or config.n_ctx) + 1
    n_parameters = width * (
        config.n_ctx + config.n_layer * (12 * width + 13) + 2
    )
    # Weights, gradients and one number more for each; or the weights alone,
    # which are on their way to another device.
    each = 12 if options.device.startswith("cpu") else 4
    check_memory(
        each * n_parameters,
        f"a model of --n-embd {width}, --n-layer {config.n_layer} and --n-ctx "
        f"{config.n_ctx}",
    )
    # An int64 and a bool for each token. Rows of stories may be shorter, and
    # only so many are measured as there are.
    check_memory(
        9 * options.batch_size * (length if options.data else min(length, 64)),
        f"--batch-size {options.batch_size}",
    )
    if options.data:
        check_memory(
            9 * options.evaluate_rows * length,
            f"--evaluate-rows {options.evaluate_rows}",
        )


def _train(
    options: argparse.Namespace,
    settings: TrainingSettings,
    workers: Workers,
    held: Hold | None,
) -> None:
    import torch

    from gpt2.training.loop import Run
    from gpt2.training.metrics import Metrics, draw

    folder = Path(options.output)
    # The first process prepares the data, the others then find it ready.
    if not workers.is_first:
        workers.wait()
        if not (folder / "data" / "recipe.json").exists():
            raise RuntimeError(
                f"{folder} is not the folder that the first process sees; all "
                f"have to see one"
            )
    data = corpus.prepare(
        source(options),
        folder,
        resume=options.resume,
        preparing=_announce if workers.is_first else lambda: None,
    )
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
        held=held,
    )
    if not workers.is_first:
        for report in run.steps():
            if _is_shown(report, options):
                _whole(run, model)
        return
    entropy = None
    if options.data is None:
        entropy = corpus.entropy(
            settings.evaluate_rows, data.tokenizer, run.context
        )
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
    draw(folder)
    _summarise(folder, run.progress, entropy)


def source(options: argparse.Namespace) -> Source:
    """Return what the run learns from."""
    return corpus.Source(
        options.data and tuple(map(Path, options.data)),
        options.stories,
        options.held_out,
        options.tokenizer,
        options.n_vocab,
        options.model,
    )


def _announce() -> None:
    print("Preparing the data ...", file=sys.stderr)


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
        speed, n_tokens = 0.0, run.progress.n_tokens
        shown = {}
        for report in run.steps():
            metrics.add(report)
            now = (report.n_tokens - n_tokens) / report.seconds
            n_tokens = report.n_tokens
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
    text = complete(model, tokenizer, "", n_tokens, seed=step)
    return f"[step {step:,}] {text}".replace("\n", " ")


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

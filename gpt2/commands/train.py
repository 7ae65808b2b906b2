"""`gpt2 train`: train a model on stories or on any text."""

from __future__ import annotations

import argparse
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.commands.common import by_option
from gpt2.commands.devices import AUTO, choose_device, device
from gpt2.commands.screen import Bar
from gpt2.commands.starting import load_torch
from gpt2.commands.train_options import add_options
from gpt2.commands.train_settings import (
    check_memory_of,
    check_options,
    read_config,
    read_dropout,
    read_settings,
    read_source,
)
from gpt2.progress import shown_by, silent, task
from gpt2.training import corpus

if TYPE_CHECKING:  # torch is imported when the command runs, not for --help
    from gpt2.model import GPT2
    from gpt2.tokenizer.tokenizer import Tokenizer
    from gpt2.training.corpus import Data
    from gpt2.training.hold import Hold
    from gpt2.training.loop import Report, Run
    from gpt2.training.metrics import Metrics
    from gpt2.training.settings import TrainingSettings
    from gpt2.training.workers import Workers

ACCELERATORS = ("cuda",)
"""Those that training has been tried on."""

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_options", "run"]

HELP = "train a model, on stories or on any text"
DESCRIPTION = (
    "Train a GPT-2. The defaults are those with which the shipped model of "
    "stories was trained; --data trains on text files, --model fine-tunes a "
    "checkpoint."
)
EXAMPLES = (
    "gpt2 train folder",
    "gpt2 train folder --data book.txt --n-steps 2000",
    "gpt2 train folder --data book.txt --n-steps 2000 --resume",
    "gpt2 train folder --data texts --model gpt2 --learning-rate 0.0001",
)


def run(options: argparse.Namespace) -> None:
    """Prepare the data and the model, train, and show the progress."""
    settings, folder = read_settings(options), Path(options.output)
    check_options(options, settings)
    load_torch()
    from gpt2.training.checkpoint import check_folder
    from gpt2.training.hold import hold
    from gpt2.training.workers import Workers

    check_folder(folder, options.resume)
    if options.device == AUTO:
        options.device = choose_device(ACCELERATORS)
    check_memory_of(options, settings)
    if not options.device.startswith("cuda"):
        device(options)
    workers = Workers.join(options.device, options.sharing)
    is_silent = options.quiet or not workers.is_first
    try:
        device(options)  # a CUDA device is chosen in `join`
        with (
            hold(folder) if workers.is_first else nullcontext() as held,
            shown_by(silent) if is_silent else nullcontext(),
        ):
            _train(options, settings, workers, held or folder)
    finally:
        workers.leave()


def _train(
    options: argparse.Namespace,
    settings: TrainingSettings,
    workers: Workers,
    folder: Hold | Path,
) -> None:
    """Train, as one of the processes; the first one has a hold."""
    import torch

    from gpt2.data import DataError
    from gpt2.training.loop import Run
    from gpt2.training.metrics import Metrics, draw

    data = _prepare_data(options, workers)
    torch.manual_seed(settings.seed)
    model = _model(options, data.tokenizer)
    with by_option("held_out", "context", kind=DataError):
        run = Run(
            model,
            data.tokens,
            settings,
            folder,
            held_out=data.held_out,
            tokenizer=data.tokenizer,
            workers=workers,
            resume=options.resume,
        )
    if not workers.is_first:
        for report in run.steps(options.snapshots):
            if not options.quiet and _has_sample(report, settings):
                _whole_model(run, model)  # needs all processes
        return
    entropy = None
    if options.data is None:
        entropy = _entropy(run, data.tokenizer)
    facts = _facts(run, model, entropy)
    with closing(Metrics(run.folder, facts, run.progress.step)) as metrics:
        _show_steps(run, model, data.tokenizer, metrics, options)
    with task("Drawing the losses"):
        draw(run.folder)
    _summarise(run, entropy)


def _facts(run: Run, model: GPT2, entropy: float | None) -> dict[str, Any]:
    """Return what the record of a run begins with."""
    return {
        "title": f"{model.num_parameters():,} parameters",
        "n_parameters": model.num_parameters(),
        "config": asdict(model.config),
        "settings": asdict(run.settings),
        "entropy": entropy,
    }


def _entropy(run: Run, tokenizer: Tokenizer) -> float | None:
    """Return the entropy of the held-out stories, in nats per token."""
    n_rows, context = run.settings.evaluate_rows, run.row_length - 1
    return corpus.entropy(n_rows, tokenizer, context)


def _prepare_data(options: argparse.Namespace, workers: Workers) -> Data:
    """Let the first process prepare the data, and the others read them."""
    folder, source = Path(options.output), read_source(options)
    if not workers.is_first:
        workers.wait()
        if not (folder / "data" / "recipe.json").exists():
            raise RuntimeError(
                f"{folder} is not the folder that the first process has; all "
                f"processes need a common one"
            )
    data = corpus.prepare(source, folder, resume=options.resume)
    if workers.is_first:
        workers.wait()
    return data


def _show_steps(
    run: Run,
    model: GPT2,
    tokenizer: Tokenizer,
    metrics: Metrics,
    options: argparse.Namespace,
) -> None:
    """Train with a progress bar, a record, and a sample now and then.

    Samples have a random generator of their own and do not change the run.
    """
    n_steps = run.settings.n_steps
    bar = Bar(
        "Training",
        n_steps,
        "steps",
        begun=run.progress.step,
        patience=0,
        stays=True,
    )
    with nullcontext() if options.quiet else bar:
        speed, n_tokens = 0.0, run.progress.n_tokens
        facts: dict[str, str] = {}
        for report in run.steps(options.snapshots):
            metrics.add(report)
            now = (report.n_tokens - n_tokens) / report.seconds
            n_tokens = report.n_tokens
            speed = now if speed == 0 else 0.9 * speed + 0.1 * now
            facts["loss"] = f"{report.loss:.3f}"
            facts["tok/s"] = f"{speed:,.0f}"
            if report.held_out_loss is not None:
                facts["held-out"] = f"{report.held_out_loss:.4f}"
            bar.facts = dict(facts)  # a copy: another thread reads it
            bar(1)
            if not options.quiet and _has_sample(report, run.settings):
                bar.tell()
                bar.write(_sample(_whole_model(run, model), tokenizer, report))


def _has_sample(report: Report, settings: TrainingSettings) -> bool:
    """Tell whether a sample is shown after this step."""
    is_last = report.step == settings.n_steps
    return is_last or report.step % settings.evaluate_every == 0


def _whole_model(run: Run, model: GPT2) -> GPT2:
    """Return a model to sample from; all processes have to call this."""
    return run.whole_model() if run.workers.shards_model else model


def _sample(model: GPT2, tokenizer: Tokenizer, report: Report) -> str:
    from gpt2.completion import complete

    n_tokens = min(100, model.config.n_ctx - 1)
    text = complete(model, tokenizer, "", n_tokens, seed=report.step)
    return f"[step {report.step:,}] " + text.replace("\n", " ")


def _summarise(run: Run, entropy: float | None) -> None:
    """Print the outcome."""
    progress = run.progress
    print(
        f"{run.folder}: {progress.step:,} steps, {progress.n_tokens:,} tokens"
    )
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


def _model(options: argparse.Namespace, tokenizer: Tokenizer) -> GPT2:
    """Return a new model, or load the one to fine-tune."""
    from gpt2.model import GPT2
    from gpt2.weights import loading

    if options.model is None:
        return GPT2(read_config(options, tokenizer.n_vocab))
    loaded = loading.load_model(options.model)
    model = GPT2(replace(loaded.config, **read_dropout(options)))
    model.load_state_dict(loaded.state_dict())
    return model

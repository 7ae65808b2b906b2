"""What the options of `gpt2 train` say: data, settings and model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpt2.commands.common import by_option, check_memory
from gpt2.commands.train_options import SETTINGS, SIZES
from gpt2.config import GPT2Config
from gpt2.training.corpus import Source
from gpt2.training.settings import TrainingSettings


def read_source(options: argparse.Namespace) -> Source:
    """Return what the run trains on."""
    return Source(
        options.data and tuple(map(Path, options.data)),
        options.stories,
        options.held_out,
        options.tokenizer,
        options.n_vocab,
        options.model,
    )


def read_settings(options: argparse.Namespace) -> TrainingSettings:
    """Return the run's settings.

    Raises:
        ValueError: A value is not allowed; the message names the option.
    """
    given = {
        name: value
        for name in SETTINGS
        if (value := getattr(options, name)) is not None
    }
    given["compile"] = options.compile
    given["fused_attention"] = options.attention == "fused"
    with by_option(*SETTINGS):
        if options.data:
            return TrainingSettings(**given)
        is_new = options.model is None
        return TrainingSettings.for_stories(new=is_new, **given)


def read_config(options: argparse.Namespace, n_vocab: int) -> GPT2Config:
    """Return the configuration of a new model."""
    names = (*SIZES, "activation")
    chosen = {name: getattr(options, name) for name in names}
    return GPT2Config(n_vocab, **chosen, **read_dropout(options))


def read_dropout(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a configuration that set dropout."""
    places = ("embd", "attn", "resid")
    return {f"{place}_dropout": options.dropout for place in places}


def check_options(
    options: argparse.Namespace, settings: TrainingSettings
) -> None:
    """Check that the options go together, before any work is done.

    Args:
        options: The command line.
        settings: What `read_settings` made of it.

    Raises:
        ValueError: They do not; the message names them.
    """
    if (last := max(options.snapshots, default=0)) > settings.n_steps:
        raise ValueError(
            f"--snapshots must be at most --n-steps, {settings.n_steps}; got "
            f"{last}"
        )
    if settings.patience and options.data and options.held_out == 0:
        raise ValueError(
            "--patience needs held-out text; got --held-out 0, which leaves "
            "none"
        )
    if options.model is not None:
        if options.tokenizer != Source.tokenizer:
            raise ValueError(
                f"--model comes with its tokenizer; got --tokenizer "
                f"{options.tokenizer}"
            )
        return
    with by_option(*SIZES):
        config = read_config(options, n_vocab=1)
    if (settings.context or 1) > config.n_ctx:
        raise ValueError(
            f"--context must be at most --n-ctx, {config.n_ctx}; got "
            f"{settings.context}"
        )


def check_memory_of(
    options: argparse.Namespace, settings: TrainingSettings
) -> None:
    """Refuse a new model or a batch that this machine's memory cannot hold.

    Args:
        options: The command line, with the device that was chosen.
        settings: What `read_settings` made of it.

    Raises:
        ValueError: It cannot; the message names the options.
    """
    if options.model is not None:
        return
    config = read_config(options, n_vocab=1)
    width, length = config.n_embd, (settings.context or config.n_ctx) + 1
    n_parameters = width * (
        config.n_ctx + config.n_layer * (12 * width + 13) + 2
    )
    # Weights, gradients and at least one mean; for another device, only the
    # weights are here, on their way to it.
    n_bytes = 12 if options.device.startswith("cpu") else 4
    check_memory(
        n_bytes * n_parameters,
        f"a model of --n-embd {width}, --n-layer {config.n_layer} and --n-ctx "
        f"{config.n_ctx}",
    )
    # An int64 and a bool for each token. Rows of stories may be shorter, and
    # there may be fewer of them to measure.
    check_memory(
        9
        * settings.batch_size
        * (length if options.data else min(length, 64)),
        f"--batch-size {settings.batch_size}",
    )
    if options.data:
        check_memory(
            9 * settings.evaluate_rows * length,
            f"--evaluate-rows {settings.evaluate_rows}",
        )

"""The options of `gpt2 train`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, get_args

from gpt2.commands.common import (
    MODEL_HELP,
    SEED,
    positive,
    whole,
)
from gpt2.commands.devices import add_device_option
from gpt2.config import ACTIVATIONS, GPT2Config
from gpt2.texts import SUFFIXES
from gpt2.tokenizer.bpe import END_OF_TEXT
from gpt2.training.corpus import Source, TokenizerName
from gpt2.training.settings import (
    CHOICES,
    LEAST,
    NEW_STORIES,
    STORIES,
    TrainingSettings,
)

SIZES = {
    "n_ctx": (256, "context length, in tokens"),
    "n_embd": (192, "width"),
    "n_head": (4, "attention heads per layer"),
    "n_layer": (4, "layers"),
}
"""Defaults and meanings of the model's sizes; those of the shipped model."""

SETTINGS = {
    "n_steps": "optimizer steps",
    "batch_size": "rows per step",
    "n_accumulate": "micro-batches per step; more of them need less memory "
    "and, for stories, less padding",
    "context": "tokens per row (default: the model's n_ctx)",
    "learning_rate": "highest learning rate",
    "final_learning_rate": "last learning rate (default: a hundredth of the "
    "highest)",
    "n_warmup": "steps of warm-up",
    "weight_decay": "weight decay of matrices",
    "clip": "maximum gradient norm",
    "seed": "seed of weights, rows and dropout",
    "evaluate_every": "steps between measurements of the held-out loss",
    "evaluate_rows": "rows to measure it on",
    "patience": "stop after N measurements without a new best (default: "
    "never)",
    "save_every": "steps between checkpoints",
    "optimizer": "muon, for the matrices of the layers, with adamw for the "
    "rest; or adamw for all",
    "precision": "of matrix products; weights stay float32. On a CPU without "
    "bfloat16 instructions, float32 is faster",
}
"""The fields of `TrainingSettings` that have an option of their own."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add = parser.add_argument
    add("output", metavar="OUT", help="the run's folder")
    add("--resume", action="store_true", help="resume the run in OUT")
    _add_data_options(parser.add_argument_group("data"))
    _add_model_options(parser.add_argument_group("model"))
    _add_training_options(parser.add_argument_group("training"))


def _add_data_options(group: Any) -> None:
    group.add_argument(
        "--data",
        nargs="+",
        metavar="FILE",
        help=f"text files, and folders of them ({', '.join(SUFFIXES)}); each "
        f"file is a document, and {END_OF_TEXT} separates documents within "
        "one (default: generated stories)",
    )
    _add(
        group,
        "stories",
        positive,
        Source.n_stories,
        "how many stories to generate, without --data",
    )
    _add(
        group,
        "held_out",
        share,
        Source.held_out,
        "share of --data to hold out for measuring",
        metavar="SHARE",
    )


def _add_model_options(group: Any) -> None:
    group.add_argument(
        "--model", metavar="MODEL", help=f"fine-tune {MODEL_HELP}"
    )
    _add(
        group,
        "tokenizer",
        get_args(TokenizerName),
        Source.tokenizer,
        "own, trained on the data, or that of --model; gpt2, OpenAI's; bytes, "
        "without merges",
    )
    _add(
        group,
        "n_vocab",
        whole(257),
        Source.n_vocab,
        "vocabulary size of a tokenizer that is trained",
    )
    for name, (default, meaning) in SIZES.items():
        _add(group, name, positive, default, meaning)
    _add(
        group,
        "activation",
        ACTIVATIONS,
        GPT2Config.activation,
        "of the feed-forward network",
    )
    _add(
        group,
        "dropout",
        share,
        0.0,
        "share of numbers to drop in training",
        metavar="P",
    )


def _add_training_options(group: Any) -> None:
    for name, meaning in SETTINGS.items():
        _add_setting(group, name, meaning)
    fused = TrainingSettings.fused_attention
    _add(
        group,
        "attention",
        ("fused", "explicit"),
        "fused" if fused else "explicit",
        "PyTorch's fused kernel, or explicit matrix products, which on a CPU "
        "were faster for 256 tokens",
    )
    add = group.add_argument
    add("--compile", action="store_true", help="use torch.compile")
    add_device_option(add, ("cuda",))
    _add(
        group,
        "sharing",
        ("ddp", "fsdp"),
        "ddp",
        "under torchrun: each process holds the whole model, or a shard",
    )
    add(
        "--snapshots",
        type=whole(0),
        nargs="+",
        default=[],
        metavar="STEP",
        help="save a copy of the model after these steps",
    )
    add("--quiet", action="store_true", help="no progress bar, no samples")


def _add_setting(group: Any, name: str, meaning: str) -> None:
    """Add the option of a field of `TrainingSettings`.

    Kind and default are the field's. What the command line leaves out stays
    None: `read_settings` fills it in, as it may depend on the data.
    """
    kind: Any = float
    if name in CHOICES:
        kind = CHOICES[name]
    elif name in LEAST:
        kind = SEED if name == "seed" else whole(LEAST[name])
    default = getattr(TrainingSettings, name)
    if default is not None:
        meaning += f" (default: {_shown(default)}"
        if name in STORIES:
            meaning += f"; for stories {_shown(STORIES[name])}"
        if name in NEW_STORIES:
            meaning += (
                f"; for a new model of stories {_shown(NEW_STORIES[name])}"
            )
        meaning += ")"
    _add(group, name, kind, None, meaning)


def _add(
    group: Any,
    name: str,
    kind: Callable[[str], Any] | tuple[str, ...],
    default: Any,
    meaning: str,
    *,
    metavar: str = "N",
) -> None:
    """Add an option, and tell its default.

    Args:
        group: What to add it to.
        name: With underscores, as it is called in Python.
        kind: What parses it, or its possible values.
        default: Its value if it is not given.
        meaning: Its help text.
        metavar: What stands for the value in the help text.
    """
    if default is not None:
        meaning += f" (default: {_shown(default)})"
    values: dict[str, Any] = (
        {"choices": kind}
        if isinstance(kind, tuple)
        else {"type": kind, "metavar": metavar}
    )
    flag = f"--{name.replace('_', '-')}"
    group.add_argument(flag, default=default, help=meaning, **values)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def share(text: str) -> float:
    """Parse a share, from 0 up to but not 1."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(
            f"must be from 0 up to but not 1, got {number}"
        )
    return number

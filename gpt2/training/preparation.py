"""What a run checks before its first step, and what it takes up again."""

from __future__ import annotations

from dataclasses import asdict

from gpt2.config import GPT2Config
from gpt2.data import DataError, Tokens, draw_batch
from gpt2.model import GPT2
from gpt2.training.activation import choose_activation
from gpt2.training.attention import choose_attention
from gpt2.training.checkpoint import (
    OPTIMIZER,
    ResumeError,
    State,
    differences,
    unreadable,
)
from gpt2.training.optimizer import check_state, make_optimizers
from gpt2.training.settings import TrainingSettings
from gpt2.training.workers import Workers
from gpt2.weights.errors import CheckpointError
from gpt2.weights.loading import load_model


def check_inputs(
    config: GPT2Config,
    tokens: Tokens,
    held_out: Tokens | None,
    settings: TrainingSettings,
    workers: Workers,
) -> None:
    """Check that a run's model, data, settings and processes go together.

    Raises:
        ValueError: They do not, or the corpus is too short.
    """
    for corpus in (tokens, held_out):
        if corpus is not None and corpus.n_vocab > config.n_vocab:
            raise ValueError(
                f"the corpus has a vocabulary of {corpus.n_vocab}, and the "
                f"model's n_vocab is only {config.n_vocab}"
            )
    context = settings.context or config.n_ctx
    if context > config.n_ctx:
        raise ValueError(
            f"context must be at most the model's n_ctx, {config.n_ctx}; got "
            f"{context}"
        )
    n_parts = workers.world_size * settings.n_accumulate
    if settings.batch_size % n_parts:
        raise ValueError(
            f"batch_size must be a multiple of {n_parts}, the number of "
            f"processes times n_accumulate; got {settings.batch_size}"
        )
    if settings.patience is not None and held_out is None:
        raise ValueError(
            f"patience needs held-out text; got patience={settings.patience} "
            f"and none"
        )
    if settings.windows == "anywhere":
        _check_lengths(tokens, held_out, context)
    # Drawing a row checks that there is a document.
    draw_batch(tokens, 0, 1, context + 1, windows=settings.windows)


def _check_lengths(
    tokens: Tokens, held_out: Tokens | None, context: int
) -> None:
    """Check that a row fits into each part of the corpus.

    Raises:
        DataError: It does not; the message says into which part.
    """
    name = "the corpus" if held_out is None else "the part to train on"
    for part, what, more in (
        (tokens, name, "hold out less of it"),
        (held_out, "the part to measure on", "hold out more of it"),
    ):
        if part is None or len(part) > context:
            continue
        advice = "use more text or a shorter context"
        if held_out is not None:
            advice = f"use more text, {more} (held_out) or a shorter context"
        raise DataError(
            f"{what} has {len(part):,} tokens, and a row needs "
            f"{context + 1:,}; {advice}"
        )


def restore(
    model: GPT2, state: State, tokens: Tokens, settings: TrainingSettings
) -> None:
    """Load a checkpoint's weights into a model, after checking all of it.

    Args:
        model: Whole, on the CPU; unchanged if an error is raised.
        state: What `read_checkpoint` returned.
        tokens: The corpus of the run.
        settings: The settings of the run.

    Raises:
        ResumeError: The checkpoint belongs to another run, or is damaged.
    """
    if changed := differences(state.settings, asdict(settings)):
        raise ResumeError(f"{state.folder} belongs to another run: {changed}")
    if state.data != tokens.fingerprint:
        raise ResumeError(f"{state.folder} belongs to a run on another corpus")
    try:
        saved = load_model(state.folder)
    except CheckpointError as error:
        raise unreadable(state.folder, error) from error
    if changed := differences(asdict(saved.config), asdict(model.config)):
        raise ResumeError(f"{state.folder} holds another model: {changed}")
    try:
        check_state(
            model,
            make_optimizers(model, settings),
            state.optimizer,
            state.progress.step,
        )
    except ValueError as error:
        problem = ValueError(f"{state.folder / OPTIMIZER}: {error}")
        raise unreadable(state.folder, problem) from error
    model.load_state_dict(saved.state_dict())  # copies


def choose_operations(
    model: GPT2, settings: TrainingSettings, workers: Workers
) -> None:
    """Let a model compute attention and activation as suits its run.

    On a GPU, and under `torch.compile`, PyTorch's own activation is one pass
    over memory, and the fastest.
    """
    choose_attention(model, settings.fused_attention)
    if workers.device.type == "cpu" and not settings.compile:
        choose_activation(model)

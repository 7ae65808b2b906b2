"""Write a GPT-2 as nanoGPT's `ckpt.pt`.

The file is a dictionary: the state dict under `model`, with linear maps as
[out, in], and the sizes under `model_args`, which nanoGPT's sample.py hands to
its `GPTConfig`. It has no optimizer, without which train.py cannot resume.

nanoGPT computes the exact GELU, and has no name for an activation. The entry
`activation_function` under `config`, which it ignores, tells ours.

Source: karpathy/nanoGPT, train.py (`checkpoint`), sample.py and model.py.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2.config import GPT2Config
from gpt2.files.writing import replacing
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights.arrangement import LINEAR
from gpt2.weights.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from gpt2.model import GPT2

_NO_LOSS = 1e9  # what nanoGPT starts with, before any evaluation

# SHA-256 of GPT-2's ordinary tokens, in order, with line feeds between them.
_GPT2_TOKENS = (
    "e424375bafc3e423128be739985d6bac4839b3014b9ed3f34c3b55f6d2b968d9"
)


def write_nanogpt(
    path: Path, model: GPT2, tokenizer: Tokenizer | None
) -> list[str]:
    """Write nanoGPT's file, whole or not at all.

    Args:
        path: The file. It is replaced if it exists.
        model: The model; it is written in the dtype that it has.
        tokenizer: Its tokenizer, which the file cannot hold.

    Returns:
        Where nanoGPT differs from the model, one sentence for each.

    Raises:
        CheckpointError: nanoGPT has no setting for one of the model's.
        OSError: The file cannot be written.
    """
    import torch

    config = model.config
    check_config(config)
    state = {f"transformer.{n}": t for n, t in _arranged(model).items()}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    content = {
        "model": state,
        "model_args": {
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_embd": config.n_embd,
            "block_size": config.n_ctx,
            "bias": True,
            "vocab_size": config.n_vocab,
            "dropout": config.resid_dropout,
        },
        "iter_num": 0,
        "best_val_loss": _NO_LOSS,
        "config": {"activation_function": config.activation},
    }
    with replacing(path.parent, path.name) as stage:
        try:
            torch.save(content, stage / path.name)
        except RuntimeError as error:  # raised, for instance, on a full disk
            raise OSError(f"{path} cannot be written: {error}") from error
    return _notes(config, tokenizer)


def check_config(config: GPT2Config) -> None:
    """Refuse a model that nanoGPT cannot run.

    Raises:
        CheckpointError: It cannot; the message names the setting.
    """
    for name, value, expected in (
        ("n_inner", config.inner_size, 4 * config.n_embd),
        ("layer_norm_epsilon", config.layer_norm_epsilon, 1e-5),
    ):
        if value != expected:
            raise CheckpointError(
                f"the model has {name}={value}, and nanoGPT always "
                f"{expected}; it cannot be written as nanoGPT's file"
            )
    if config.activation == "relu":
        raise CheckpointError(
            "the model has activation='relu', and nanoGPT always GELU; it "
            "cannot be written as nanoGPT's file"
        )


def _arranged(model: GPT2) -> dict[str, Tensor]:
    """Return the state dict with linear maps as [out, in]."""
    return {
        name: tensor.T.contiguous() if name.endswith(LINEAR) else tensor
        for name, tensor in model.state_dict().items()
    }


def _notes(config: GPT2Config, tokenizer: Tokenizer | None) -> list[str]:
    """Say what nanoGPT does otherwise, and what its file does not hold."""
    notes = []
    if config.activation != "gelu":
        notes.append(
            f"nanoGPT computes the exact GELU, and the model has "
            f"{config.activation!r}: its logits differ slightly"
        )
    dropouts = (config.embd_dropout, config.attn_dropout, config.resid_dropout)
    if len(set(dropouts)) > 1:
        notes.append(
            f"nanoGPT has one dropout, {config.resid_dropout}, for the "
            f"model's {', '.join(map(str, dropouts))}"
        )
    if tokenizer is not None and not _is_gpt2s(tokenizer):
        notes.append(
            "the file holds no tokenizer: nanoGPT's sample.py encodes with "
            "GPT-2's own, and the model has another"
        )
    return notes


def _is_gpt2s(tokenizer: Tokenizer) -> bool:
    """Tell whether ordinary tokens are GPT-2's, with the same ids."""
    tokens = sorted(tokenizer.ranks, key=tokenizer.ranks.__getitem__)
    digest = hashlib.sha256(b"\n".join(tokens)).hexdigest()
    return digest == _GPT2_TOKENS

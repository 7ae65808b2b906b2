"""Write a checkpoint as Hugging Face does, whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path

from gpt2.model import GPT2
from gpt2.tokenizer import Tokenizer


def save(
    folder: str | Path, model: GPT2, tokenizer: Tokenizer | None = None
) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files.

    `transformers` opens the folder, and through it every converter. All files
    are first written beside their place. A folder that is not there appears
    whole; in one that is, they then take the places of the old ones, one after
    the other and the weights last. If writing fails, nothing has changed.

    Args:
        folder: Made if it is not there. Other files in it are left alone.
        model: Saved in the dtype it has.
        tokenizer: Saved along with it, if given.

    Raises:
        ValueError: The tokenizer has ids that the model lacks.
        OSError: The files cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = Path(folder)
    fields = model.config.to_dict()
    if tokenizer is not None:
        if tokenizer.n_vocab > model.config.n_vocab:
            raise ValueError(
                f"the tokenizer has {tokenizer.n_vocab} entries, and the "
                f"model only {model.config.n_vocab}"
            )
        ends = tokenizer.end_of_text
        fields |= {"bos_token_id": ends, "eos_token_id": ends}
    fields["dtype"] = str(model.wte.weight.dtype).removeprefix("torch.")
    # On the same disk, or a rename would be a copy. A folder may be a disk of
    # its own, so where there is one, within it.
    place = folder if folder.exists() else folder.parent
    place.mkdir(parents=True, exist_ok=True)
    stage = place / f".gpt2-{secrets.token_hex(4)}"
    stage.mkdir()
    try:
        tensors = {
            name: tensor.detach().contiguous()
            for name, tensor in model.state_dict().items()
        }
        save_file(tensors, stage / "model.safetensors", {"format": "pt"})
        (stage / "config.json").write_text(
            json.dumps(fields, indent=2) + "\n", encoding="utf-8"
        )
        # safetensors lets nobody but the owner read; the umask knows better.
        shutil.copymode(stage / "config.json", stage / "model.safetensors")
        if tokenizer is not None:
            tokenizer.save(stage)
        move_into(stage, folder)
    except SafetensorError as error:  # its way to say that the disk is full
        raise OSError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def move_into(stage: Path, folder: Path) -> None:
    """Rename the stage to `folder`, or its files into one that exists."""
    for path in stage.iterdir():
        with path.open("rb+") as file:  # the data before the name
            os.fsync(file.fileno())
    if not folder.exists():
        stage.rename(folder)
        return
    # The weights last: a folder is a model when it has those.
    files = stage.iterdir()
    for path in sorted(files, key=lambda path: path.suffix == ".safetensors"):
        path.replace(folder / path.name)

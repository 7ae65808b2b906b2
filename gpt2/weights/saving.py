"""Write a checkpoint in Hugging Face's layout, atomically."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.files.reading import read_json_object
from gpt2.files.writing import replacing
from gpt2.model import GPT2
from gpt2.tokenizer.files import find_vocabulary
from gpt2.tokenizer.tokenizer import OTHER_TOKENIZER_FILES, Tokenizer
from gpt2.weights.readers import misread

if TYPE_CHECKING:
    from torch import Tensor


def save(model: GPT2, tokenizer: Tokenizer | None, folder: str | Path) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files.

    `transformers` opens the folder and computes the same. So do other readers,
    if the config is GPT-2's but for its sizes. With another epsilon or
    activation some of them compute something else without an error, of which
    `save` warns. Others refuse an `n_inner` of one's own, rows without a token
    or a tokenizer other than GPT-2's; `gpt2 convert` names them.

    The new files replace the old ones in one step, where the system can do
    that. (Where it cannot, and the process is killed between two files, the
    folder cannot be loaded until somebody saves to it again.)

    Args:
        model: The model; it is saved in the dtype that it has.
        tokenizer: Its tokenizer; None is allowed if the folder has none.
        folder: The folder; it is created if missing. Files of another model,
            such as a `tokenizer.json` or the index of several files, are
            removed; all other files are left alone, including OpenAI's.

    Raises:
        ValueError: The tokenizer has more ids than the model; or it is None,
            and the folder has one, which may be another model's.
        OSError: The files cannot be written, and nothing has changed.
    """
    folder = Path(folder)
    config = _config(model, tokenizer)

    def leaves(name: str) -> bool:
        return _is_stale(folder / name, config) or (
            tokenizer is not None and name in OTHER_TOKENIZER_FILES
        )

    first = ["config.json", "model.safetensors"]
    with replacing(folder, leaves=leaves, first=first) as stage:
        check_target(folder, tokenizer)
        write_model(stage, model, tokenizer)
    for note in misread(model.config):
        warnings.warn(note, stacklevel=2)


def write_model(
    folder: Path, model: GPT2, tokenizer: Tokenizer | None
) -> None:
    """Write the files of `save` to an empty folder, one by one.

    Raises:
        ValueError: As for `save`.
        OSError: They cannot be written.
    """
    config = json.dumps(_config(model, tokenizer), indent=2) + "\n"
    (folder / "config.json").write_text(config, encoding="utf-8")
    write_tensors(folder / "model.safetensors", model.state_dict())
    if tokenizer is not None:
        tokenizer.write(folder)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file.

    Raises:
        OSError: It cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: t.detach().contiguous() for name, t in tensors.items()}
    try:
        save_file(plain, path, {"format": "pt"})
    except SafetensorError as error:  # raised, for instance, on a full disk
        raise OSError(f"{path} cannot be written: {error}") from error


def _config(model: GPT2, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return the fields of `config.json`."""
    fields = model.config.to_dict()
    if tokenizer is not None:
        if tokenizer.n_vocab > model.config.n_vocab:
            raise ValueError(
                f"the tokenizer has {tokenizer.n_vocab} entries, and the "
                f"model only {model.config.n_vocab}"
            )
        begins, ends = tokenizer.start_of_text, tokenizer.end_of_text
        fields |= {"bos_token_id": begins, "eos_token_id": ends}
    fields["dtype"] = str(model.wte.weight.dtype).removeprefix("torch.")
    return fields


def check_target(folder: Path, tokenizer: Tokenizer | None) -> None:
    """Refuse a folder whose other files readers would add to the new model.

    Args:
        folder: The folder to save to; it may be missing.
        tokenizer: The tokenizer to save with the model.

    Raises:
        ValueError: The folder has an adapter; or it has a tokenizer, and none
            is to be saved.
    """
    found = find_vocabulary(folder)
    if tokenizer is None and found is not None:
        raise ValueError(
            f"{folder} has a tokenizer, {found[0].name}, which readers would "
            f"take for this model's; save the model with its tokenizer, or to "
            f"another folder"
        )
    if (adapter := folder / "adapter_config.json").exists():
        raise ValueError(
            f"{adapter} belongs to an adapter, which transformers would apply "
            f"to this model; save the model to another folder"
        )


_SHARDS = re.compile(
    r"model-\d{5}-of-\d{5}\.safetensors|model\.safetensors\.index\.json"
)


def _is_stale(path: Path, config: Mapping[str, Any]) -> bool:
    """Tell whether a file belongs to the model that is replaced.

    Args:
        path: The file.
        config: The fields of the new `config.json`.
    """
    if path.name != "generation_config.json":
        return _SHARDS.fullmatch(path.name) is not None
    # transformers prefers its token ids to those of the config.
    try:
        old = read_json_object(path, ValueError)
    except ValueError:
        return False  # other readers cannot read it either
    for name in ("bos_token_id", "eos_token_id"):
        ids = old.get(name)
        ids = ids if isinstance(ids, list) else [ids]
        if any(isinstance(i, int) and i >= config["vocab_size"] for i in ids):
            return True
        if name in config and ids != [None] and config[name] not in ids:
            return True
    return False

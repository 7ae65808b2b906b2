"""Write a checkpoint as Hugging Face does, whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.files.reading import read_json_object
from gpt2.files.writing import replacing
from gpt2.model import GPT2
from gpt2.tokenizer.tokenizer import OTHER_TOKENIZER_FILES, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor


def save(
    folder: str | Path, model: GPT2, tokenizer: Tokenizer | None = None
) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files.

    `transformers` opens the folder, and through it every converter. Until all
    files are written, the folder has the old ones; then it has the new ones,
    in one step where the system can do that. (Where it cannot, and the writer
    is killed between two files, loading the folder is refused.)

    Args:
        folder: Made if it is not there. What is left of another model in it,
            such as a `tokenizer.json` or an index of several files, leaves it;
            all other files are left alone, OpenAI's own among them.
        model: Saved in the dtype it has.
        tokenizer: Saved along with it. It may be left out where the folder
            has none.

    Raises:
        ValueError: The tokenizer has ids that the model lacks; or none is
            given, and the folder has one, which may be another model's.
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


def write_model(
    folder: Path, model: GPT2, tokenizer: Tokenizer | None
) -> None:
    """Write the files of `save`, one by one, into a folder of its own."""
    config = json.dumps(_config(model, tokenizer), indent=2) + "\n"
    (folder / "config.json").write_text(config, encoding="utf-8")
    write_tensors(folder / "model.safetensors", model.state_dict())
    if tokenizer is not None:
        tokenizer.write(folder)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file of safetensors.

    Raises:
        OSError: It cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: t.detach().contiguous() for name, t in tensors.items()}
    try:
        save_file(plain, path, {"format": "pt"})
    except SafetensorError as error:  # its way to say that the disk is full
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
    """Refuse a folder in which readers would not find the new model alone.

    Args:
        folder: Where to save to; it may not be there.
        tokenizer: What is to be saved along with the model.

    Raises:
        ValueError: It has a tokenizer, and none is to be saved; or an adapter.
    """
    found = Tokenizer.find(folder)
    if tokenizer is None and found is not None:
        raise ValueError(
            f"{folder} has a tokenizer, {found[0].name}, which would be taken "
            f"for this model's; save the model together with its tokenizer, "
            f"or elsewhere"
        )
    if (adapter := folder / "adapter_config.json").exists():
        raise ValueError(
            f"{adapter} belongs to an adapter, which transformers would put "
            f"onto this model; save the model elsewhere"
        )


_SHARDS = re.compile(
    r"model-\d{5}-of-\d{5}\.safetensors|model\.safetensors\.index\.json"
)


def _is_stale(path: Path, config: Mapping[str, Any]) -> bool:
    """Tell whether a file is a part of the model that was there before.

    Args:
        path: The file.
        config: The fields of the new `config.json`.
    """
    if path.name != "generation_config.json":
        return _SHARDS.fullmatch(path.name) is not None
    # transformers believes its token ids rather than those of the config.
    try:
        old = read_json_object(path, ValueError)
    except ValueError:
        return False  # nor can anybody else read it
    for name in ("bos_token_id", "eos_token_id"):
        ids = old.get(name)
        ids = ids if isinstance(ids, list) else [ids]
        if any(isinstance(i, int) and i >= config["vocab_size"] for i in ids):
            return True
        if name in config and ids != [None] and config[name] not in ids:
            return True
    return False

"""Find the state dict in what a training program has saved with it.

Such a file holds a dictionary: the state dict under some name, and beside it
the state of the optimizer, the number of steps, and sometimes the config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt2.config import ACTIVATIONS
from gpt2.weights.errors import CheckpointError
from gpt2.weights.naming import find_prefixes
from gpt2.weights.pickle_values import PlainObject

_SIZES = {  # by nanoGPT's names for them
    "vocab_size": "vocab_size",
    "block_size": "n_positions",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}
_DROPOUTS = ("embd_pdrop", "attn_pdrop", "resid_pdrop")


@dataclass(frozen=True)
class State:
    """The state dict of a file, and the config that was saved with it."""

    tensors: Any
    """The dictionary, whose values have not been checked; or whatever else
    the file holds."""
    fields: Mapping[str, Any] | None = None
    """The config, by the names of a Hugging Face `config.json`, if any."""
    notes: tuple[str, ...] = ()
    """What was found, and what was inferred from it."""


def find_state(value: Any, file: str) -> State:
    """Find the only GPT-2 in the value that a file holds.

    Args:
        value: The value, as `pickle_program` describes it.
        file: The file's name, for messages.

    Raises:
        CheckpointError: There are several models, or the config contradicts
            the tensors.
    """
    if not isinstance(value, dict) or find_prefixes(value):
        return State(value)
    found = [
        name
        for name, inner in value.items()
        if isinstance(inner, dict) and find_prefixes(inner)
    ]
    if not found:
        return State(value)
    if len(found) > 1:
        raise CheckpointError(
            f"{file} holds several models, under {_listed(found)}; save the "
            f"one that you want alone"
        )
    tensors = value[found[0]]
    fields, source = _config(value, file)
    notes = [f"the tensors are those under {found[0]!r:.80}"]
    if fields is not None:
        notes.append(f"the config is that of the file, under {source!r}")
        how = "inferred from the program that writes such files"
        if (activation := _named_activation(value)) is not None:
            fields["activation_function"] = activation
            how = "named in the file"
        notes.append(
            f"activation {fields['activation_function']}, {how}; a "
            f"config.json beside the file overrides it"
        )
        _check_biases(fields.pop("bias", None), tensors, file)
    return State(tensors, fields, tuple(notes))


def _config(
    value: Mapping[str, Any], file: str
) -> tuple[dict[str, Any] | None, str]:
    """Return the config in a file, and the name under which it is.

    nanoGPT saves it under `model_args`, build-nanogpt an object under
    `config`. The activation is in neither. nanoGPT has had a choice of biases
    since early 2023, and the exact GELU since June 2023 (karpathy/nanoGPT pull
    request 274); before both, and in build-nanogpt, it is the tanh form.
    """
    for source in ("model_args", "config"):
        found = value.get(source)
        theirs = found.fields if isinstance(found, PlainObject) else found
        if not isinstance(theirs, dict):
            continue
        if source == "config" and not theirs.keys() >= _SIZES.keys():
            continue  # nanoGPT's settings for training, for example
        for name in theirs.keys() & {*_SIZES, "bias", "dropout"}:
            if not isinstance(theirs[name], int | float):
                kind = type(theirs[name]).__name__
                raise CheckpointError(
                    f"{file}: its config, under {source!r}, has a {kind} as "
                    f"{name}; expected a number"
                )
        fields = {_SIZES[k]: v for k, v in theirs.items() if k in _SIZES}
        exact = "bias" in theirs
        fields["activation_function"] = "gelu" if exact else "gelu_new"
        if "dropout" in theirs:
            fields |= dict.fromkeys(_DROPOUTS, theirs["dropout"])
        if exact:
            fields["bias"] = theirs["bias"]
        return fields, source
    return None, ""


def _named_activation(value: Mapping[str, Any]) -> str | None:
    """Return the activation that `nanogpt_writing` puts into a file."""
    config = value.get("config")
    if not isinstance(config, dict):
        return None
    named = config.get("activation_function")
    return named if named in ACTIVATIONS else None


def _check_biases(bias: Any, names: Mapping[str, Any], file: str) -> None:
    """Refuse a config that says of the biases what the tensors do not."""
    present = any(name.endswith("ln_f.bias") for name in names)
    if bias is not None and bool(bias) != present:
        raise CheckpointError(
            f"{file}: its config says bias={bias!r:.80}, and its tensors "
            f"{'have' if present else 'lack'} a bias"
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"{name!r:.80}" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")

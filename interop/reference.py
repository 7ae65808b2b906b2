"""GPT-2 in NumPy and float64, from the meaning of the config's fields.

It depends on none of the readers that it is compared with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _exact(x: Array) -> Array:
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _tanh(x: Array) -> Array:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + np.tanh(inner))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_new": _tanh,
    "gelu_pytorch_tanh": _tanh,
    "gelu": _exact,
    "relu": lambda x: np.maximum(x, 0),
}


def read(folder: Path) -> dict[str, Array]:
    """Return the tensors of a checkpoint in float64, without the prefix."""
    import torch
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    tensors = (
        load_file(path)
        if path.exists()
        else torch.load(folder / "pytorch_model.bin")
    )
    return {
        name.removeprefix("transformer."): tensor.double().numpy()
        for name, tensor in tensors.items()
    }


def logits(
    folder: Path, ids: list[int], tied: bool = False, **replaced: Any
) -> Array:
    """Compute the logits after each id, (T, V).

    Args:
        folder: The checkpoint.
        ids: Token ids, T of them.
        tied: Take the token embedding even if there is a head of its own.
        replaced: Fields of the config to replace, to see what each changes.
    """
    config = json.loads((folder / "config.json").read_text())
    config |= replaced
    weights = read(folder)
    size, n_head = config["n_embd"], config["n_head"]
    activate = ACTIVATIONS[config["activation_function"]]

    def norm(x: Array, name: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        variance = (x**2).mean(-1, keepdims=True)
        x = x / np.sqrt(variance + config["layer_norm_epsilon"])
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: Array, name: str) -> Array:
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    length = len(ids)
    hidden = np.triu(np.ones((length, length), bool), 1)
    x = weights["wte.weight"][ids] + weights["wpe.weight"][:length]
    for i in range(config["n_layer"]):
        parts = np.split(
            linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, -1
        )
        query, key, value = (
            part.reshape(length, n_head, -1).swapaxes(0, 1) for part in parts
        )
        scores = query @ key.swapaxes(1, 2)
        if config.get("scale_attn_weights", True):
            scores /= math.sqrt(size / n_head)
        if config.get("scale_attn_by_inverse_layer_idx", False):
            scores /= i + 1
        scores = np.exp(scores - scores.max(-1, keepdims=True)) * ~hidden
        mixed = scores / scores.sum(-1, keepdims=True) @ value
        mixed = mixed.swapaxes(0, 1).reshape(length, size)
        x = x + linear(mixed, f"h.{i}.attn.c_proj")
        inner = activate(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"))
        x = x + linear(inner, f"h.{i}.mlp.c_proj")
    head = weights.get("lm_head.weight", weights["wte.weight"])
    if tied:
        head = weights["wte.weight"]
    return norm(x, "ln_f") @ head.T

"""How a file arranges a GPT-2's tensors, where it differs from the model.

PyTorch's `nn.Linear`, and so nanoGPT and llm.c, has a linear map as [out, in],
the transpose of GPT-2's own [in, out]. A model without biases computes what
one whose biases are all zero does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from gpt2.weights.naming import find_prefixes

if TYPE_CHECKING:  # `layout` imports this module, and `inspect` needs no torch
    from torch import Tensor

    from gpt2.weights.formats import Weights
    from gpt2.weights.layout import TensorInfo

LINEAR = (
    "attn.c_attn.weight",
    "attn.c_proj.weight",
    "mlp.c_fc.weight",
    "mlp.c_proj.weight",
)
"""How the names of the linear maps' weights end."""
_NEVER_SQUARE = "attn.c_attn.weight"  # [C, 3C]

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""PyTorch's names of the dtypes that weights may have."""


def is_transposed(
    names: Mapping[str, str], infos: Mapping[str, TensorInfo]
) -> bool:
    """Tell whether a file has its linear maps as [out, in].

    Args:
        names: The file's name for each of the model's.
        infos: The tensors of the file, by the file's own names.
    """
    shapes = [
        infos[theirs].shape
        for ours, theirs in names.items()
        if ours.endswith(_NEVER_SQUARE)
    ]
    return bool(shapes) and all(
        len(shape) == 2 and shape[0] == 3 * shape[1] for shape in shapes
    )


def arranged_shapes(
    expected: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str],
    infos: Mapping[str, TensorInfo],
) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a file's tensors should have.

    Args:
        expected: The shapes of the model's parameters.
        names: The file's name for each of the model's.
        infos: The tensors of the file, by the file's own names.

    Returns:
        The same, with linear maps turned round if the file has them as
        [out, in], and without biases if such a file has none at all.
    """
    if not is_transposed(names, infos):
        return dict(expected)
    biased = any(name.endswith(".bias") for name in names)
    return {
        name: shape[::-1] if name.endswith(LINEAR) else shape
        for name, shape in expected.items()
        if biased or not name.endswith(".bias")
    }


def parameters(
    weights: Weights,
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter, by the model's name, arranged as in the model.

    What was read of one is released before the next, so that a parameter and
    its copy in another dtype are never in memory together with all others.

    Args:
        weights: The opened file.
        names: The file's name for each of the model's.
        shapes: The shape of each parameter, by the model's name.
    """
    import torch

    transposed = is_transposed(names, weights.infos)
    for ours, shape in shapes.items():
        if ours not in names:  # a bias of a model without biases
            yield ours, torch.zeros(shape)
        elif transposed and ours.endswith(LINEAR):
            yield ours, weights.read(names[ours]).T.contiguous()
        else:
            yield ours, weights.read(names[ours])
        if ours in names:
            weights.release(names[ours])


def common_dtype(
    names: Mapping[str, str], infos: Mapping[str, TensorInfo]
) -> str:
    """Return the dtype in which a model is loaded that may keep the file's.

    It is the file's own, if all parameters have the same; otherwise float32,
    to which the others convert exactly.
    """
    found = {infos[theirs].dtype for theirs in names.values()}
    return DTYPES[found.pop()] if len(found) == 1 else "float32"


def describe(
    names: Mapping[str, str], infos: Mapping[str, TensorInfo]
) -> list[str]:
    """Say where a file differs from the model, one sentence for each.

    Args:
        names: The file's name for each of the model's.
        infos: The tensors of the file, by the file's own names.
    """
    notes = []
    for prefix in filter(None, find_prefixes(names.values())):
        notes.append(f"the names begin with {prefix!r:.80}")
    if "lm_head." in names["wte.weight"]:
        notes.append("the token embedding is saved as the output alone")
    if is_transposed(names, infos):
        notes.append("linear maps are [out, in], and transposed when loaded")
        if "ln_f.bias" not in names:
            notes.append("there are no biases; they are zero when loaded")
    found = sorted({infos[theirs].dtype for theirs in names.values()})
    if len(found) > 1:
        notes.append(
            f"the dtypes are {', '.join(found)}; with dtype=None the model "
            f"is {common_dtype(names, infos)}"
        )
    return notes

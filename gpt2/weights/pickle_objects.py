"""What PyTorch's pickles describe: storages, and tensors as views of them.

A pickle of PyTorch names about twenty functions and types. For each function,
this module has one that describes the result instead of making it.

Sources: torch/serialization.py, torch/_utils.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpt2.weights.pickle_values import Dictionary
from gpt2.weights.raw import MOST_DIMENSIONS


@dataclass(frozen=True)
class Storage:
    """A row of numbers in the file, of which tensors are views."""

    dtype: str
    """safetensors' name of it: `F32`."""
    key: str
    """The name of the storage in the file."""
    n_numbers: int


@dataclass(frozen=True)
class View:
    """A tensor: some of the numbers of a storage."""

    storage: Storage
    offset: int
    """The offset of its first number in the storage, in numbers."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """For each dimension, the distance between neighbours, in numbers."""


class Name(str):
    """A module and a name in it, as opposed to a string in the pickle."""

    __slots__ = ()


STORAGES = {
    Name(f"torch {kind}Storage"): dtype
    for kind, dtype in {
        "Double": "F64",
        "Float": "F32",
        "Half": "F16",
        "BFloat16": "BF16",
        "Long": "I64",
        "Int": "I32",
        "Short": "I16",
        "Char": "I8",
        "Byte": "U8",
        "Bool": "BOOL",
    }.items()
}


def storage_of(saved: Any) -> Storage:
    """Describe a storage, which a pickle refers to by a persistent id.

    Raises:
        ValueError: The id is not a storage's.
    """
    if not isinstance(saved, tuple) or len(saved) not in (5, 6):
        raise ValueError("a persistent id is not a storage")
    word, kind, key, _, n_numbers, *view = saved
    if word != "storage" or not isinstance(kind, Name) or view not in _NONE:
        raise ValueError("a persistent id is not a storage")
    # PyTorch's keys are a few digits. Looking up a long one for each of many
    # tensors would be slow.
    named = type(key) is str and len(key) <= _LONGEST_KEY
    if not named or not _is_whole(n_numbers):
        raise ValueError("a storage has no valid name and size")
    return Storage(STORAGES[kind], key, n_numbers)


_NONE: tuple[list[None], ...] = ([], [None])
_LONGEST_KEY = 80


def _is_whole(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**63


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *others: Any
) -> View:
    """Describe the result of `_rebuild_tensor_v2`."""
    if any(others[2:]):  # such as a flag that negates the numbers
        raise ValueError("a tensor has unsupported attributes")
    if (
        not isinstance(storage, Storage)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
        or len(shape) != len(strides)
        or len(shape) > MOST_DIMENSIONS
        or not all(map(_is_whole, (offset, *shape, *strides)))
    ):
        raise ValueError("a tensor has no valid storage, shape or strides")
    steps = zip(shape, strides, strict=True)
    last = offset + sum((size - 1) * stride for size, stride in steps)
    needed = last + 1 if all(shape) else 0
    if needed > storage.n_numbers:
        raise ValueError(
            f"a tensor {list(shape)} needs {needed:,} numbers, and its "
            f"storage {storage.key!r:.80} has {storage.n_numbers:,}"
        )
    return View(storage, offset, shape, strides)


def _parameter(tensor: Any, *others: Any) -> Any:
    """Describe a parameter as its tensor."""
    return tensor


def _with_attributes(
    function: Any, kind: Any, arguments: Any, attributes: Any
) -> View:
    """Describe a tensor that has Python attributes."""
    # Only `_tensor`: this function could nest without end.
    plain = isinstance(function, Name) and CALLS.get(function) is _tensor
    if not plain or not isinstance(kind, Name) or kind != TENSOR:
        raise ValueError("a tensor has a class of its own")
    if not isinstance(arguments, tuple):
        raise ValueError("a tensor has no valid arguments")
    return _tensor(*arguments)


def _dictionary() -> Dictionary:
    """Describe an empty OrderedDict; later instructions add its items."""
    return Dictionary()


def _size(shape: Any) -> tuple[Any, ...]:
    """Describe a `torch.Size`."""
    if not isinstance(shape, tuple):
        raise ValueError("a shape is not a tuple")
    return shape


CALLS: dict[Name, Callable[..., Any]] = {
    Name("collections OrderedDict"): _dictionary,
    Name("torch._utils _rebuild_tensor"): _tensor,
    Name("torch._utils _rebuild_tensor_v2"): _tensor,
    Name("torch._utils _rebuild_parameter"): _parameter,
    Name("torch._utils _rebuild_parameter_with_state"): _parameter,
    Name("torch._tensor _rebuild_from_type_v2"): _with_attributes,
    Name("torch Size"): _size,
}
TENSOR = Name("torch Tensor")

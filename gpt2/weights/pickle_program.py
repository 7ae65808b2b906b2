"""Find out what a pickle describes, without running it.

A pickle is a program for a machine with a stack. It pushes numbers and texts,
puts them into tuples and dictionaries, names functions, and has them called
with what lies on the stack. Here its instructions are followed as far as
PyTorch needs them for a dictionary of tensors. No function is ever called: of
the few that PyTorch names in such a dictionary it is known what they make,
and any other name ends the reading.

Sources: Python's pickletools; torch/serialization.py, torch/_utils.py.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from gpt2.weights.errors import CheckpointError
from gpt2.weights.pickle_values import ClassName, Dictionary, PlainObject
from gpt2.weights.raw import MOST_DIMENSIONS


@dataclass(frozen=True)
class Storage:
    """A row of numbers in the file, into which tensors look."""

    dtype: str
    """As safetensors writes it: `F32`."""
    key: str
    """Its name."""
    n_numbers: int


@dataclass(frozen=True)
class View:
    """A tensor: which numbers of a storage it consists of."""

    storage: Storage
    offset: int
    """Where its first number lies, in numbers."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """How far it is from one index to the next, in numbers."""


class _Name(str):
    """A module and a name in it, which is not a text of the pickle."""

    __slots__ = ()


_STORAGES = {
    _Name(f"torch {kind}Storage"): dtype
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


def _storage(saved: Any) -> Storage:
    """Read what a pickle says of something that is kept outside of it."""
    if not isinstance(saved, tuple) or len(saved) not in (5, 6):
        raise ValueError("something outside the pickle is not a storage")
    word, kind, key, _, n_numbers, *view = saved
    if word != "storage" or not isinstance(kind, _Name) or view not in _NONE:
        raise ValueError("something outside the pickle is not a storage")
    # PyTorch's are numbers in digits. A long one, of many tensors, would be
    # looked up many times.
    named = type(key) is str and len(key) <= _LONGEST_KEY
    if not named or not _is_whole(n_numbers):
        raise ValueError("a storage has no proper name and size")
    return Storage(_STORAGES[kind], key, n_numbers)


_NONE: tuple[list[None], ...] = ([], [None])
_LONGEST_KEY = 80


def _is_whole(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**63


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *others: Any
) -> View:
    """Describe what `_rebuild_tensor_v2` would make."""
    if any(others[2:]):  # that its numbers are to be negated, for instance
        raise ValueError("a tensor is more than its numbers")
    if (
        not isinstance(storage, Storage)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
        or len(shape) != len(strides)
        or len(shape) > MOST_DIMENSIONS
        or not all(map(_is_whole, (offset, *shape, *strides)))
    ):
        raise ValueError("a tensor has no proper storage, shape or strides")
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
    """Describe a parameter: for us, its tensor."""
    return tensor


def _with_attributes(
    function: Any, kind: Any, arguments: Any, attributes: Any
) -> View:
    """Describe a tensor to which Python attributes were added."""
    # Any other function here could be this one again, without end.
    plain = isinstance(function, _Name) and _CALLS.get(function) is _tensor
    if not plain or not isinstance(kind, _Name) or kind != _TENSOR:
        raise ValueError("a tensor is of a class of its own")
    if not isinstance(arguments, tuple):
        raise ValueError("a tensor has no proper arguments")
    return _tensor(*arguments)


def _dictionary() -> Dictionary:
    """Build an OrderedDict; its items are put into it later."""
    return Dictionary()


def _size(shape: Any) -> tuple[Any, ...]:
    """Build a `torch.Size`."""
    if not isinstance(shape, tuple):
        raise ValueError("a shape is not a tuple")
    return shape


_CALLS: dict[_Name, Callable[..., Any]] = {
    _Name("collections OrderedDict"): _dictionary,
    _Name("torch._utils _rebuild_tensor"): _tensor,
    _Name("torch._utils _rebuild_tensor_v2"): _tensor,
    _Name("torch._utils _rebuild_parameter"): _parameter,
    _Name("torch._utils _rebuild_parameter_with_state"): _parameter,
    _Name("torch._tensor _rebuild_from_type_v2"): _with_attributes,
    _Name("torch Size"): _size,
}
_TENSOR = _Name("torch Tensor")
_MOST_ARGUMENTS = 8
_CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}
_WITH_VALUE = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
}


# What may follow the name of a class, until an instance is made of it.
_OF_A_CLASS = {"BINPUT", "LONG_BINPUT", "MEMOIZE", "EMPTY_TUPLE"}


def follow(
    program: BinaryIO,
    file: str,
    storages: dict[str, Storage] | None = None,
) -> Any:
    """Follow one pickle up to its end.

    Args:
        program: Read from where it stands; a large one is not believed, so
            the caller hands over no more than a pickle may have.
        file: What to call the file in a message.
        storages: Every storage is added to it, by its name.

    Returns:
        Numbers, texts, tuples, lists, dictionaries, and a `View` for each
        tensor.

    Raises:
        CheckpointError: It is damaged, or asks for anything else.
    """
    machine = _Machine(file, {} if storages is None else storages)
    try:
        for instruction, argument, _ in pickletools.genops(program):
            machine.step(instruction.name, argument)
        return machine.result()
    except CheckpointError:
        raise
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} cannot be read as a PyTorch file: {error!r:.200}"
        ) from error


class _Machine:
    """A stack, what lay on it before each mark, and a memory of things."""

    def __init__(self, file: str, storages: dict[str, Storage]) -> None:
        self.file = file
        self.storages = storages
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memory: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        stack = self.stack
        self._check_class(name)
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "BINPUT" | "LONG_BINPUT":
                self.memory[argument] = stack[-1]
            case "MEMOIZE":
                self.memory[len(self.memory)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memory[argument])
            case "EMPTY_DICT":
                stack.append(Dictionary())
            case "EMPTY_LIST":
                stack.append([])
            case "TUPLE":
                things = self._since_mark()
                self.stack.append(tuple(things))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                things = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(things)))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._put([key, value])
            case "SETITEMS":
                self._put(self._since_mark())
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS":
                self._extend(self._since_mark())
            case "GLOBAL":
                stack.append(self._named(argument))
            case "STACK_GLOBAL":
                inner, module = stack.pop(), stack.pop()
                # A tuple in tuples can be far longer in writing than here.
                if type(module) is not str or type(inner) is not str:
                    raise ValueError("what is named is not named by texts")
                stack.append(self._named(f"{module} {inner}"))
            case "BINPERSID":
                storage = _storage(stack.pop())
                if self.storages.setdefault(storage.key, storage) != storage:
                    raise ValueError("a storage is described in two ways")
                stack.append(storage)
            case "NEWOBJ":
                arguments, kind = stack.pop(), stack.pop()
                if not isinstance(kind, ClassName) or arguments != ():
                    raise ValueError("what is made is not a plain object")
                stack.append(PlainObject(kind))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case "BUILD":
                state = stack.pop()  # of a state dict: its version
                if stack and isinstance(stack[-1], PlainObject):
                    if not isinstance(state, Dictionary):
                        raise ValueError("an object has no plain attributes")
                    stack[-1].fields = state
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case _ if name in _WITH_VALUE:
                stack.append(argument)
            case _:
                raise ValueError(f"PyTorch does not write {name}")

    def result(self) -> Any:
        """Return the one thing that is left at the end."""
        if self.below or len(self.stack) != 1:
            raise ValueError("there is not one thing left at the end")
        return self.stack[0]

    def _since_mark(self) -> list[Any]:
        things = self.stack
        self.stack = self.below.pop()
        return things

    def _put(self, things: list[Any]) -> None:
        """Put names and values, in turn, into a dictionary."""
        target = self.stack[-1]
        if not isinstance(target, Dictionary) or len(things) % 2:
            raise ValueError("items do not come in pairs for a dictionary")
        for name, value in zip(things[::2], things[1::2], strict=True):
            # To look for tuples in tuples in tuples could overflow a stack,
            # and numbers can be chosen to collide in a dictionary.
            if type(name) is not str:
                target.other_key = type(name).__name__
                continue
            if name in target:
                raise ValueError(f"the name {name!r:.80} comes twice")
            target[name] = value

    def _extend(self, things: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("something is appended to what is not a list")
        self.stack[-1].extend(things)

    def _call(self, function: Any, arguments: Any) -> Any:
        """Describe what a function would make."""
        if isinstance(function, ClassName):
            raise self._strange(function)
        if not isinstance(function, _Name) or function not in _CALLS:
            raise ValueError("what is called is not a function")
        # Many calls with one long list would take long.
        if not isinstance(arguments, tuple) or (
            len(arguments) > _MOST_ARGUMENTS
        ):
            raise ValueError(f"{function} has arguments that are none of it")
        return _CALLS[function](*arguments)

    def _named(self, text: str) -> _Name | ClassName:
        name = _Name(text)
        known = name in (*_STORAGES, *_CALLS, _TENSOR)
        return name if known else ClassName(text)

    def _check_class(self, instruction: str) -> None:
        """Refuse an unknown name, unless it is a class of a plain object.

        Nothing but an instance without arguments is made of it, and that one
        is only described: so it can neither be called nor be kept.
        """
        *_, below, last = None, None, *self.stack[-2:]
        if isinstance(last, ClassName) and instruction not in _OF_A_CLASS:
            raise self._strange(last)
        made = instruction in ("NEWOBJ", "REDUCE")
        if isinstance(below, ClassName) and not made:
            raise self._strange(below)

    def _strange(self, name: ClassName) -> CheckpointError:
        asked = ".".join(name.split(" "))
        return CheckpointError(
            f"{self.file} is not a plain dictionary of tensors: it asks for "
            f"{asked!r:.80}, and to unpickle anything but tensors could run "
            f"code; with the program that wrote it, save the tensors alone: "
            f"torch.save(model.state_dict(), ...)"
        )

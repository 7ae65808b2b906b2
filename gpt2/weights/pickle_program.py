"""Find out what a pickle describes, without running it.

A pickle is a program for a stack machine. It pushes numbers and strings, packs
them into tuples and dictionaries, and calls functions that it names. This
interpreter follows the instructions that PyTorch writes for a dictionary of
tensors. It calls none of the functions: `pickle_objects` describes what each
would return, and any other name is an error.

Source: Python's pickletools.
"""

from __future__ import annotations

import pickletools
from typing import Any, BinaryIO

from gpt2.weights.errors import CheckpointError
from gpt2.weights.pickle_objects import (
    CALLS,
    STORAGES,
    TENSOR,
    Name,
    Storage,
    storage_of,
)
from gpt2.weights.pickle_values import ClassName, Dictionary, PlainObject

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


def interpret(
    program: BinaryIO,
    file: str,
    storages: dict[str, Storage] | None = None,
) -> Any:
    """Interpret one pickle.

    Args:
        program: The pickle; it is read from the current position. The caller
            limits its size, to bound the cost of a hostile one.
        file: The file's name, for messages.
        storages: A dictionary to which every storage is added, by its name.

    Returns:
        Numbers, strings, tuples, lists, dictionaries, a `View` for each
        tensor, and a `PlainObject` for each instance of another class that
        is pickled by its attributes.

    Raises:
        CheckpointError: It is damaged, or names any other function or type.
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
    """The stack, the stacks below each mark, and the memo."""

    def __init__(self, file: str, storages: dict[str, Storage]) -> None:
        self.file = file
        self.storages = storages
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Execute one instruction."""
        stack = self.stack
        self._check_class(name)
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(self._named(argument))
            case "STACK_GLOBAL":
                inner, module = stack.pop(), stack.pop()
                # Formatting a deeply nested tuple could take very long.
                if type(module) is not str or type(inner) is not str:
                    raise ValueError("a name is not a string")
                stack.append(self._named(f"{module} {inner}"))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "NEWOBJ":
                arguments, kind = stack.pop(), stack.pop()
                if not isinstance(kind, ClassName) or arguments != ():
                    raise ValueError("an object is not made from its class")
                stack.append(PlainObject(kind))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case "BUILD":
                self._build(stack.pop())
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case _ if name in _WITH_VALUE:
                stack.append(argument)
            case _:
                self._collect(name)

    def _collect(self, name: str) -> None:
        """Execute an instruction that makes or fills a container."""
        match name:
            case "EMPTY_DICT":
                self.stack.append(Dictionary())
            case "EMPTY_LIST":
                self.stack.append([])
            case "TUPLE":
                things = self._since_mark()
                self.stack.append(tuple(things))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                things = [self.stack.pop() for _ in range(int(name[-1]))]
                self.stack.append(tuple(reversed(things)))
            case "SETITEM":
                value, key = self.stack.pop(), self.stack.pop()
                self._put([key, value])
            case "SETITEMS":
                self._put(self._since_mark())
            case "APPEND":
                self._extend([self.stack.pop()])
            case "APPENDS":
                self._extend(self._since_mark())
            case _:
                raise ValueError(f"PyTorch does not write {name}")

    def result(self) -> Any:
        """Return the only value that is left on the stack."""
        if self.below or len(self.stack) != 1:
            raise ValueError("the stack does not end with one value")
        return self.stack[0]

    def _since_mark(self) -> list[Any]:
        things = self.stack
        self.stack = self.below.pop()
        return things

    def _put(self, things: list[Any]) -> None:
        """Add alternating names and values to a dictionary."""
        target = self.stack[-1]
        if not isinstance(target, Dictionary) or len(things) % 2:
            raise ValueError("items are not pairs for a dictionary")
        for name, value in zip(things[::2], things[1::2], strict=True):
            # Hashing nested tuples could overflow the stack, and numbers can
            # be chosen to collide in a dictionary.
            if type(name) is not str:
                target.other_key = type(name).__name__
                continue
            if name in target:
                raise ValueError(f"the name {name!r:.80} appears twice")
            target[name] = value

    def _extend(self, things: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("a value is appended to what is not a list")
        self.stack[-1].extend(things)

    def _call(self, function: Any, arguments: Any) -> Any:
        """Describe the result of a function."""
        if isinstance(function, ClassName):
            raise self._unknown(function)
        if not isinstance(function, Name) or function not in CALLS:
            raise ValueError("a value that is called is not a function")
        # Many calls with one long tuple would be slow.
        if not isinstance(arguments, tuple) or (
            len(arguments) > _MOST_ARGUMENTS
        ):
            raise ValueError(f"{function} is called with invalid arguments")
        return CALLS[function](*arguments)

    def _build(self, state: Any) -> None:
        """Add the attributes of an object to its description."""
        built = self.stack[-1] if self.stack else None
        if isinstance(built, PlainObject):
            if not isinstance(state, Dictionary):
                raise ValueError("an object has no plain attributes")
            built.fields = state
        # Otherwise it is a state dict's metadata: its version.

    def _storage(self, saved: Any) -> Storage:
        storage = storage_of(saved)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key!r:.80} has two types")
        return storage

    def _named(self, text: str) -> Name | ClassName:
        name = Name(text)
        known = name in (*STORAGES, *CALLS, TENSOR)
        return name if known else ClassName(text)

    def _check_class(self, instruction: str) -> None:
        """Refuse an unknown name, unless an object is described by it.

        The only instruction that takes one makes an object without arguments,
        so the name can neither be called nor be kept.
        """
        *_, below, last = None, None, *self.stack[-2:]
        if isinstance(last, ClassName) and instruction not in _OF_A_CLASS:
            raise self._unknown(last)
        made = instruction in ("NEWOBJ", "REDUCE")
        if isinstance(below, ClassName) and not made:
            raise self._unknown(below)

    def _unknown(self, name: ClassName) -> CheckpointError:
        named = ".".join(name.split(" "))
        return CheckpointError(
            f"{self.file} is not a plain dictionary of tensors: it names "
            f"{named!r:.80}, and unpickling anything but tensors could run "
            f"code; with the program that wrote it, save the tensors alone: "
            f"torch.save(model.state_dict(), ...)"
        )

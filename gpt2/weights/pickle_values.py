"""Values of a pickle that Python's own types do not describe well enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class Dictionary(dict[str, Any]):
    """A dictionary of a pickle, of which only string keys are kept.

    The state of an optimizer has numbers for keys. It is of no use here, and
    numbers can be chosen to collide in a dictionary.
    """

    other_key = ""
    """The type of a key that is not a string, if there is one: `int`."""


class ClassName(str):
    """The module and the name of a class that the package does not know."""

    __slots__ = ()


@dataclass
class PlainObject:
    """An instance of such a class, which is never made.

    An instance that Python pickles by default, such as a dataclass, is the
    name of its class and a dictionary of its attributes.
    """

    kind: ClassName
    fields: dict[str, Any] = field(default_factory=dict)

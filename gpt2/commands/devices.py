"""The device that a command computes on."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from gpt2.commands.screen import say
from gpt2.commands.starting import load_torch
from gpt2.files.errors import first_line
from gpt2.weights.loading import PACKED_ONLY

if TYPE_CHECKING:  # torch is imported when a command needs it, not for --help
    import torch

AUTO = "auto"
ACCELERATORS = ("cuda", "mps")
"""What `auto` prefers to the CPU, in this order."""


def add_device_option(
    add: Any, accelerators: tuple[str, ...] = ACCELERATORS
) -> None:
    """Add the option that chooses a device.

    Args:
        add: The method `add_argument` of a parser or of a group.
        accelerators: Those that the command can use.
    """
    names = ", ".join(accelerators)
    add(
        "--device",
        default=AUTO,
        metavar="DEVICE",
        help=f"{names}, cpu, or auto, which takes the first of these that "
        "works (default: auto)",
    )


def device(options: argparse.Namespace) -> torch.device:
    """Return the chosen device; a RuntimeError says if it is unavailable.

    `auto` is replaced in the options by what it stands for; formats that only
    packed weights have need the CPU.
    """
    load_torch()
    import torch

    if options.device == AUTO:
        is_packed = getattr(options, "dtype", None) in PACKED_ONLY
        options.device = "cpu" if is_packed else choose_device()
    if (problem := _problem(options.device)) is not None:
        raise RuntimeError(
            f"--device {options.device!r:.40} cannot be used: {problem}"
        )
    return torch.device(options.device)


def choose_device(accelerators: tuple[str, ...] = ACCELERATORS) -> str:
    """Return the first of these that works, or else the CPU.

    A message says which it is, unless there is only the CPU. Among several
    processes, only the first has a message; a device is not tried, as each
    process will get its own.
    """
    import torch

    among_others = int(os.environ.get("WORLD_SIZE", "1")) > 1
    is_first = os.environ.get("RANK", "0") == "0"
    for name in accelerators:
        if not getattr(torch, name).is_available():
            continue
        problem = None if among_others else _problem(name)
        if is_first and problem is None:
            say(f"computing on {name}; --device cpu takes the CPU instead")
        elif is_first:
            say(f"--device {name} cannot be used: {problem}")
        if problem is None:
            return name
    return "cpu"


def _problem(name: str) -> str | None:
    """Say why a device cannot compute; None if it can."""
    import torch

    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        return f"{first_line(error):.200}"
    return None

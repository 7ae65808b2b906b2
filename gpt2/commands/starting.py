"""Import PyTorch without waiting for the garbage collector."""

from __future__ import annotations

import gc
import sys
from contextlib import nullcontext

from gpt2.progress import task


def load_torch() -> None:
    """Import PyTorch in a process that will use it until it ends.

    PyTorch makes 260,000 objects, nearly all of which stay. Python's collector
    would look through them again and again, meanwhile, later, and when the
    process ends. So it is off meanwhile, and told to leave alone what there is
    by then. In a process of 1.4 seconds, that saves 0.3.
    """
    if "torch" in sys.modules:
        return
    # In a file, a line about it would be noise.
    waits = task("Starting PyTorch") if sys.stderr.isatty() else nullcontext()
    enabled = gc.isenabled()
    gc.disable()
    try:
        with waits:
            import torch as torch
    finally:
        gc.freeze()
        if enabled:
            gc.enable()

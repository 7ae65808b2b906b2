"""Where the first number went wrong, for a run that has lost its way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gpt2.training.workers import Workers


@torch.no_grad()
def where_not_finite(
    model: nn.Module,
    loss: float,
    forward: Callable[[], object],
    workers: Workers,
) -> str:
    """Say where the first numbers stand that are not finite.

    Args:
        model: What was trained.
        loss: Of the step.
        forward: Runs the step's rows through the model once more.
        workers: This process and those beside it.
    """
    for name, parameter in model.named_parameters():
        if not workers.whole({name: parameter})[name].isfinite().all():
            return f"the weights of {name}"
    if math.isfinite(loss):
        return "the gradient"
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    hooks = [
        module.register_forward_hook(watch(name or "the model"))
        for name, module in model.named_modules()
    ]
    forward()
    for handle in hooks:
        handle.remove()
    if found:
        return f"the output of {found[0]}"
    return "the loss itself" if workers.count == 1 else "another process"

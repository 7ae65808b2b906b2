"""The optimizers: AdamW for everything, or Muon for the matrices inside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from gpt2.training.settings import TrainingSettings
from gpt2.training.workers import Workers

_ADAM = ("exp_avg", "exp_avg_sq", "step")


def make_optimizers(
    model: nn.Module, settings: TrainingSettings
) -> list[torch.optim.Optimizer]:
    """Return what changes a model's parameters, each of them once.

    Weight decay pulls matrices towards 0. A norm's scale belongs at 1 and a
    bias anywhere, so those are not pulled. Loshchilov and Hutter (2019).

    AdamW looks at every number by itself. Muon looks at a matrix as a whole,
    and takes a step of the same length in each of its directions, those that
    the gradient hardly shows included: Jordan et al. (2024). It is for the
    matrices of the layers; embeddings, of which a batch uses a few rows, and
    vectors stay with AdamW. Scaled so that both move numbers by about as much
    (Liu et al., 2025), the two share one learning rate.
    """
    tables, inside, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            vectors.append(parameter)
        elif settings.optimizer == "muon" and name.startswith("h."):
            inside.append(parameter)
        else:
            tables.append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                {"params": tables, "weight_decay": settings.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(settings.beta_1, settings.beta_2),
            fused=True,
        )
    ]
    if inside:
        muon = torch.optim.Muon(
            inside,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers.append(muon)
    return optimizers


def set_learning_rate(
    optimizers: Sequence[torch.optim.Optimizer], rate: float
) -> None:
    """Give all groups the learning rate of the coming step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def read_state(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """Return the optimizers' numbers, named `parameter/what`."""
    return {
        f"{name}/{what}": value
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        for what, value in optimizer.state.get(parameter, {}).items()
    }


def check_state(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    state: Mapping[str, Tensor],
    step: int,
) -> None:
    """Check that `write_state` can give a state to the optimizers.

    Their kernels believe the shapes, and would write beyond a smaller tensor.

    Args:
        model: Whole.
        optimizers: Its.
        state: What is to be written.
        step: The number of steps after which it was read.

    Raises:
        ValueError: A tensor is missing or unknown, has another shape or dtype
            than its parameter, or holds what no step leaves there.
    """
    expected = {
        f"{name}/{what}": parameter
        for name, parameter, what in _names(model, optimizers)
    }
    for name in sorted(expected.keys() ^ state.keys()):
        found = "missing" if name in expected else "unknown"
        raise ValueError(f"tensor {name!r:.100} is {found}")
    for name, parameter in expected.items():
        tensor, is_count = state[name], name.endswith("/step")
        shape = torch.Size() if is_count else parameter.shape
        dtype = torch.float32 if is_count else parameter.dtype
        if (tensor.shape, tensor.dtype) != (shape, dtype):
            raise ValueError(
                f"tensor {name!r} must be {dtype} of shape "
                f"{list(shape)}, got {tensor.dtype} of {list(tensor.shape)}"
            )
        least, most = (float(value) for value in tensor.aminmax())
        if not (math.isfinite(least) and math.isfinite(most)):
            raise ValueError(
                f"tensor {name!r} holds numbers that are not finite"
            )
        if name.endswith("/exp_avg_sq") and least < 0:
            raise ValueError(
                f"tensor {name!r} is a mean of squares, and holds {least}"
            )
        if is_count and least != step:
            raise ValueError(
                f"tensor {name!r} must be {step}, the number "
                f"of steps, got {least}"
            )


def write_state(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    state: Mapping[str, Tensor],
    workers: Workers,
) -> None:
    """Give the optimizers the numbers that `read_state` returned.

    They have to be such that `check_state` passes them.
    """
    owners = {
        parameter: optimizer.state[parameter]
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter, what in _names(model, optimizers):
        value = state[f"{name}/{what}"]
        # The fused kernel wants even its counter where the parameter is.
        owners[parameter][what] = (
            value.to(parameter.device, copy=True)
            if what == "step"
            else workers.part_of(value, parameter)
        )


def _names(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> Iterator[tuple[str, Tensor, str]]:
    """Give what the optimizers keep: whose it is, and what it is called."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        muon = isinstance(optimizer, torch.optim.Muon)
        kept = ("momentum_buffer",) if muon else _ADAM
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                for what in kept:
                    yield names[parameter], parameter, what

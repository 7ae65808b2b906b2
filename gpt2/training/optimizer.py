"""The optimizers: AdamW, or Muon for the matrices of the layers."""

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
    """Return optimizers that together own each parameter of a model once.

    Weight decay pulls matrices towards 0. Biases and the scales of norms are
    exempt: a scale's neutral value is 1. Loshchilov and Hutter (2019),
    algorithm 2.

    AdamW scales every number's gradient by itself. Muon orthogonalises the
    update of a whole matrix, so that it is equally long in all directions,
    even those that the gradient barely shows: Jordan et al. (2024). It gets
    the matrices of the layers. The embeddings, which are lists of vectors and
    not maps, and the vectors stay with AdamW. Muon's updates are scaled to the
    usual size of AdamW's (Liu et al., 2025, section 2.2), so that both share
    one learning rate.

    Args:
        model: Its matrices to the layers are named `h.*`.
        settings: Which optimizer, the decay, and AdamW's betas.

    Returns:
        AdamW, and after it Muon if it has any parameters.
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
    """Set the learning rate of all parameter groups."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def gradient_norm(model: nn.Module) -> Tensor:
    """Return the length of the gradient: a scalar, sharded if the model is."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return nn.utils.get_total_norm(gradients)


def shorten_gradient(model: nn.Module, norm: Tensor, length: float) -> None:
    """Scale the gradient to a length, given its `gradient_norm`."""
    nn.utils.clip_grads_with_norm_(model.parameters(), length, norm)


def read_state(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """Return the optimizers' tensors, named like `wte.weight/exp_avg`."""
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
    """Check a state before `write_state` gives it to the optimizers.

    Their fused kernels trust the shapes, and would write past the end of a
    tensor that is too small.

    Args:
        model: Whole, not sharded.
        optimizers: The model's optimizers.
        state: What `read_state` returned in an earlier process.
        step: The number of steps that the optimizers had taken then.

    Raises:
        ValueError: A tensor is missing or unknown, has another shape or dtype
            than its parameter, or holds values that no step produces.
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
                f"tensor {name!r} is a mean of squares, but holds {least}"
            )
        if is_count and least != step:
            raise ValueError(
                f"tensor {name!r} must be {step}, the number of steps, got "
                f"{least}"
            )


def write_state(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    state: Mapping[str, Tensor],
    workers: Workers,
) -> None:
    """Give the optimizers the tensors that `read_state` returned.

    Args:
        model: The model, sharded or not.
        optimizers: The model's optimizers.
        state: Whole tensors, which `check_state` has checked.
        workers: Which may shard them.
    """
    owners = {
        parameter: optimizer.state[parameter]
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter, what in _names(model, optimizers):
        value = state[f"{name}/{what}"]
        # The fused kernel needs its step counter on the parameter's device.
        owners[parameter][what] = (
            value.to(parameter.device, copy=True)
            if what == "step"
            else workers.shard(value, parameter)
        )


def _names(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> Iterator[tuple[str, Tensor, str]]:
    """Yield, for each tensor of the state: parameter name, it, and key."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        muon = isinstance(optimizer, torch.optim.Muon)
        kept = ("momentum_buffer",) if muon else _ADAM
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                for what in kept:
                    yield names[parameter], parameter, what

"""AdamW, with decay where it belongs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gpt2.training.settings import TrainingSettings
from gpt2.training.workers import Workers


def make_optimizer(
    model: nn.Module, settings: TrainingSettings
) -> torch.optim.AdamW:
    """Return AdamW for a model's parameters, in two groups.

    Weight decay pulls matrices towards 0. A norm's scale belongs at 1 and a
    bias anywhere, so those are not pulled. Loshchilov and Hutter (2019).
    """
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(settings.beta_1, settings.beta_2),
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups the learning rate of the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def read_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Return the optimizer's numbers, named `parameter/what`."""
    return {
        f"{name}/{what}": value
        for name, parameter in model.named_parameters()
        for what, value in optimizer.state[parameter].items()
    }


def write_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Tensor],
    workers: Workers,
) -> None:
    """Give the optimizer the numbers that `read_state` returned.

    Raises:
        KeyError: Some are missing.
    """
    for name, parameter in model.named_parameters():
        for what in ("exp_avg", "exp_avg_sq"):
            part = workers.part_of(state[f"{name}/{what}"], parameter)
            optimizer.state[parameter][what] = part
        # The fused kernel wants even its counter where the parameter is.
        count = state[f"{name}/step"].to(parameter.device, copy=True)
        optimizer.state[parameter]["step"] = count

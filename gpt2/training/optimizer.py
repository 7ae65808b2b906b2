"""The optimizers: AdamW for everything, or Muon for the matrices inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gpt2.training.settings import TrainingSettings
from gpt2.training.workers import Workers


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


def write_state(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    state: Mapping[str, Tensor],
    workers: Workers,
) -> None:
    """Give the optimizers the numbers that `read_state` returned.

    Raises:
        KeyError: Some are missing.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        muon = isinstance(optimizer, torch.optim.Muon)
        means = ("momentum_buffer",) if muon else ("exp_avg", "exp_avg_sq")
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = names[parameter]
                own = optimizer.state[parameter]
                for what in means:
                    part = workers.part_of(state[f"{name}/{what}"], parameter)
                    own[what] = part
                if not muon:
                    # The fused kernel wants even its counter where the
                    # parameter is.
                    count = state[f"{name}/step"]
                    own["step"] = count.to(parameter.device, copy=True)

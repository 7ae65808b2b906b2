"""One training run in several processes, on one machine or on many.

`torchrun` starts the processes and tells each its number. Each has the whole
model (`ddp`) or a share of it (`fsdp`), computes the gradients of its part of
every batch, and takes the same step as the others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

CPU = torch.device("cpu")

Sharing = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Workers:
    """This process, and how many there are beside it."""

    rank: int = 0
    """The number of this one, from 0."""
    count: int = 1
    device: torch.device = CPU
    sharing: Sharing = "ddp"
    """Whether each process has the whole model or a share of it."""

    _last_work: ClassVar[dist.Work | None] = None

    @classmethod
    def join(cls, device: str = "cpu", sharing: Sharing = "ddp") -> Workers:
        """Meet the other processes, if `torchrun` has started any."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls(device=torch.device(device))
        place = torch.device(device)
        if place.type == "cuda":
            place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            if (n_devices := torch.cuda.device_count()) <= place.index:
                raise RuntimeError(
                    f"there are {n_devices} CUDA devices here, and more "
                    f"processes"
                )
            torch.cuda.set_device(place)
        backend = "nccl" if place.type == "cuda" else "gloo"
        # The first process may take long over the data, while the others wait.
        dist.init_process_group(backend, timeout=timedelta(hours=3))
        return cls(dist.get_rank(), count, place, sharing)

    def leave(self) -> None:
        """Part from the others."""
        if self.count > 1:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def divides_model(self) -> bool:
        """Whether no process has the whole model."""
        return self.count > 1 and self.sharing == "fsdp"

    def share(self, model: nn.Module) -> nn.Module:
        """Return the model as the training loop is to call it."""
        if self.count == 1:
            return model
        if self.sharing == "ddp":
            return nn.parallel.DistributedDataParallel(model)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.count,))
        for layer in cast(nn.ModuleList, model.h):
            fully_shard(layer, mesh=mesh)
        # Not even the outermost part stays whole after a forward pass: then
        # the model's parameters are the optimizer's at any time.
        fully_shard(model, mesh=mesh, reshard_after_forward=True)
        return model

    def without_sync(
        self, model: nn.Module, last: bool
    ) -> AbstractContextManager[None]:
        """Keep gradients to oneself until the last micro-batch of a step."""
        if self.count == 1:
            return nullcontext()
        if self.sharing == "fsdp":
            # `fully_shard` gave the module this method, unknown to its class.
            model.set_requires_gradient_sync(last)  # type: ignore[operator]
            return nullcontext()
        ddp = cast(nn.parallel.DistributedDataParallel, model)
        return nullcontext() if last else ddp.no_sync()

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.count > 1:
            work = cast(dist.Work, dist.all_reduce(value, async_op=True))
            work.wait()
            # Kept: else a thread of gloo's may be the last to hold it, and
            # needs the interpreter to let go. A process that ends meanwhile
            # has the interpreter, and would wait for that thread for ever.
            Workers._last_work = work
        return value

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gather tensors of which each process may have a share, on the CPU.

        All processes have to call it, and all get the whole.
        """
        from torch.distributed.tensor import DTensor

        return {
            name: (
                tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            )
            .detach()
            .cpu()
            for name, tensor in tensors.items()
        }

    def part_of(self, whole: Tensor, like: Tensor) -> Tensor:
        """Cut this process's share out of a tensor, where `like` is one."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if isinstance(like, DTensor):
            return distribute_tensor(
                whole.to(self.device), like.device_mesh, like.placements
            )
        return whole.to(self.device, copy=True)

"""One training run in several processes, on one machine or on many.

`torchrun` starts the processes and numbers them. Each holds the whole model
(`ddp`) or a shard of it (`fsdp`), computes the gradients of its rows of every
batch, and takes the same steps as the others.
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

from gpt2.training.cross_entropy import NextTokenLoss

CPU = torch.device("cpu")

Sharing = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Workers:
    """This process, and what it knows of the others."""

    rank: int = 0
    """The number of this process, from 0."""
    world_size: int = 1
    """How many processes there are."""
    device: torch.device = CPU
    sharing: Sharing = "ddp"
    """Whether each process holds the whole model or a shard of it."""

    _last_work: ClassVar[dist.Work | None] = None

    @classmethod
    def join(cls, device: str = "cpu", sharing: Sharing = "ddp") -> Workers:
        """Join the other processes, if `torchrun` has started any.

        Raises:
            RuntimeError: There are fewer CUDA devices than processes.
        """
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        if world_size == 1:
            return cls(device=torch.device(device))
        own = torch.device(device)
        if own.type == "cuda":
            own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            if (n_devices := torch.cuda.device_count()) <= own.index:
                raise RuntimeError(
                    f"each process needs a CUDA device; process {own.index} "
                    f"found only {n_devices} on this machine"
                )
            torch.cuda.set_device(own)
        backend = "nccl" if own.type == "cuda" else "gloo"
        # The others wait while the first process prepares the data.
        dist.init_process_group(backend, timeout=timedelta(hours=3))
        return cls(dist.get_rank(), world_size, own, sharing)

    def leave(self) -> None:
        """Leave the group of processes."""
        if self.world_size > 1:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def shards_model(self) -> bool:
        """Whether each process holds only a shard of the model."""
        return self.world_size > 1 and self.sharing == "fsdp"

    def wrap(self, loss: NextTokenLoss) -> nn.Module:
        """Return the loss as the training loop has to call it."""
        if self.world_size == 1:
            return loss
        if self.sharing == "ddp":
            return nn.parallel.DistributedDataParallel(loss)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world_size,))
        for layer in loss.model.h:
            fully_shard(layer, mesh=mesh)
        # Reshard even the root after the forward pass: then the parameters
        # are at all times those that the optimizer has.
        fully_shard(loss, mesh=mesh, reshard_after_forward=True)
        return loss

    def synced(
        self, loss: nn.Module, sync: bool
    ) -> AbstractContextManager[None]:
        """Exchange gradients after this backward pass, or keep them local.

        Args:
            loss: What `wrap` returned.
            sync: True for the last micro-batch of a step.
        """
        if self.world_size == 1:
            return nullcontext()
        if self.sharing == "fsdp":
            # `fully_shard` added this method; the type checker cannot know.
            loss.set_requires_gradient_sync(sync)  # type: ignore[operator]
            return nullcontext()
        ddp = cast(nn.parallel.DistributedDataParallel, loss)
        return nullcontext() if sync else ddp.no_sync()

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, in place."""
        if self.world_size > 1:
            work = cast(dist.Work, dist.all_reduce(value, async_op=True))
            work.wait()
            # Keep a reference. Otherwise one of gloo's threads may be the last
            # to hold it, and needs the interpreter lock to free it; a process
            # that is exiting holds that lock and would wait for the thread
            # forever.
            Workers._last_work = work
        return value

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.world_size > 1:
            dist.barrier()

    def gather(self, tensor: Tensor) -> Tensor:
        """Return a whole tensor on the CPU, detached.

        If it is sharded, all processes have to call this.
        """
        from torch.distributed.tensor import DTensor

        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return full.detach().cpu()

    def gather_all(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gather each of some named tensors, as `gather` does."""
        return {name: self.gather(tensor) for name, tensor in tensors.items()}

    def shard(self, full: Tensor, like: Tensor) -> Tensor:
        """Return a copy of a tensor, sharded if `like` is."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if isinstance(like, DTensor):
            return distribute_tensor(
                full.to(self.device), like.device_mesh, like.placements
            )
        return full.to(self.device, copy=True)

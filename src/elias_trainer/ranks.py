"""Several processes training one model, started by torchrun; alone, every call is a plain no-op.

No DistributedDataParallel: its overlap and hooks assume the same number of micro-batches in every process and a step
that is never abandoned. Gradients are summed once a step, in buckets, and nothing else is hidden.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

_BUCKET_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """The one that writes."""
        return self.rank == 0

    def join(self) -> None:
        if self.world_size > 1:
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")

    def leave(self) -> None:
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def wait(self) -> None:
        """For all the others to come here."""
        if self.world_size > 1:
            dist.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """Over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """In place; a process without a micro-batch takes part with zeros."""
        if self.world_size == 1:
            return
        for bucket in _buckets(parameters):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))


def ranks_from_environment() -> Ranks:
    """As torchrun sets it; one process without it."""
    return Ranks(
        rank=int(os.environ.get("RANK", "0")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
    )


def _buckets(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    held = 0
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        held += parameter.grad.nbytes
        if held >= _BUCKET_BYTES:
            yield bucket
            bucket, held = [], 0
    if bucket:
        yield bucket

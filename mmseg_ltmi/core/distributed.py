"""What ranks share, by torch.distributed; without a process group each call does nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def rank_and_world_size() -> tuple[int, int]:
    """This process's rank and the number of ranks; (0, 1) without a process group."""
    if not _in_group():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (N, ...) of all ranks, (ranks * N, ...); N must be the same on each."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(world_size)]
    distributed.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


def gather_objects(value: Any) -> list[Any]:
    """What each rank has, of any kind that pickles and whatever its size, in the order of ranks."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return [value]
    gathered = [None] * world_size
    distributed.all_gather_object(gathered, value)
    return gathered


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum over all ranks, in place."""
    if rank_and_world_size()[1] > 1:
        distributed.all_reduce(value)
    return value


def _in_group() -> bool:
    return distributed.is_available() and distributed.is_initialized()

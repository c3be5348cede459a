"""Whether a module is the same on every rank, which nobody sees in a loss that falls."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .distributed import gather_rows, rank_and_world_size
from .training_step import is_compiling


class RankCheck:
    """Refuses a module whose parameters drift apart between the ranks.

    That happens where DistributedDataParallel wraps the network and not what stands beside it. It
    looks at the steps 2, 4, 8 and so on, since gradients may be summed over some before the
    parameters move; in the others it costs nothing. Sharded parameters are left alone.

    Raises:
        RuntimeError: parameters differ; it names the remedy.
    """

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, module: nn.Module) -> None:
        """Call it in each step of training, on every rank."""
        if rank_and_world_size()[1] == 1 or is_compiling():
            return
        self.steps += 1
        is_due = self.steps > 1 and self.steps & (self.steps - 1) == 0
        if not is_due or _is_sharded(module):
            return
        sums = gather_rows(_checksum(module)[None])
        if bool((sums != sums[0]).any()):
            name = type(module).__name__
            raise RuntimeError(
                f'the parameters of {name} differ between the ranks, which train one each: wrap it '
                'as the network is, in torch.nn.parallel.DistributedDataParallel(..., '
                'broadcast_buffers=False); docs/plain_pytorch.md shows it'
            )


def _is_sharded(module: nn.Module) -> bool:
    # A rank has a part of each: DTensors of fully_shard, and a wrapper of FSDP further in.
    wrapped = any(type(m).__name__ == 'FullyShardedDataParallel' for m in module.modules())
    return wrapped or any(hasattr(p, 'to_local') for p in module.parameters())


@torch.no_grad()
def _checksum(module: nn.Module) -> Tensor:
    """An int64 scalar of the bytes of all parameters, so that no order of summing matters."""
    found = torch.zeros((), dtype=torch.int64)
    for parameter in module.parameters():
        # NaN has many forms.
        flat = parameter.detach().nan_to_num().flatten()
        found = found.to(flat.device) + flat.view(torch.uint8).sum()
    return found

"""A queue of contrast samples with room for every class."""

from __future__ import annotations

import logging
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import gather_rows
from ..state_dict_hooks import before_load

logger = logging.getLogger(__name__)


class ClassQueue(nn.Module):
    """Class-wise ring buffers: class c owns ``min_per_class`` slots plus a share of the rest.

    Everything is a buffer, so a checkpoint keeps it; slots are sorted by class.

    Args:
        num_classes: C.
        channels: D, width of a stored sample.
        size: K, slots in all.
        min_per_class: slots that every class owns at least.
        power: the share is in proportion to ``pi_c ** power``: 1 follows the class prior, 0.5 its
            square root, 0 gives all classes alike.
        max_new: samples of a class that are stored in one step, over all ranks; None stores every
            one. With few a ring keeps samples of many steps, so of many images.

    Raises:
        ValueError: ``size`` is less than ``num_classes * min_per_class``, ``power`` is negative,
            ``max_new`` below 1.

    Shape:
        samples (K, D) float32, labels (K,) int64, -1 where a slot is empty, ids (K,) int64.
    """

    samples: Tensor
    labels: Tensor
    ids: Tensor
    start: Tensor
    room: Tensor
    pointer: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        size: int = 4096,
        min_per_class: int = 8,
        power: float = 1.0,
        max_new: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= power < math.inf:
            raise ValueError(f'ClassQueue.power is {power}: it must be 0 or more')
        if max_new is not None and max_new < 1:
            raise ValueError(f'ClassQueue.max_new is {max_new}: store at least 1, or None for all')
        if min_per_class < 1:
            raise ValueError(f'ClassQueue.min_per_class is {min_per_class}: it must be at least 1')
        if size < num_classes * min_per_class:
            raise ValueError(
                f'ClassQueue.size={size} is too small for {num_classes} classes with '
                f'min_per_class={min_per_class}: give at least {num_classes * min_per_class} slots'
            )
        self.num_classes = num_classes
        self.size = size
        self.min_per_class = min_per_class
        self.power = power
        self.max_new = max_new
        self.register_buffer('samples', torch.zeros(size, channels))
        self.register_buffer('labels', torch.full((size,), -1))
        self.register_buffer('ids', torch.full((size,), -1))
        self.register_buffer('pointer', torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer('start', torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer('room', torch.zeros(num_classes, dtype=torch.int64))
        self.allocate(torch.full((num_classes,), 1 / num_classes))
        before_load(self, _refuse_other_layout)

    @torch.no_grad()
    def allocate(self, probs: Tensor) -> None:
        """Give class c ``min_per_class`` slots and a share in proportion to ``probs ** power``.

        Empties the queue, unless its slots are laid out so already. The shares are whole numbers
        by the largest remainder.

        Args:
            probs: (C,) the class prior.
        """
        probs = probs.double().cpu() ** self.power
        share = (self.size - self.num_classes * self.min_per_class) * probs / probs.sum()
        room = share.floor().long()
        left = self.size - self.num_classes * self.min_per_class - int(room.sum())
        room[(share - room).argsort(descending=True, stable=True)[:left]] += 1
        room += self.min_per_class
        if torch.equal(room, self.room.cpu()):
            return  # FlexibleRunner loads a checkpoint before ClassPriorHook brings the prior
        self.room.copy_(room)
        self.start.copy_(room.cumsum(0) - room)
        self.pointer.zero_()
        self.labels.fill_(-1)
        self.ids.fill_(-1)

    @torch.no_grad()
    def enqueue(self, samples: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Store samples of all ranks; of more than ``max_new``, or than fit, the last ones stay.

        A sample that is not finite is passed over, so that a forward pass which overflows in mixed
        precision does not spoil the steps that follow.

        Args:
            samples: (N, D).
            labels: int64 (N,); what is outside 0..C-1 is passed over.
            ids: int64 (N,), identity of each sample within this step, over all ranks.
        """
        samples = gather_rows(samples.detach().to(self.samples.dtype))
        labels, ids = gather_rows(labels), gather_rows(ids)

        known = (labels >= 0) & (labels < self.num_classes) & samples.isfinite().all(1)
        group = labels.where(known, self.num_classes)
        order = group.argsort(stable=True)
        group = group[order]
        arrived = torch.zeros(self.num_classes + 1, dtype=torch.int64, device=labels.device)
        arrived.index_add_(0, group, torch.ones_like(group))
        rank = torch.arange(len(group), device=group.device) - (arrived.cumsum(0) - arrived)[group]
        if self.max_new is not None:  # the others never arrive: their rank is below 0
            rank = rank - (arrived - self.max_new).clamp(min=0)[group]
            arrived = arrived.clamp(max=self.max_new)
        # The spare class C has a ring of one slot behind the last, where nothing stays.
        room = F.pad(self.room, (0, 1), value=1)
        slot = F.pad(self.start, (0, 1), value=self.size)[group]
        slot = slot + (F.pad(self.pointer, (0, 1))[group] + rank) % room[group]
        slot = slot.where(rank >= (arrived - room).clamp(min=0)[group], self.size)

        self.ids.fill_(-1)  # identities hold within a step only
        if len(order):
            # To pick the kept ones by a mask would wait for the device. What is dropped repeats a
            # kept one instead, or, where none is kept, what its slot holds.
            kept = slot < self.size
            # One element and no scalar: picking by a scalar would wait, too.
            any_kept, some = kept.any(), kept.int().argmax(0, keepdim=True)
            slot = slot.where(kept, slot[some]).clamp(max=self.size - 1)
            order = order.where(kept, order[some])
            stored = ((self.samples, samples), (self.labels, labels), (self.ids, ids))
            for buffer, values in stored:
                buffer[slot] = values[order].where(any_kept, buffer[slot])
        self.pointer.copy_((self.pointer + arrived[:-1]) % self.room)

    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """Copies of samples (K, D), labels (K,), ids (K,).

        Copies, because autograd holds them until the backward pass and the next enqueue writes in
        place.
        """
        return self.samples.clone(), self.labels.clone(), self.ids.clone()

    def reject(self, state_dict: dict[str, Tensor], prefix: str, reason: str) -> None:
        """Put the queue's own state in the place of a saved one that it cannot take."""
        logger.warning('%s stays as it is: %s', prefix[:-1], reason)
        state_dict.update({f'{prefix}{name}': value for name, value in self.state_dict().items()})

    def fill(self) -> Tensor:
        """Share of the slots that are filled, a float32 scalar."""
        return (self.labels >= 0).float().mean()


def _refuse_other_layout(queue: ClassQueue, state_dict: dict[str, Tensor], prefix: str) -> None:
    # Samples alone would be refused, and labels would then name samples that are not there; of
    # other classes, keys would count for classes that they are not of.
    for name in ('samples', 'room'):
        saved, own = state_dict.get(f'{prefix}{name}'), getattr(queue, name)
        if saved is not None and saved.shape != own.shape:
            shapes = f'{tuple(saved.shape)}, not {tuple(own.shape)}'
            queue.reject(state_dict, prefix, f"the checkpoint's {name} have shape {shapes}")
            return

"""Which pixels are hard, where a loss adds the prior to the scores."""

from __future__ import annotations

from typing import Any

from mmseg.structures import OHEMPixelSampler
from mmseg.structures.sampler import BasePixelSampler
from torch import Tensor

from mmseg_ltmi.core.losses import LogitAdjustedLoss
from mmseg_ltmi.core.posterior import losses_of, natural_shift_of


def judge_by_trained_scores(head: Any) -> None:
    """Let a head's OHEM with ``thresh`` judge by the softmax that its loss trains.

    By that of raw scores, which is balanced, pixels of a frequent class stay hard when they are
    learned. Without ``thresh`` OHEM asks the loss.
    """
    if has_threshold(head):
        head.sampler = _TrainedScoresSampler(head.sampler, head)


def has_threshold(head: Any) -> bool:
    """Whether a head's sampler compares the softmax of raw scores with a threshold."""
    sampler = getattr(head, 'sampler', None)  # a mask classifier has none
    return isinstance(sampler, OHEMPixelSampler) and sampler.thresh is not None


class _TrainedScoresSampler(BasePixelSampler):
    def __init__(self, sampler: OHEMPixelSampler, head: Any) -> None:
        super().__init__()
        self.sampler, self.head = sampler, head

    def sample(self, seg_logit: Tensor, seg_label: Tensor) -> Tensor:
        loss = next((x for x in losses_of(self.head) if self._speaks(x)), None)
        if isinstance(loss, LogitAdjustedLoss):
            seg_logit = seg_logit + loss.trained_shift().view(1, -1, 1, 1)
        return self.sampler.sample(seg_logit, seg_label)

    def _speaks(self, loss: Any) -> bool:
        is_on = getattr(loss, 'loss_weight', 1) != 0
        return is_on and natural_shift_of(loss, self.head.num_classes) is not None

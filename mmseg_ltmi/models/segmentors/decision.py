"""The operating point of a segmentor, kept in its checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmseg_ltmi.evaluation.iou_rule import iou_scores
from mmseg_ltmi.evaluation.operating_point import OperatingPoint
from mmseg_ltmi.models.optional_state import OptionalState


class Decision(OptionalState):
    """Natural log-posterior to the scores that argmax reads; at first it changes nothing.

    Args:
        num_classes: C.

    Attributes:
        shift: float32 (C,), ``-tau_test * log pi``.
        iou: float32 (C,), of the IoU rule; NaN without it.
        union: float32 (C,), likewise.
    """

    shift: Tensor
    iou: Tensor
    union: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name in ('shift', 'iou', 'union'):
            self.register_buffer(name, torch.empty(num_classes))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the argmax of the natural posterior."""
        self.shift.zero_()
        self.iou.fill_(torch.nan)
        self.union.fill_(torch.nan)
        self._look()

    @torch.no_grad()
    def take(self, point: OperatingPoint) -> None:
        """Take the operating point; its length must be C."""
        self.reset()
        if point.rule == 'tau':
            self.shift.copy_(-point.tau * torch.tensor(point.log_prior))
        else:
            self.iou.copy_(torch.tensor(point.iou))
            self.union.copy_(torch.tensor(point.union))
        self._look()

    def _look(self) -> None:
        # Kept as flags, so that no step waits for the device to answer.
        self.has_iou_rule = not bool(self.iou.isnan().any())
        self.is_plain = not self.has_iou_rule and not bool(self.shift.any())

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._look()

    def iou_scores(self, posterior: Tensor) -> Tensor:
        """Scores of the IoU rule, (C, ...) from the posterior (C, ...)."""
        return iou_scores(posterior, self.iou, self.union, dim=0)

"""Metrics that show both ends of the class distribution."""

from .logit_adjustment_sweep import LogitAdjustmentSweep
from .long_tail_iou_metric import LongTailIoUMetric

__all__ = ['LogitAdjustmentSweep', 'LongTailIoUMetric']

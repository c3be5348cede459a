"""Metrics that show both ends of the class distribution."""

from .logit_adjustment_sweep import LogitAdjustmentSweep
from .long_tail_iou_metric import LongTailIoUMetric
from .per_class import class_rows, group_means, write_rows

__all__ = [
    'LogitAdjustmentSweep',
    'LongTailIoUMetric',
    'class_rows',
    'group_means',
    'write_rows',
]

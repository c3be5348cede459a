"""Metrics that show both ends of the class distribution, and the choice of an operating point."""

from .confusion_metric import ConfusionMetric, explain
from .iou_rule import IoURule, fit_iou_rule, iou_scores
from .logit_adjustment_sweep import LogitAdjustmentSweep
from .long_tail_iou_metric import LongTailIoUMetric
from .operating_point import OperatingPoint
from .operating_point_metric import OperatingPointMetric
from .per_class import class_rows, group_means, overall_means, write_rows
from .rankseg_rule import RankSEGRule
from .tau_sweep import areas_over_taus

__all__ = [
    'ConfusionMetric',
    'IoURule',
    'LogitAdjustmentSweep',
    'LongTailIoUMetric',
    'OperatingPoint',
    'OperatingPointMetric',
    'RankSEGRule',
    'areas_over_taus',
    'class_rows',
    'explain',
    'fit_iou_rule',
    'group_means',
    'iou_scores',
    'overall_means',
    'write_rows',
]

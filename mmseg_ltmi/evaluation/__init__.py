"""Metrics that show both ends of the class distribution, and the choice of an operating point."""

from mmseg_ltmi.compat import require_openmmlab

require_openmmlab()

from .confusion_metric import ConfusionMetric, explain  # noqa: E402
from .logit_adjustment_sweep import LogitAdjustmentSweep  # noqa: E402
from .long_tail_iou_metric import LongTailIoUMetric  # noqa: E402
from .operating_point_metric import OperatingPointMetric  # noqa: E402
from .per_class import class_rows, group_means, overall_means, write_rows  # noqa: E402
from .rankseg_rule import RankSEGRule  # noqa: E402

__all__ = [
    'ConfusionMetric',
    'LogitAdjustmentSweep',
    'LongTailIoUMetric',
    'OperatingPointMetric',
    'RankSEGRule',
    'class_rows',
    'explain',
    'group_means',
    'overall_means',
    'write_rows',
]

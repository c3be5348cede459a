"""Metrics that show both ends of the class distribution, and the choice of an operating point."""

from typing import TYPE_CHECKING

from mmseg_ltmi.compat import require_openmmlab
from mmseg_ltmi.core.on_demand import import_on_demand

require_openmmlab()

if TYPE_CHECKING:
    from .area_rows import class_rows
    from .confusion_metric import ConfusionMetric, explain
    from .logit_adjustment_sweep import LogitAdjustmentSweep
    from .long_tail_iou_metric import LongTailIoUMetric
    from .operating_point_metric import OperatingPointMetric
    from .per_class import group_means, overall_means, write_rows
    from .rankseg_rule import RankSEGRule
else:
    # Tables of runs are compared without waiting for torch and mmsegmentation.
    __getattr__, __dir__ = import_on_demand(
        __name__,
        {
            'area_rows': ['class_rows'],
            'confusion_metric': ['ConfusionMetric', 'explain'],
            'logit_adjustment_sweep': ['LogitAdjustmentSweep'],
            'long_tail_iou_metric': ['LongTailIoUMetric'],
            'operating_point_metric': ['OperatingPointMetric'],
            'per_class': ['group_means', 'overall_means', 'write_rows'],
            'rankseg_rule': ['RankSEGRule'],
        },
    )

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

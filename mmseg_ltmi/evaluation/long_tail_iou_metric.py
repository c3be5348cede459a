"""IoU for head, medium and tail classes beside the overall mean."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from prettytable import PrettyTable

from .per_class import GROUPS, check_suffix, class_rows, group_means, write_rows


@METRICS.register_module()
class LongTailIoUMetric(IoUMetric):
    """mmsegmentation's IoUMetric, plus the mean IoU and accuracy of head, medium and tail.

    The groups follow :meth:`ClassPrior.groups`. A class that the evaluated labels do not hold is
    left out of its group's mean, and the log says so.

    Args:
        class_prior: as for LogitAdjustedLoss; None ranks the classes by the evaluated labels.
        per_class_file: where to write a row per class, ``.json`` or ``.csv``.
        kwargs: as for IoUMetric.

    Raises:
        ValueError: ``per_class_file`` has another suffix; in the evaluation, a class prior that
            does not fit the data set's classes.
    """

    def __init__(
        self, class_prior: Any = None, per_class_file: str | None = None, **kwargs: Any
    ) -> None:
        check_suffix(per_class_file)
        super().__init__(**kwargs)
        self.class_prior = class_prior
        self.per_class_file = per_class_file

    def compute_metrics(self, results: list) -> dict[str, float]:
        """IoUMetric's results, and ``mIoU_head``, ``mAcc_head``, ... in percent."""
        metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        areas = torch.stack([torch.stack(list(image)) for image in results]).sum(0)
        rows = class_rows(areas, self.dataset_meta['classes'], self.class_prior)
        metrics.update(group_means(rows))
        print_log('\n' + _group_table(rows), MMLogger.get_current_instance())
        absent = [row['class'] for row in rows if row['pixels'] == 0]
        if absent:
            print_log(
                f'without a pixel in the evaluated labels, and left out: {", ".join(absent)}',
                MMLogger.get_current_instance(),
            )
        if self.per_class_file is not None:
            write_rows(rows, self.per_class_file)
        return metrics


def _group_table(rows: list[dict[str, Any]]) -> str:
    table = PrettyTable(['group', 'mIoU', 'mAcc', 'classes'], align='l')
    means = group_means(rows)
    for group in GROUPS:
        names = [row['class'] for row in rows if row['group'] == group]
        shown = ', '.join(names[:8]) + (f', ... ({len(names)})' if len(names) > 8 else '')
        columns = (means.get(f'mIoU_{group}', '-'), means.get(f'mAcc_{group}', '-'))
        table.add_row([group, *columns, shown])
    return table.get_string()

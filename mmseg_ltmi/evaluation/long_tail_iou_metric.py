"""IoU for head, medium and tail classes beside the overall mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from prettytable import PrettyTable

from mmseg_ltmi.prior_message import announced_prior

from .metric_prior import check_groups, read_metric_prior
from .per_class import GROUPS, check_suffix, class_rows, group_means, overall_means, write_rows


@METRICS.register_module()
class LongTailIoUMetric(IoUMetric):
    """mmsegmentation's IoUMetric, its arguments and results, plus what happened to which classes.

    It adds, in percent: ``mIoU_head``, ``mAcc_head``, ``mPrecision_head``, ... for head, medium and
    tail by pixel frequency; the same with ``_by_images`` for the groups by image frequency;
    ``mPrecision`` and ``fwIoU`` (weighted by pixels); and ``IoU/<class>``, a scalar that every
    logger plots. The groups follow :meth:`ClassPrior.groups`. A class that the evaluated labels do
    not hold is left out of every mean, and the log says so.

    Args:
        args: as for IoUMetric.
        class_prior: as for LogitAdjustedLoss; None takes that of the LTMI head that predicts, and
            without one ranks the classes by the evaluated labels.
        per_class_file: where to write a row per class (:func:`class_rows`), ``.json`` or
            ``.csv``. A relative path lies in the folder of the run's log, WORK_DIR/<timestamp>.
            None writes none.
        kwargs: as for IoUMetric.

    Raises:
        ValueError: ``per_class_file`` has another suffix; in the evaluation, a class prior that
            does not fit the data set's classes, or that groups them otherwise than the LTMI head's.
    """

    def __init__(
        self,
        *args: Any,
        class_prior: Any = None,
        per_class_file: str | None = 'per_class.json',
        **kwargs: Any,
    ) -> None:
        check_suffix(per_class_file)
        super().__init__(*args, **kwargs)
        self.class_prior = class_prior
        self.per_class_file = per_class_file

    def compute_metrics(self, results: list) -> dict[str, float]:
        """IoUMetric's results and those named above."""
        metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        areas = torch.stack([torch.stack(list(image)) for image in results]).double()
        images = (areas[:, 3] > 0).sum(0).tolist()
        classes = self.dataset_meta['classes']
        prior = read_metric_prior(self.class_prior, len(classes))
        model = announced_prior(len(classes))
        if prior is not None and model is not None:
            check_groups(prior, model)
        rows = class_rows(areas.sum(0), classes, prior or model, images)
        means = overall_means(rows) | group_means(rows)
        means |= group_means(rows, 'image_group', '_by_images')
        metrics.update({key: value for key, value in means.items() if key not in metrics})
        metrics.update(
            {f'IoU/{row["class"]}': round(row['IoU'], 2) for row in rows if row['pixels'] > 0}
        )
        logger = MMLogger.get_current_instance()
        print_log(f'\n{_group_table(rows)}', logger)
        absent = [row['class'] for row in rows if row['pixels'] == 0]
        if absent:
            print_log(
                f'without a pixel in the evaluated labels, and left out: {", ".join(absent)}',
                logger,
            )
        if self.per_class_file is not None:
            path = _in_run_folder(self.per_class_file, logger)
            write_rows(rows, path)
            print_log(f'a row per class: {path}', logger)
        return metrics


def _in_run_folder(file: str, logger: MMLogger) -> Path:
    log_file = getattr(logger, 'log_file', None)
    return Path(file) if log_file is None else Path(log_file).parent / file


def _group_table(rows: list[dict[str, Any]]) -> str:
    table = PrettyTable(['group', 'by', 'mIoU', 'mAcc', 'mPrecision', 'classes'], align='l')
    for key, by in (('group', 'pixels'), ('image_group', 'images')):
        means = group_means(rows, key)
        for group in GROUPS:
            names = [row['class'] for row in rows if row[key] == group]
            shown = ', '.join(names[:8]) + (f', ... ({len(names)})' if len(names) > 8 else '')
            scores = [means.get(f'{m}_{group}', '-') for m in ('mIoU', 'mAcc', 'mPrecision')]
            if names:
                table.add_row([group, by, *scores, shown])
    return table.get_string()

"""IoU for head, medium and tail classes beside the overall mean."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from prettytable import PrettyTable

from mmseg_ltmi.priors import ClassPrior, build_class_prior


@METRICS.register_module()
class LongTailIoUMetric(IoUMetric):
    """mmsegmentation's IoUMetric, plus the mean IoU and accuracy of head, medium and tail.

    The groups follow :meth:`ClassPrior.groups`. A class that the evaluated labels do not hold has
    IoU ``nan`` and is left out of its group's mean.

    Args:
        class_prior: as for LogitAdjustedLoss; None ranks the classes by the evaluated labels.
        per_class_file: where to write a row per class, ``.json`` or ``.csv``.
        kwargs: as for IoUMetric.
    """

    def __init__(
        self, class_prior: Any = None, per_class_file: str | None = None, **kwargs: Any
    ) -> None:
        if per_class_file is not None and Path(per_class_file).suffix not in ('.json', '.csv'):
            raise ValueError(f'per_class_file must end in .json or .csv, but is {per_class_file}')
        super().__init__(**kwargs)
        self.class_prior = class_prior
        self.per_class_file = per_class_file

    def compute_metrics(self, results: list) -> dict[str, float]:
        """IoUMetric's results, and ``mIoU_head``, ``mAcc_head``, ... in percent."""
        metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        areas = [torch.stack(area).sum(0) for area in zip(*results, strict=True)]
        rows = self._rows(areas)
        metrics.update(group_means(rows))
        print_log('\n' + _group_table(rows), MMLogger.get_current_instance())
        if self.per_class_file is not None:
            write_rows(rows, self.per_class_file)
        return metrics

    def _rows(self, areas: Sequence[torch.Tensor]) -> list[dict[str, Any]]:
        classes = self.dataset_meta['classes']
        intersect, union, _, label = (area.double().numpy() for area in areas)
        prior = evaluation_prior(self.class_prior, label, len(classes))
        with np.errstate(invalid='ignore', divide='ignore'):
            iou = np.where(label > 0, 100 * intersect / union, np.nan)
            acc = 100 * intersect / label
        absent = [name for name, count in zip(classes, label, strict=True) if count == 0]
        if absent:
            warnings.warn(
                f'classes without a pixel in the evaluated labels are left out of the head, '
                f'medium and tail means: {", ".join(absent)}',
                stacklevel=2,
            )
        group = group_names(prior)
        return [
            {
                'class': classes[c],
                'group': group[c],
                'prior': float(prior.probs()[c]),
                'pixels': int(label[c]),
                'IoU': float(iou[c]),
                'Acc': float(acc[c]),
            }
            for c in range(len(classes))
        ]


def evaluation_prior(class_prior: Any, label_pixels: np.ndarray, num_classes: int) -> ClassPrior:
    """The prior that ranks the classes: the one that is named, or that of the evaluated labels."""
    if class_prior is None:
        return ClassPrior(label_pixels.astype(np.int64), source='the evaluated labels')
    return build_class_prior(class_prior, num_classes, "the metric's class_prior")


def group_names(prior: ClassPrior) -> list[str]:
    """'head', 'medium' or 'tail' for each class."""
    names = [''] * prior.num_classes
    for name, members in prior.groups()._asdict().items():
        for c in members:
            names[c] = name
    return names


def group_means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """``mIoU_<group>`` and ``mAcc_<group>``, in percent, over the classes that occur."""
    means = {}
    for group in ('head', 'medium', 'tail'):
        members = [row for row in rows if row['group'] == group and row['pixels'] > 0]
        if members:
            for key in ('IoU', 'Acc'):
                mean = float(np.mean([row[key] for row in members]))
                means[f'm{key}_{group}'] = round(mean, 2)
    return means


def write_rows(rows: list[dict[str, Any]], path: str | Path) -> None:
    """Write a row per class, as JSON (``nan`` becomes null) or CSV by the suffix."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.json':
        clean = [{k: None if v != v else v for k, v in row.items()} for row in rows]
        path.write_text(json.dumps(clean, indent=1) + '\n')
        return
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _group_table(rows: list[dict[str, Any]]) -> str:
    table = PrettyTable(['group', 'mIoU', 'mAcc', 'classes'], align='l')
    means = group_means(rows)
    for group in ('head', 'medium', 'tail'):
        if f'mIoU_{group}' in means:
            names = [row['class'] for row in rows if row['group'] == group]
            shown = ', '.join(names[:8]) + (f', ... ({len(names)})' if len(names) > 8 else '')
            table.add_row([group, means[f'mIoU_{group}'], means[f'mAcc_{group}'], shown])
    return table.get_string()

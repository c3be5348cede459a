"""IoU for head, medium and tail classes beside the overall mean."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from prettytable import PrettyTable
from torch import Tensor

from mmseg_ltmi.core.class_names import distinct_names, shortened
from mmseg_ltmi.core.posterior import decision_areas, labels_or_spare
from mmseg_ltmi.core.priors import ClassPrior
from mmseg_ltmi.core.priors.label_space import check_ignored_is_free
from mmseg_ltmi.prior_message import announced_prior

from .area_rows import class_rows
from .label_map_folder import LabelMapFolder
from .metric_prior import check_groups, read_metric_prior
from .per_class import (
    GROUPS,
    check_suffix,
    group_means,
    overall_means,
    what_is_left_out,
    write_rows,
)
from .run_folder import in_run_folder


@METRICS.register_module()
class LongTailIoUMetric(IoUMetric):
    """mmsegmentation's IoUMetric, its arguments and results, plus what happened to which classes.

    It adds, in percent: ``mIoU_head``, ``mAcc_head``, ``mPrecision_head``, ... for head, medium and
    tail by pixel frequency; the same with ``_by_images`` for the groups by image frequency;
    ``mPrecision`` and ``fwIoU`` (weighted by pixels); and ``IoU/<class>``, a scalar that every
    logger plots. The groups follow :meth:`ClassPrior.groups`.

    A class that the evaluated labels do not hold is left out of every mean, as everywhere in this
    package, and the log says so. IoUMetric leaves it out only where it is not predicted either;
    where that makes a difference the log has IoUMetric's numbers too. ``nan_to_num`` counts such a
    class as that number instead, in IoUMetric's results. A pixel whose label is neither a class
    nor ``ignore_index`` takes no part, with a warning.

    ``output_dir`` has a label map for each image. Where two images have the same name, the maps lie
    in the images' subfolders, and with more than 256 labels they have 16 bits.

    Args:
        args: as for IoUMetric.
        class_prior: as for LogitAdjustedLoss; None takes that of the LTMI head that predicts, and
            without one ranks the classes by the evaluated labels.
        per_class_file: where to write a row per class (:func:`class_rows`), ``.json`` or
            ``.csv``. A relative path lies in the folder of the run's log, WORK_DIR/<timestamp>.
            None writes none.
        kwargs: as for IoUMetric.

    Raises:
        ValueError: ``per_class_file`` has another suffix; at the first image, a class prior that
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
        folder: str | None = self.output_dir
        self.label_maps = None if folder is None else LabelMapFolder(folder)
        self.output_dir: str | None = None  # IoUMetric's maps have 8 bits, and one name
        self.class_prior = class_prior
        self.per_class_file = per_class_file
        self._has_warned = False
        self._prior: ClassPrior | None = None

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Store the areas of each image."""
        if not self.results:  # once an evaluation
            self._has_warned = False
            num_classes = len(self.dataset_meta['classes'])
            check_ignored_is_free(self.ignore_index, num_classes, type(self).__name__)
            if not self.format_only:
                self._prior = self._find_prior()  # before the images are judged, not after
        super().process(data_batch, data_samples)
        if self.label_maps is not None:
            for sample in data_samples:
                self._write_label_map(self.label_maps, sample)
        if self.format_only or self._has_warned:
            return
        for sample, areas in zip(data_samples, self.results[-len(data_samples) :], strict=True):
            label = sample['gt_sem_seg']['data']
            strays = int((label != self.ignore_index).sum() - areas[3].sum())
            if strays:
                self._has_warned = True
                classes = len(self.dataset_meta['classes'])
                print_log(
                    f'{strays} pixels of {sample.get("img_path", "an image")} have a label that is '
                    f'neither a class (0 to {classes - 1}) nor ignore_index={self.ignore_index}. '
                    'They and others like them are left out, whereas IoUMetric counts what is '
                    "predicted there as wrong. Check the data set's reduce_zero_label and classes",
                    'current',
                    logging.WARNING,
                )
                return

    def _write_label_map(self, label_maps: LabelMapFolder, sample: dict) -> None:
        # As IoUMetric does: the data set's own numbers, from 1 where its label 0 is left out.
        first = int(sample.get('reduce_zero_label') or 0)
        decided = sample['pred_sem_seg']['data'].cpu().numpy() + first
        decided = decided.reshape(decided.shape[-2:])  # of (1, H, W)
        label_maps.write(sample['img_path'], decided, len(self.dataset_meta['classes']) + first)

    @staticmethod
    def intersect_and_union(
        pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, ...]:
        """The four areas of an image, int32 (C,) each."""
        known = labels_or_spare(label.long(), num_classes, ignore_index)
        place = known < num_classes
        # A prediction that is no class misses its label.
        decision = labels_or_spare(pred_label[place].long(), num_classes, -1)
        areas = decision_areas(decision, known[place], num_classes + 1)[:, :num_classes]
        return tuple(areas.cpu().int())  # exact

    @staticmethod
    def total_area_to_metrics(
        total_area_intersect: Tensor,
        total_area_union: Tensor,
        total_area_pred_label: Tensor,
        total_area_label: Tensor,
        metrics: Sequence[str] = ('mIoU',),
        nan_to_num: int | None = None,
        beta: int = 1,
    ) -> dict[str, np.ndarray]:
        """IoUMetric's, but ``nan`` for all scores of a class without a label."""
        areas = (total_area_intersect, total_area_union, total_area_pred_label, total_area_label)
        scores = IoUMetric.total_area_to_metrics(*areas, metrics, None, beta)
        absent = total_area_label.numpy() == 0
        for name, values in scores.items():
            if name != 'aAcc':
                values[absent] = np.nan
        if nan_to_num is not None:
            scores = {name: np.nan_to_num(v, nan=nan_to_num) for name, v in scores.items()}
        return scores

    def compute_metrics(self, results: list) -> dict[str, float]:
        """IoUMetric's results and those named above."""
        if self.format_only:
            if self.label_maps is not None:
                print_log(f'the label maps are in {self.label_maps.folder}', 'current')
            return {}
        of_images = [torch.stack(column) for column in zip(*results, strict=True)]
        images = (of_images[3] > 0).sum(0).tolist()
        areas = torch.stack([column.sum(0) for column in of_images]).double()
        with warnings.catch_warnings():  # of a mean of nothing, which the log tells in words
            warnings.simplefilter('ignore', RuntimeWarning)
            metrics = super().compute_metrics([tuple(areas.float())])  # its own precision
            stock = self._stock_means(areas.float())
        classes = self.dataset_meta['classes']
        rows = class_rows(areas, classes, self._prior or self._find_prior(), images)
        means = overall_means(rows) | group_means(rows)
        means |= group_means(rows, 'image_group', '_by_images')
        # Of the same numbers; but the user may want another one in the place of nan.
        own = means if self.nan_to_num is None else {k: means[k] for k in means if k not in metrics}
        metrics.update(own)
        metrics.update(
            {f'IoU/{key}': round(row['IoU'], 2) for key, row in _by_key(rows) if row['pixels'] > 0}
        )
        logger = MMLogger.get_current_instance()
        print_log(f'\n{_group_table(rows)}', logger)
        _log_what_is_left_out(rows, metrics, stock, logger)
        if self.per_class_file is not None:
            path = in_run_folder(self.per_class_file)
            write_rows(rows, path)
            print_log(f'a row per class: {path}', logger)
        return metrics

    def _find_prior(self) -> ClassPrior | None:
        prior = read_metric_prior(self.class_prior, self.dataset_meta)
        model = announced_prior(len(self.dataset_meta['classes']))
        if prior is not None and model is not None:
            check_groups(prior, model)
        return prior or model

    def _stock_means(self, areas: Tensor) -> dict[str, float]:
        scores = IoUMetric.total_area_to_metrics(*areas, self.metrics, self.nan_to_num, self.beta)
        return {
            f'm{name}': float(np.round(100 * np.nanmean(values), 2))
            for name, values in scores.items()
            if name != 'aAcc'
        }


def _log_what_is_left_out(
    rows: list[dict[str, Any]],
    metrics: dict[str, float],
    stock: dict[str, float],
    logger: MMLogger,
) -> None:
    text = what_is_left_out(rows)
    if not text:
        return
    labelled = any(row['pixels'] > 0 for row in rows)
    predicted = any(row['predicted'] > 0 and row['pixels'] == 0 for row in rows)
    differ = [
        f'{name} {value:.2f} instead of {metrics[name]:.2f}'
        for name, value in stock.items()
        if labelled and predicted and abs(value - metrics[name]) > 0.005  # two decimals
    ]
    if differ:
        text += (
            f'. IoUMetric counts those of them that are predicted as 0, and gives '
            f'{", ".join(differ)}'
        )
    print_log(text, logger, logging.INFO if labelled else logging.WARNING)


def _by_key(rows: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    # Loggers refuse other characters (MLflow), or read a slash as a folder (TensorBoard).
    keys = distinct_names(re.sub(r'[^\w.\- ]', '_', shortened(row['class'], 80)) for row in rows)
    return list(zip(keys, rows, strict=True))


def _group_table(rows: list[dict[str, Any]]) -> str:
    table = PrettyTable(['group', 'by', 'mIoU', 'mAcc', 'mPrecision', 'classes'], align='l')
    for key, by in (('group', 'pixels'), ('image_group', 'images')):
        means = group_means(rows, key)
        for group in GROUPS:
            names = [shortened(row['class']) for row in rows if row[key] == group]
            shown = ', '.join(names[:8]) + (f', ... ({len(names)})' if len(names) > 8 else '')
            scores = [means.get(f'{m}_{group}', '-') for m in ('mIoU', 'mAcc', 'mPrecision')]
            if names:
                table.add_row([group, by, *scores, shown])
    return table.get_string()

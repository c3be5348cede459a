"""What classes are taken for, and how much of it happens along boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmseg_ltmi.core.class_names import distinct_names
from mmseg_ltmi.core.posterior import labels_or_spare


class ConfusionMetric(BaseMetric):
    """Confusion matrices of the pixels away from boundaries of the labels, and of those near them.

    Args:
        num_classes: C.
        width: pixels on each side that count as near, in the chessboard distance. A boundary is
            where the label changes, to no label as well.
        ignore_index: label that takes no part.

    Attributes:
        confusion: int64 (2, C, C), label by prediction: away from boundaries, and near them. It is
            there after ``evaluate``, on rank 0, and holds the images of all ranks.

    Raises:
        ValueError: ``width`` is negative; in the evaluation, a prediction is no class.
    """

    confusion: Tensor

    def __init__(self, num_classes: int, width: int = 3, ignore_index: int = 255) -> None:
        super().__init__(collect_device='cpu', prefix='confusion')
        if width < 0:
            raise ValueError(f'width={width} pixels must not be negative')
        self.num_classes = num_classes
        self.width = width
        self.ignore_index = ignore_index

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Store the pairs of label and prediction of each image, and how often each occurs."""
        classes = self.num_classes
        for sample in data_samples:
            decided = sample['pred_sem_seg']['data'].squeeze(0).cpu()
            if decided.numel() and int(decided.max()) >= classes:
                raise ValueError(
                    f'the model predicts class {int(decided.max())}, the data set has {classes} '
                    'classes (0 to C-1): give the config and the checkpoint of its classes'
                )
            label = labels_or_spare(
                sample['gt_sem_seg']['data'].squeeze(0).cpu().long(), classes, self.ignore_index
            )
            near = near_boundary(label, self.width)
            pairs = (near * (classes + 1) + label) * classes + decided
            # An image holds few of the pairs that there may be.
            self.results.append(pairs.unique(return_counts=True))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Nothing to log: the attribute is the result. ``results`` are those of all ranks."""
        classes = self.num_classes
        total = torch.zeros(2 * (classes + 1) * classes, dtype=torch.int64)
        for pairs, counts in results:
            total[pairs] += counts
        self.confusion = total.view(2, classes + 1, classes)[:, :-1]
        return {}


def near_boundary(label: Tensor, width: int) -> Tensor:
    """int64 (H, W): 1 where another label is at most ``width`` pixels away, of labels (H, W)."""
    value = label[None].float()
    highest, lowest = (
        sign * F.max_pool2d(sign * value, 2 * width + 1, 1, width) for sign in (1, -1)
    )
    return (highest != lowest)[0].long()


def explain(confusion: Tensor, names: Sequence[str], most: int = 2) -> list[dict[str, Any]]:
    """What became of each class's pixels, from a matrix (2, C, C) of ConfusionMetric.

    Returns:
        C dicts: ``class``; ``IoU``; ``predicted``, its predicted pixels over its labelled ones;
        ``missed``, share of its pixels that are predicted as others, and ``missed_to``, the
        ``most`` that take most of them; ``false``, share of its predictions that are others'
        pixels, and ``false_from``; ``near``, share of both kinds of error near boundaries,
        ``IoU_away``, the IoU of the pixels away from them. Percent; ``nan`` where there is nothing
        to divide by, and for both IoU of a class without a label there, as in :func:`class_rows`.
    """
    names = distinct_names(names)
    total = confusion.sum(0).double()
    errors = confusion.double() * (1 - torch.eye(total.shape[0], dtype=torch.float64))
    labelled, predicted = total.sum(1), total.sum(0)
    away = confusion[0].double()
    rows = []
    for c, name in enumerate(names):
        missed, false = errors.sum(0)[c], errors.sum(0)[:, c]
        of_both = errors[:, c].sum(1) + errors[:, :, c].sum(1)
        hit = total[c, c]
        hit_away = away[c, c]
        rows.append(
            {
                'class': name,
                'IoU': _iou(hit, labelled[c], predicted[c]),
                'predicted': _percent(predicted[c], labelled[c]) if labelled[c] else float('nan'),
                'missed': _percent(missed.sum(), labelled[c]),
                'missed_to': _largest(missed / labelled[c], names, most),
                'false': _percent(false.sum(), predicted[c]),
                'false_from': _largest(false / predicted[c], names, most),
                'near': _percent(of_both[1], of_both.sum()),
                'IoU_away': _iou(hit_away, away[c].sum(), away[:, c].sum()),
            }
        )
    return rows


def _percent(part: Tensor, whole: Tensor) -> float:
    return float(100 * part / whole)


def _iou(hit: Tensor, labelled: Tensor, predicted: Tensor) -> float:
    return _percent(hit, labelled + predicted - hit) if labelled else float('nan')


def _largest(shares: Tensor, names: Sequence[str], most: int) -> dict[str, float]:
    order = shares.nan_to_num().sort(descending=True)
    return {
        names[c]: 100 * share
        for share, c in zip(order.values[:most].tolist(), order.indices.tolist(), strict=False)
        if share > 0
    }

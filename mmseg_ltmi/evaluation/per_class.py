"""A row per class, and what is made of the rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmseg_ltmi.priors import ClassPrior, build_class_prior

GROUPS = ('head', 'medium', 'tail')


def class_rows(
    areas: torch.Tensor, classes: Sequence[str], class_prior: Any
) -> list[dict[str, Any]]:
    """Class, group, prior, pixels, IoU and Acc (in percent) of each class.

    Args:
        areas: (4, C) intersection, union, prediction and label pixels, summed over the images.
        classes: C names.
        class_prior: what ranks the classes; None ranks them by the evaluated labels.

    Returns:
        rows; IoU and Acc of a class that the labels do not hold are ``nan``.
    """
    intersect, union, _, label = areas.double().numpy()
    if class_prior is None:
        prior = ClassPrior(label.astype(np.int64), source='the evaluated labels')
    else:
        prior = build_class_prior(class_prior, len(classes), "the metric's class_prior")
    if prior.classes is not None and prior.classes != tuple(classes):
        raise ValueError(
            f"the metric's class_prior ({prior.source}) has other classes, or the same in another "
            f'order, than the data set: {prior.classes} against {tuple(classes)}'
        )
    group = {c: name for name, members in prior.groups()._asdict().items() for c in members}
    with np.errstate(invalid='ignore', divide='ignore'):
        iou = np.where(label > 0, 100 * intersect / union, np.nan)
        acc = 100 * intersect / label
    probs = prior.probs(0)
    return [
        {
            'class': name,
            'group': group[c],
            'prior': float(probs[c]),
            'pixels': int(label[c]),
            'IoU': float(iou[c]),
            'Acc': float(acc[c]),
        }
        for c, name in enumerate(classes)
    ]


def group_means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """``mIoU_head``, ``mAcc_head``, ... in percent, over the classes that the labels hold."""
    means = {}
    for group in GROUPS:
        members = [row for row in rows if row['group'] == group and row['pixels'] > 0]
        for key in ('IoU', 'Acc') if members else ():
            means[f'm{key}_{group}'] = round(float(np.mean([row[key] for row in members])), 2)
    return means


def write_rows(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Write the rows as ``.json`` (``nan`` becomes null) or ``.csv``."""
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


def check_suffix(per_class_file: str | None) -> None:
    """Raise ValueError for a file that is neither ``.json`` nor ``.csv``."""
    if per_class_file is not None and Path(per_class_file).suffix not in ('.json', '.csv'):
        raise ValueError(f'per_class_file must end in .json or .csv, but is {per_class_file}')

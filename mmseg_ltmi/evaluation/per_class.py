"""A row per class, and what is made of the rows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmseg_ltmi.core.class_names import distinct_names
from mmseg_ltmi.core.json_file import write_json
from mmseg_ltmi.core.posterior import class_scores
from mmseg_ltmi.core.priors import ClassGroups, ClassPrior, build_class_prior

from .metric_prior import check_classes

GROUPS = ClassGroups._fields
SCORES = ('IoU', 'Acc', 'Precision')
COLUMNS = ('mIoU', 'mIoU_head', 'mIoU_medium', 'mIoU_tail', 'mAcc')
"""What a run is judged by."""


def class_rows(
    areas: torch.Tensor,
    classes: Sequence[Any],
    class_prior: Any = None,
    image_counts: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """What happened to each class.

    Args:
        areas: (4, C) intersection, union, prediction and label pixels, summed over the images.
        classes: C names; rows have them as :func:`distinct_names` makes them.
        class_prior: what ranks the classes; None ranks them by the evaluated labels.
        image_counts: (C,) evaluated images that hold each class, for ``class_prior=None``.

    Returns:
        C dicts: ``class``, ``group`` by pixel and ``image_group`` by image frequency (None if no
        image counts are known), ``prior`` (share of the pixels), ``pixels``, ``predicted`` and
        ``intersection`` (pixels), ``IoU``, ``Acc`` and ``Precision`` in percent. ``nan`` stands for
        the scores of a class that the labels do not hold, and for the precision of one that is
        never predicted.

    Raises:
        ValueError: the prior is not C long, or names other classes.
    """
    intersect, _, predicted, label = areas.double().numpy()
    if class_prior is None:
        # Where nothing is labelled all classes rank alike, and all scores are nan.
        counts = label.astype(np.int64) if label.any() else np.ones(len(label), np.int64)
        prior = ClassPrior(counts, image_counts=image_counts)
    else:
        prior = build_class_prior(class_prior, len(classes), "the metric's class_prior")
    check_classes(prior, [str(name) for name in classes])
    group = prior.groups().by_class()
    has_images = prior.image_counts is not None
    image_group = prior.groups(by='images').by_class() if has_images else {}
    scores = class_scores(areas).numpy()
    probs = prior.probs(0)
    return [
        {
            'class': name,
            'group': group[c],
            'image_group': image_group.get(c),
            'prior': float(probs[c]),
            'pixels': int(label[c]),
            'predicted': int(predicted[c]),
            'intersection': int(intersect[c]),
            **{key: float(score[c]) for key, score in zip(SCORES, scores, strict=True)},
        }
        for c, name in enumerate(distinct_names(classes))
    ]


def overall_means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """``mIoU``, ``mAcc``, ``mPrecision`` and ``fwIoU`` (weighted by label pixels), in percent."""
    means = {f'm{key}': _mean([row[key] for row in rows]) for key in SCORES}
    held = [row for row in rows if row['pixels'] > 0]
    pixels = [row['pixels'] for row in held]
    weighted = np.average([row['IoU'] for row in held], weights=pixels) if held else np.nan
    means['fwIoU'] = float(np.round(weighted, 2))
    return means


def group_means(
    rows: Sequence[dict[str, Any]], by: str = 'group', suffix: str = ''
) -> dict[str, float]:
    """``mIoU_head``, ``mAcc_head``, ``mPrecision_head``, ... in percent.

    Args:
        rows: of :func:`class_rows`.
        by: 'group' or 'image_group'.
        suffix: put behind each name.

    Returns:
        means over the classes whose score is known; without one the name is left out.
    """
    means = {}
    for group in GROUPS:
        for key in SCORES:
            value = _mean([row[key] for row in rows if row[by] == group])
            if not np.isnan(value):
                means[f'm{key}_{group}{suffix}'] = value
    return means


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """mIoU, its head, medium and tail parts, and mAcc in percent; ``nan`` where unknown."""
    means = overall_means(rows) | group_means(rows)
    return {name: means.get(name, float('nan')) for name in COLUMNS}


def what_is_left_out(rows: Sequence[dict[str, Any]], with_predicted: bool = True) -> str:
    """A sentence on the classes without a label, which no mean counts; '' if there is none.

    ``with_predicted`` says how many pixels are predicted as each, if any.
    """
    absent = [row for row in rows if row['pixels'] == 0]
    if not absent:
        return ''
    if len(absent) == len(rows):
        return 'no evaluated pixel is labelled with a class: every score is unknown, nan'
    names = [
        f'{row["class"]} ({row["predicted"]} pixels predicted)'
        if with_predicted and row.get('predicted')
        else row['class']
        for row in absent
    ]
    return f'without a pixel in the evaluated labels, and left out: {", ".join(names)}'


def number(value: float | None) -> str:
    """Two decimals, or '-' for a score that is unknown."""
    return '-' if value is None or np.isnan(value) else f'{value:.2f}'


def write_rows(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Write the rows as ``.json`` (``nan`` becomes null) or ``.csv`` (``nan`` becomes empty)."""
    path = Path(path)
    clean = [{k: None if v != v else v for k, v in row.items()} for row in rows]
    if path.suffix == '.json':
        write_json(path, clean)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(clean[0]))
        writer.writeheader()
        writer.writerows(clean)


def check_suffix(per_class_file: str | None) -> None:
    """Raise ValueError for a file that is neither ``.json`` nor ``.csv``."""
    if per_class_file is not None and Path(per_class_file).suffix not in ('.json', '.csv'):
        raise ValueError(f'per_class_file must end in .json or .csv, but is {per_class_file}')


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if v is not None and not np.isnan(v)]
    return float(np.mean(known).round(2)) if known else float('nan')

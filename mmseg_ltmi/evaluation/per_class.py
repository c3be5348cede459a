"""What is made of a row per class. Without torch: runs are compared without waiting for it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmseg_ltmi.core.json_file import write_json

GROUPS = ('head', 'medium', 'tail')
SCORES = ('IoU', 'Acc', 'Precision')
COLUMNS = ('mIoU', 'mIoU_head', 'mIoU_medium', 'mIoU_tail', 'mAcc')
"""What a run is judged by."""


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

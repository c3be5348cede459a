"""Checks of what a class prior is made of, with errors that name the entry that is wrong."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from torch import Tensor


def check_names(value: Any) -> tuple[str, ...]:
    """Class names as a tuple; ValueError for anything but a list of texts."""
    # A lone text is a sequence too, of letters.
    if isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise ValueError(f'classes must be a list of names, but is {value!r:.80}')
    return tuple(value)


def check_whole(value: Any, name: str) -> int:
    """A whole number from 0 on; ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f'{name} must be a whole number, 0 or more, but is {value!r:.80}')
    return int(value)


def check_labels(value: Any) -> dict[str, Any]:
    """How labels are read, less what is not known; ValueError for anything else.

    ``label_map`` comes without the labels that it keeps, so that {} maps none.
    """
    try:
        found = dict(value)
        zero, index = found.pop('reduce_zero_label', None), found.pop('ignore_index', None)
        known: dict[str, Any] = {} if zero is None else {'reduce_zero_label': bool(zero)}
        if 'label_map' in found:
            pairs = dict(found.pop('label_map') or {}).items()  # in JSON the keys are texts
            mapped = {int(old): operator.index(new) for old, new in pairs}
            known['label_map'] = {old: new for old, new in mapped.items() if old != new}
        if index is not None:
            known['ignore_index'] = operator.index(index)
        if found or zero not in (None, True, False):
            raise ValueError('unknown entries')
    except (TypeError, ValueError) as error:
        raise ValueError(
            'labels must be a dict with some of reduce_zero_label (true or false), label_map '
            f'(labels to labels) and ignore_index (a whole number), but is {value!r:.200}'
        ) from error
    return known


def check_counts(value: Any, name: str) -> np.ndarray:
    """Counts or probabilities, int64 or float64 (C,), read-only; ValueError for anything else."""
    try:
        counts = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        if counts.dtype.kind not in 'iufO':  # numpy would read '3' as 3, and True as 1
            raise TypeError('no numbers')
        whole = counts.dtype.kind in 'iu' and not (counts > np.iinfo(np.int64).max).any()
        counts = counts.astype(np.int64 if whole else np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f'{name} must be numbers, one per class, but is {value!r:.80}') from error
    if counts.ndim != 1 or counts.size == 0:
        raise ValueError(
            f'{name} must be a list with one number per class, but its shape is {counts.shape}'
        )
    wrong = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
    if wrong.size:
        raise ValueError(
            f'{name}[{wrong[0]}] is {counts[wrong[0]]}: counts must be finite and not negative'
        )
    counts.flags.writeable = False
    return counts

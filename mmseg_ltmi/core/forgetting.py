"""What a state dict holds of single classes, or of an operating point, and how to drop it."""

from __future__ import annotations

import re

from torch import Tensor

OF_COUNTS = re.compile(r'(^|\.)online_counts$')
OF_SINGLE_CLASSES = re.compile(r'\.queue\.|(^|\.)online_counts$|\.log_prior$|(^|\.)teacher\.steps$')
"""Names of what is of single classes and is not learned.

Keys, counts, a prior, and that an averaged teacher has begun.
"""

OF_A_POINT = re.compile(r'(^|\.)score_reader\.(memory\.|(point_shift|iou|union)$)')
"""Names of what a ScoreReader holds of an operating point."""


def forget_counts(state_dict: dict[str, Tensor]) -> list[str]:
    """Drop what online priors have counted, of another train set perhaps; the names of it."""
    return _drop(state_dict, OF_COUNTS)


def forget_classes(state_dict: dict[str, Tensor]) -> list[str]:
    """Drop what a module must not take from a model of other classes; the names of it."""
    return _drop(state_dict, OF_SINGLE_CLASSES)


def _drop(state_dict: dict[str, Tensor], names: re.Pattern) -> list[str]:
    dropped = [name for name in state_dict if names.search(name)]
    for name in dropped:
        del state_dict[name]
    return dropped


def forget_operating_point(state_dict: dict[str, Tensor]) -> bool:
    """Drop an operating point and its memory; whether there was one."""
    found = False
    for name in [name for name in state_dict if OF_A_POINT.search(name)]:
        value = state_dict.pop(name)
        # Without a point, the shift is zero and the others are NaN.
        found |= '.memory.' in name or bool(value.nan_to_num(nan=0.0).any())
    return found

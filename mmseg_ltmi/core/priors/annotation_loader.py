"""Reading label maps with the LoadAnnotations of a data set's own pipeline."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from .label_histogram import ImageCount, count_histogram, label_histogram, map_histogram


def find_label_loader(dataset: Any) -> Any:
    """The LoadAnnotations of a data set's pipeline, or None."""
    # By name, subclasses included: the core does not import mmsegmentation.
    for transform in dataset.pipeline.transforms:
        if any('LoadAnnotations' in base.__name__ for base in type(transform).__mro__):
            return transform
    return None


def label_loader(dataset: Any) -> Any:
    """The LoadAnnotations of a data set's pipeline.

    Raises:
        ValueError: it has none.
    """
    load = find_label_loader(dataset)
    if load is None:
        raise ValueError(
            f'the pipeline of {type(dataset).__name__} has no LoadAnnotations, so its labels '
            'cannot be read as in training: name a split whose pipeline loads them, or run the '
            'whole pipeline with count_as_trained'
        )
    return load


def label_path(info: dict) -> str:
    """The label file of a data info, or what else names it."""
    return str(info.get('seg_map_path') or f'label of {info.get("img_path", "?")}')


def count_image(info: dict, load: Any, num_classes: int, ignore_index: int) -> ImageCount:
    """Count the label map that the LoadAnnotations ``load`` reads for a data info."""
    read = _read_mapped if _maps_values(load, info) else _read
    return count_histogram(label_path(info), lambda: read(load, info), num_classes, ignore_index)


def _read(load: Any, info: dict) -> np.ndarray:
    return label_histogram(load(info)['gt_seg_map'])


def _maps_values(load: Any, info: dict) -> bool:
    # mmsegmentation's own replaces values, each pixel by itself; what a subclass does is unknown.
    kind = type(load)
    return (
        (kind.__module__, kind.__name__) == ('mmseg.datasets.transforms.loading', 'LoadAnnotations')
        and load.reduce_zero_label in (None, info['reduce_zero_label'])
        and all(0 <= v < 256 for pair in (info.get('label_map') or {}).items() for v in pair)
    )


def _read_mapped(load: Any, info: dict) -> np.ndarray:
    plain = copy(load)
    plain.reduce_zero_label = False
    histogram = _read(plain, {**info, 'reduce_zero_label': False, 'label_map': None})
    return map_histogram(histogram, info['reduce_zero_label'], info.get('label_map'))

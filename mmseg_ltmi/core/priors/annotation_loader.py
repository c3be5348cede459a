"""Reading label maps with the LoadAnnotations of a data set's own pipeline."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from .label_histogram import (
    MAX_LABEL,
    ImageCount,
    LabelMapError,
    count_histogram,
    label_histogram,
    map_histogram,
)

NO_CLASS = (-1, MAX_LABEL)
"""Labels of no class, which become 255, that of no class in 8 bits."""


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

    def read() -> np.ndarray:
        if is_mmseg_own(load) and (reason := lost_label(info.get('seg_map_path'))):
            raise LabelMapError(reason)
        return _read_mapped(load, info) if _maps_values(load, info) else _read(load, info)

    return count_histogram(label_path(info), read, num_classes, ignore_index)


def _read(load: Any, info: dict) -> np.ndarray:
    return label_histogram(load(info)['gt_seg_map'])


def _maps_values(load: Any, info: dict) -> bool:
    # mmsegmentation's own replaces values, each pixel by itself; what a subclass does is unknown.
    return (
        is_mmseg_own(load)
        and load.reduce_zero_label in (None, info['reduce_zero_label'])
        and all(0 <= v < 256 for pair in (info.get('label_map') or {}).items() for v in pair)
    )


def is_mmseg_own(load: Any) -> bool:
    """Whether it is mmsegmentation's LoadAnnotations, which keeps 8 bits, and no subclass."""
    kind = type(load)
    own = ('mmseg.datasets.transforms.loading', 'LoadAnnotations')
    return (kind.__module__, kind.__name__) == own


def lost_label(path: Any) -> str:
    """Which label of a file mmsegmentation's LoadAnnotations makes another; '' if it keeps all."""
    # Pillow is what it reads labels with; a file that Pillow cannot open is said later.
    try:
        from PIL import Image

        with Image.open(path) as image:
            if not image.mode.startswith(('I', 'F')):
                return ''
            labels = np.asarray(image)
    except Exception:  # also of a file that is not local
        return ''
    with np.errstate(invalid='ignore'):
        kept = labels.astype(np.uint8)
    lost = (labels != kept) & ~(np.isin(labels, NO_CLASS) & (kept == 255))
    if not lost.any():
        return ''
    return (
        f"it has the label {labels[lost][0]}, of which mmsegmentation's LoadAnnotations keeps 8 "
        f'bits, {kept[lost][0]}: number the labels from 0 to 255, or derive a LoadAnnotations that '
        'keeps more'
    )


def mmseg_label_files(parts: list[Any]) -> list[Any]:
    """The files that mmsegmentation's own LoadAnnotations reads, each once; of data set parts."""
    files = {
        part.dataset.get_data_info(image).get('seg_map_path'): None
        for part in parts
        if is_mmseg_own(find_label_loader(part.dataset))
        for image in part.indices
    }
    return list(files)


def _read_mapped(load: Any, info: dict) -> np.ndarray:
    plain = copy(load)
    plain.reduce_zero_label = False
    histogram = _read(plain, {**info, 'reduce_zero_label': False, 'label_map': None})
    return map_histogram(histogram, info['reduce_zero_label'], info.get('label_map'))

"""The label histogram of one image, and what of it are classes."""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple

import cv2
import numpy as np

MAX_LABEL = 2**16 - 1
# What reduce_zero_label does to each label; 255 stays.
REDUCE_ZERO = {0: 255, **{label: label - 1 for label in range(1, 255)}}


class ImageCount(NamedTuple):
    """Pixels of one label map, or why it has none.

    Attributes:
        path: the label file.
        pixels: int64 (C,).
        num_ignored: pixels of ignore_index.
        error: empty if the label map could be counted.
    """

    path: str
    pixels: np.ndarray
    num_ignored: int
    error: str = ''


def label_path(info: dict) -> str:
    """The label file of a data info, or what else names it."""
    return str(info.get('seg_map_path') or f'label of {info.get("img_path", "?")}')


def count_image(info: dict, load: Any, num_classes: int, ignore_index: int) -> ImageCount:
    """Count the label map that the LoadAnnotations ``load`` reads for a data info."""
    path = label_path(info)
    try:
        histogram = (_read_mapped if _maps_values(load, info) else _read)(load, info)
    except Exception as error:  # a decoder may raise anything, and the rest is to be finished
        reason = f'cannot be read ({type(error).__name__}: {error})'
        return ImageCount(path, np.zeros(num_classes, np.int64), 0, reason)
    return split_histogram(path, histogram, num_classes, ignore_index)


def label_histogram(labels: np.ndarray) -> np.ndarray:
    """Pixels of each label, int64 (at least 256,), of an (H, W) label map.

    Raises:
        ValueError: another number of dimensions, a negative label, or one that 16 bits cannot hold.
        TypeError: labels that are not whole numbers.
    """
    if labels.ndim != 2:
        raise ValueError(f'its shape is {labels.shape}, but a label map has one channel')
    # Twice the speed of bincount, which converts to int64 first; its float32 is exact to 2**24.
    if labels.dtype == np.uint8 and 0 < labels.size <= 2**24:
        return cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    if labels.size and labels.max() > MAX_LABEL:  # bincount would want memory up to that label
        raise ValueError(
            f'its label {labels.max()} is more than {MAX_LABEL}: check what the file holds and how '
            'it is loaded'
        )
    return np.bincount(labels.ravel(), minlength=256).astype(np.int64)


def split_histogram(
    path: str, histogram: np.ndarray, num_classes: int, ignore_index: int
) -> ImageCount:
    """Classes and ignored pixels of a histogram; an error if it holds other labels."""
    pixels = np.zeros(max(num_classes, len(histogram)), np.int64)
    pixels[: len(histogram)] = histogram
    num_ignored = 0
    if 0 <= ignore_index < len(pixels):
        num_ignored = int(pixels[ignore_index])
        pixels[ignore_index] = 0
    bad = num_classes + np.flatnonzero(pixels[num_classes:])
    if bad.size:
        listed = ', '.join(f'{v} ({pixels[v]} pixels)' for v in bad)
        reason = (
            f'labels {listed} are neither a class (0..{num_classes - 1}) nor ignore_index='
            f'{ignore_index}: check reduce_zero_label and the classes of the data set'
        )
        return ImageCount(path, np.zeros(num_classes, np.int64), 0, reason)
    return ImageCount(path, pixels[:num_classes].copy(), num_ignored)


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
    # mmsegmentation passes over the image four times, and once per class of a label map; a
    # histogram has 256 values to replace.
    plain = copy(load)
    plain.reduce_zero_label = False
    histogram = _read(plain, {**info, 'reduce_zero_label': False, 'label_map': None})
    if info['reduce_zero_label']:
        histogram = _map_labels(histogram, REDUCE_ZERO)
    return _map_labels(histogram, info.get('label_map') or {})


def _map_labels(histogram: np.ndarray, label_map: dict[int, int]) -> np.ndarray:
    old, new = (np.array(list(v), np.int64) for v in (label_map, label_map.values()))
    mapped = histogram.copy()
    mapped[old] = 0
    np.add.at(mapped, new, histogram[old])
    return mapped

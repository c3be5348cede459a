"""The label histogram of one image, and what of it are classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np


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
        label_map = info.get('label_map') if _maps_values(load) else None
        if label_map and all(0 <= v < 256 for pair in label_map.items() for v in pair):
            # mmsegmentation passes over the image once per class; here the histogram is mapped.
            histogram = _map_labels(_read(load, {**info, 'label_map': None}), label_map)
        else:
            histogram = _read(load, info)
    except Exception as error:  # a decoder may raise anything, and the rest is to be finished
        reason = f'cannot be read ({type(error).__name__}: {error})'
        return ImageCount(path, np.zeros(num_classes, np.int64), 0, reason)
    return split_histogram(path, histogram, num_classes, ignore_index)


def label_histogram(labels: np.ndarray) -> np.ndarray:
    """Pixels of each label, int64 (at least 256,), of an (H, W) label map.

    Raises:
        ValueError: another number of dimensions, or a negative label.
        TypeError: labels that are not whole numbers.
    """
    if labels.ndim != 2:
        raise ValueError(f'its shape is {labels.shape}, but a label map has one channel')
    # Twice the speed of bincount, which converts to int64 first; its float32 is exact to 2**24.
    if labels.dtype == np.uint8 and 0 < labels.size <= 2**24:
        return cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel().astype(np.int64)
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


def _maps_values(load: Any) -> bool:
    # mmsegmentation's own replaces values, pixel by pixel; what a subclass does is unknown.
    kind = type(load)
    return (kind.__module__, kind.__name__) == (
        'mmseg.datasets.transforms.loading',
        'LoadAnnotations',
    )


def _map_labels(histogram: np.ndarray, label_map: dict[int, int]) -> np.ndarray:
    mapped = histogram.copy()
    mapped[list(label_map)] = 0
    for old, new in label_map.items():
        mapped[new] += histogram[old]
    return mapped

"""The label histogram of one image, and which of its labels are classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MAX_LABEL = 2**16 - 1
LABEL_MAPS = (
    'a label map has one channel (H, W) with class indices. Convert colour masks once: mmseg-ltmi '
    'convert-labels MASKS OUT --palette FILE, or labels[(mask == colour).all(-1)] = index for each '
    'class, saved as a PNG of one channel'
)
# What reduce_zero_label does to each label; 255 stays.
REDUCE_ZERO = {0: 255, **{label: label - 1 for label in range(1, 255)}}


class LabelMapError(ValueError):
    """An array that is no label map."""


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


def count_histogram(
    path: str, read: Callable[[], np.ndarray], num_classes: int, ignore_index: int
) -> ImageCount:
    """Count the label histogram that ``read()`` gives; what it raises becomes the error."""
    try:
        return split_histogram(path, read(), num_classes, ignore_index)
    except LabelMapError as error:
        reason = str(error)
    except Exception as error:  # a decoder may raise anything, and the rest is to be finished
        reason = f'cannot be read ({type(error).__name__}: {error})'
    return ImageCount(path, np.zeros(num_classes, np.int64), 0, reason)


def label_histogram(labels: np.ndarray) -> np.ndarray:
    """Pixels of each label, int64 (at least 256,), of an (H, W) label map.

    Raises:
        LabelMapError: another number of dimensions, labels that are not whole numbers, a negative
            label, or one that 16 bits cannot hold.
    """
    if labels.ndim != 2:
        raise LabelMapError(f'its shape is {labels.shape}, but {LABEL_MAPS}')
    if labels.dtype == np.uint8 and 0 < labels.size <= 2**24:
        try:  # twice the speed of bincount, which converts to int64 first
            import cv2
        except ImportError:  # only here: the rest of the core needs no image library
            pass
        else:  # its float32 is exact to 2**24
            return cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    if labels.dtype.kind not in 'bui':
        raise LabelMapError(f'its labels are {labels.dtype}: save whole numbers, such as uint8')
    for label in (labels.min(), labels.max()) if labels.size else ():
        # bincount would want memory up to the largest label
        if not 0 <= label <= MAX_LABEL:
            raise LabelMapError(
                f'its label {label} is less than 0 or more than {MAX_LABEL}: check what the file '
                'holds and how it is loaded'
            )
    return np.bincount(labels.ravel().astype(np.int64), minlength=256)


def map_histogram(
    histogram: np.ndarray, reduce_zero_label: bool, label_map: dict[int, int] | None
) -> np.ndarray:
    """The histogram after reduce_zero_label and then label_map, of labels and to labels 0..255.

    mmsegmentation passes over the image four times, and once per class of a label map; a
    histogram has only 256 values to replace.
    """
    for mapping in (REDUCE_ZERO if reduce_zero_label else {}, label_map or {}):
        old, new = (np.array(list(v), np.int64) for v in (mapping, mapping.values()))
        mapped = histogram.copy()
        mapped[old] = 0
        np.add.at(mapped, new, histogram[old])
        histogram = mapped
    return histogram


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
        listed = ', '.join(f'{v} ({pixels[v]} pixels)' for v in bad[:10])
        more = f' and {bad.size - 10} more' if bad.size > 10 else ''
        reason = (
            f'labels {listed}{more} are neither a class (0..{num_classes - 1}) nor ignore_index='
            f'{ignore_index}: check reduce_zero_label and the classes of the data set'
        )
        return ImageCount(path, np.zeros(num_classes, np.int64), 0, reason)
    return ImageCount(path, pixels[:num_classes].copy(), num_ignored)

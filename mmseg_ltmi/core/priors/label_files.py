"""Counting label files without a data set: PNG and other images by Pillow, and .npy."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..progress import progress_bar
from .counting import LabelCounts, count_in_batches
from .fingerprint import digest, file_key
from .label_histogram import (
    ImageCount,
    LabelMapError,
    count_histogram,
    label_histogram,
    map_histogram,
)
from .label_space import check_ignored_is_free


def count_label_files(
    paths: Iterable[str | Path],
    num_classes: int,
    classes: Sequence[str] | None,
    ignore_index: int,
    reduce_zero_label: bool,
    label_map: dict[int, int] | None,
    num_workers: int,
    progress: bool,
) -> LabelCounts:
    """The sums of :meth:`ClassPrior.from_label_files`, which has the same arguments and errors."""
    if isinstance(paths, (str, os.PathLike)):
        raise ValueError(
            f'paths is one path, {str(paths)!r:.200}: give a list of label files, such as '
            "sorted(Path('labels').glob('*.png'))"
        )
    check_ignored_is_free(ignore_index, num_classes, 'the labels')
    files = [os.fspath(path) for path in paths]
    if not files:
        raise ValueError('paths is empty: check the folder and pattern that the files come from')
    if isinstance(classes, str) or (classes is not None and len(classes) != num_classes):
        raise ValueError(
            f'classes must be a list of num_classes={num_classes} names, but is {classes!r:.200}'
        )
    changes = {label for pair in (label_map or {}).items() for label in pair}
    if not all(0 <= label < 256 for label in changes):
        raise ValueError(f'label_map={label_map} must map labels from 0 to 255 to such labels')
    if not all(file.endswith('.npy') for file in files):
        _require_pillow()
    settings = (num_classes, ignore_index, reduce_zero_label, label_map)
    code = digest(settings, [file_key(file, file) for file in files])[:8]
    source = f'counted over {len(files)} label files in {_folder(files)} [{code}]'
    names = None if classes is None else tuple(classes)
    total = LabelCounts(num_classes, names, source)
    total.labels = dict(
        reduce_zero_label=reduce_zero_label, label_map=label_map, ignore_index=ignore_index
    )
    count_one = partial(
        _count_file,
        num_classes=num_classes,
        ignore_index=ignore_index,
        reduce_zero_label=reduce_zero_label,
        label_map=label_map,
    )
    with progress_bar(len(files) if progress else None, 'counting label maps') as advance:
        count_in_batches(
            count_one, files, num_workers, lambda _, counts: total.add_all(counts, False, advance)
        )
    return total


def read_label_file(path: str) -> np.ndarray:
    """The array of a label file, normally (H, W) class indices; a palette PNG gives its indices."""
    if path.endswith('.npy'):
        return np.load(path, allow_pickle=False)
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def _count_file(
    path: str,
    num_classes: int,
    ignore_index: int,
    reduce_zero_label: bool,
    label_map: dict[int, int] | None,
) -> ImageCount:
    def read() -> np.ndarray:
        histogram = label_histogram(read_label_file(path))
        if reduce_zero_label and histogram[256:].any():
            raise LabelMapError(
                f'it has the label {np.flatnonzero(histogram)[-1]}, but reduce_zero_label is '
                'defined for labels up to 255: reduce the labels in the file instead'
            )
        return map_histogram(histogram, reduce_zero_label, label_map)

    return count_histogram(path, read, num_classes, ignore_index)


def _folder(files: list[str]) -> str:
    try:
        return os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    except ValueError:  # on several drives
        return 'several folders'


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImportError('reading label images needs Pillow: pip install pillow') from error

"""Counting the pixels of a data set's labels, as its own pipeline reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from mmengine.utils import ProgressBar

from .class_prior import ClassPrior


class ClassCountError(ValueError):
    """Label files that could not be counted."""


class CountReport(NamedTuple):
    """What was counted.

    Attributes:
        prior: of the files that could be counted; None if there was none, or no valid pixel.
        failures: (file, reason) of each one that could not.
    """

    prior: ClassPrior | None
    failures: list[tuple[str, str]]


class _ImageCount(NamedTuple):
    path: str
    histogram: np.ndarray | None
    error: str


def count_dataset(
    dataset: Any, num_workers: int = 0, strict: bool = False, progress: bool = False
) -> CountReport:
    """Count the labels of a built mmsegmentation data set.

    Each label map is read by the data set's own LoadAnnotations, so that reduce_zero_label and
    label maps count as in training; no image is read and nothing is augmented. In a concatenated
    or repeated data set every underlying image counts once.

    Args:
        dataset: a data set, or mmengine's ConcatDataset or RepeatDataset of some.
        num_workers: processes beside this one; 0 counts here.
        strict: stop at the first file that cannot be counted.
        progress: show a progress bar.

    Raises:
        ClassCountError: with ``strict``, the first failure.
        ValueError: the data set has no LoadAnnotations.
    """
    total = np.zeros(256, np.int64)
    images = np.zeros(256, np.int64)
    num_images = 0
    failures: list[tuple[str, str]] = []
    parts = list(_underlying(dataset))
    bar = ProgressBar(sum(map(len, parts))) if progress else None
    classes = parts[0].metainfo.get('classes')
    for part in parts:
        for count in _count_part(part, num_workers):
            if bar is not None:
                bar.update()
            if count.histogram is None:
                if strict:
                    raise ClassCountError(f'{count.path}: {count.error}')
                failures.append((count.path, count.error))
                continue
            total += count.histogram
            images += count.histogram > 0
            num_images += 1
    num_classes = len(classes)
    prior = None
    if total[:num_classes].any():
        prior = ClassPrior(
            total[:num_classes],
            classes,
            images[:num_classes],
            num_images,
            int(total[num_classes:].sum()),
            f'counted over {describe(dataset)}',
        )
    return CountReport(prior, failures)


def describe(dataset: Any) -> str:
    """Type, place and number of images of a data set."""
    parts = list(_underlying(dataset))
    return '; '.join(
        f'{type(part).__name__}, {part.data_prefix.get("seg_map_path", "")}, {len(part)} images'
        for part in parts
    )


def _underlying(dataset: Any) -> Iterator[Any]:
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from _underlying(part)
    elif hasattr(dataset, 'dataset'):
        yield from _underlying(dataset.dataset)
    else:
        dataset.full_init()
        yield dataset


def _count_part(dataset: Any, num_workers: int) -> Iterable[_ImageCount]:
    loaders = [t for t in dataset.pipeline.transforms if 'LoadAnnotations' in type(t).__name__]
    if not loaders:
        raise ValueError(
            f'the pipeline of {type(dataset).__name__} has no LoadAnnotations, so its labels '
            'cannot be read as in training: name a split whose pipeline loads them'
        )
    count = partial(
        _count_image,
        load=loaders[0],
        num_classes=len(dataset.metainfo['classes']),
        ignore_index=getattr(dataset, 'ignore_index', 255),
    )
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    if num_workers == 0:
        yield from map(count, infos)
        return
    with ProcessPoolExecutor(num_workers) as pool:
        yield from pool.map(count, infos, chunksize=16)


def _count_image(info: dict, load: Any, num_classes: int, ignore_index: int) -> _ImageCount:
    path = info.get('seg_map_path', '?')
    try:
        labels = load(info)['gt_seg_map']
    except Exception as error:  # a decoder may raise anything, and the rest is to be finished
        return _ImageCount(path, None, f'cannot be read ({type(error).__name__}: {error})')
    histogram = np.bincount(labels.ravel(), minlength=256)
    bad = [v for v in np.flatnonzero(histogram) if v >= num_classes and v != ignore_index]
    if bad:
        listed = ', '.join(f'{v} ({histogram[v]} pixels)' for v in bad)
        return _ImageCount(
            path,
            None,
            f'labels {listed} are neither a class (0..{num_classes - 1}) nor ignore_index='
            f'{ignore_index}: check reduce_zero_label and the classes of the data set',
        )
    return _ImageCount(path, histogram, '')

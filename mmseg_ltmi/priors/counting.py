"""Counting the pixels of a data set's labels, as its own pipeline reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
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
    pixels: np.ndarray  # int64 (C,)
    num_ignored: int
    error: str  # empty if the file could be counted


def count_dataset(
    dataset: Any,
    num_workers: int = 0,
    strict: bool = False,
    progress: bool = False,
    ignore_index: int | None = None,
) -> CountReport:
    """Count the labels of a built mmsegmentation data set.

    Each label map is read by the data set's own LoadAnnotations, so that reduce_zero_label and
    label maps count as in training (mmsegmentation reads labels as uint8); no image is read and
    nothing is augmented. In a concatenated, repeated or class-balanced data set every underlying
    image counts once.

    Args:
        dataset: a data set, or mmengine's ConcatDataset, RepeatDataset or ClassBalancedDataset.
        num_workers: processes beside this one; 0 counts here.
        strict: stop at the first file that cannot be counted.
        progress: show a progress bar.
        ignore_index: label that belongs to no class; None takes the data set's own.

    Raises:
        ClassCountError: with ``strict``, the first failure.
        ValueError: the data set has no LoadAnnotations or names no classes.
    """
    parts = list(_underlying(dataset))
    classes = _classes(parts)
    pixels = np.zeros(len(classes), np.int64)
    images = np.zeros(len(classes), np.int64)
    num_images = num_ignored = 0
    failures: list[tuple[str, str]] = []
    bar = ProgressBar(sum(map(len, parts))) if progress else None
    for part in parts:
        with closing(_count_part(part, num_workers, ignore_index)) as counts:
            for count in counts:
                if bar is not None:
                    bar.update()
                if count.error:
                    if strict:
                        raise ClassCountError(list_failures([(count.path, count.error)]))
                    failures.append((count.path, count.error))
                    continue
                pixels += count.pixels
                images += count.pixels > 0
                num_ignored += count.num_ignored
                num_images += 1
    prior = None
    if pixels.any():
        source = f'counted over {describe(dataset)}'
        prior = ClassPrior(pixels, classes, images, num_images, num_ignored, source)
    return CountReport(prior, failures)


def describe(dataset: Any) -> str:
    """Type, place and number of images of a data set, and a digest of what decides its counts.

    The digest covers the label files' names, the classes and how labels are read, not the files'
    contents.
    """
    return '; '.join(
        f'{type(part).__name__}, {getattr(part, "data_prefix", {}).get("seg_map_path", "")}, '
        f'{len(part)} images [{_digest(part)}]'
        for part in _underlying(dataset)
    )


def list_failures(failures: list[tuple[str, str]], most: int = 20) -> str:
    """A line per label file that could not be counted, of which the first ``most`` are shown."""
    lines = [f'{path}: {reason}' for path, reason in failures[:most]]
    if len(failures) > most:
        lines.append(f'... and {len(failures) - most} more')
    return '\n'.join(lines)


def _classes(parts: list[Any]) -> tuple[str, ...]:
    for part in parts:
        if not part.metainfo.get('classes'):
            raise ValueError(
                f'{type(part).__name__} names no classes, so nothing says which labels are valid: '
                'give it metainfo=dict(classes=[...])'
            )
    return tuple(parts[0].metainfo['classes'])


def _digest(dataset: Any) -> str:
    settings = [
        dataset.metainfo.get('classes'),
        *(getattr(dataset, k, None) for k in ('label_map', 'reduce_zero_label', 'ignore_index')),
    ]
    digest = hashlib.sha1(repr(settings).encode(), usedforsecurity=False)
    for i in range(len(dataset)):
        digest.update(_label_path(dataset.get_data_info(i)).encode(errors='surrogateescape'))
    return digest.hexdigest()[:8]


def _label_path(info: dict) -> str:
    return str(info.get('seg_map_path') or f'label of {info.get("img_path", "?")}')


def _underlying(dataset: Any) -> Iterator[Any]:
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from _underlying(part)
    elif hasattr(dataset, 'dataset'):
        yield from _underlying(dataset.dataset)
    else:
        dataset.full_init()
        yield dataset


def _count_part(
    dataset: Any, num_workers: int, ignore_index: int | None
) -> Generator[_ImageCount, None, None]:
    # By name, subclasses included: this package does not import mmsegmentation.
    loaders = [
        transform
        for transform in dataset.pipeline.transforms
        if any('LoadAnnotations' in base.__name__ for base in type(transform).__mro__)
    ]
    if not loaders:
        raise ValueError(
            f'the pipeline of {type(dataset).__name__} has no LoadAnnotations, so its labels '
            'cannot be read as in training: name a split whose pipeline loads them'
        )
    count = partial(
        _count_image,
        load=loaders[0],
        num_classes=len(dataset.metainfo['classes']),
        ignore_index=getattr(dataset, 'ignore_index', 255)
        if ignore_index is None
        else ignore_index,
    )
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    if num_workers == 0:
        yield from map(count, infos)
        return
    pool = ProcessPoolExecutor(num_workers)
    try:
        yield from pool.map(count, infos, chunksize=16)
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops early does not wait for the rest


def _count_image(info: dict, load: Any, num_classes: int, ignore_index: int) -> _ImageCount:
    path = _label_path(info)
    pixels = np.zeros(num_classes, np.int64)
    try:
        labels = load(info)['gt_seg_map']
        if labels.ndim != 2:
            raise ValueError(f'its shape is {labels.shape}, but a label map has one channel')
        histogram = np.bincount(labels.ravel(), minlength=max(256, num_classes))
    except Exception as error:  # a decoder may raise anything, and the rest is to be finished
        return _ImageCount(path, pixels, 0, f'cannot be read ({type(error).__name__}: {error})')
    num_ignored = 0
    if 0 <= ignore_index < len(histogram):
        num_ignored = int(histogram[ignore_index])
        histogram[ignore_index] = 0
    bad = num_classes + np.flatnonzero(histogram[num_classes:])
    if bad.size:
        listed = ', '.join(f'{v} ({histogram[v]} pixels)' for v in bad)
        reason = (
            f'labels {listed} are neither a class (0..{num_classes - 1}) nor ignore_index='
            f'{ignore_index}: check reduce_zero_label and the classes of the data set'
        )
        return _ImageCount(path, pixels, 0, reason)
    return _ImageCount(path, histogram[:num_classes], num_ignored, '')

"""Counting the pixels of a data set's labels, as its own pipeline reads them."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.utils import ProgressBar

from .class_prior import ClassPrior
from .count_cache import CountCache
from .fingerprint import describe_part, image_keys, label_loader, underlying
from .histogram import ImageCount, count_image
from .workers import map_chunks


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


def count_dataset(
    dataset: Any,
    num_workers: int = 0,
    strict: bool = False,
    progress: bool = False,
    ignore_index: int | None = None,
    cache: str | Path | None = None,
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
        cache: file that keeps the counts of each image, see :class:`CountCache`: a count that was
            stopped goes on, and a later one reads only what changed.

    Raises:
        ClassCountError: with ``strict``, the first failure; or a counting process died.
        ValueError: the data set has no LoadAnnotations or names no classes.
    """
    parts = list(underlying(dataset))
    tally = Tally(class_names(parts), strict, sum(map(len, parts)) if progress else None)
    known = None if cache is None else CountCache(cache, len(tally.classes))
    texts = []
    for part in parts:
        index = part_ignore_index(part, ignore_index)
        keys = image_keys(part, index)  # before the files are read: a later change shows
        texts.append(describe_part(part, keys))
        missing = []
        for i, key in enumerate(keys):
            count = None if known is None else known.get(key)
            if count is None:
                missing.append(i)
            else:
                tally.add(count)
        count_one = partial(
            count_image,
            load=label_loader(part),
            num_classes=len(tally.classes),
            ignore_index=index,
        )
        done = iter(missing)
        for counts in counted(count_one, _Infos(part, missing), num_workers):
            if known is not None:
                known.add((keys[next(done)], count) for count in counts)
            for count in counts:
                tally.add(count)
    return tally.report(f'counted over {"; ".join(texts)}')


def list_failures(failures: list[tuple[str, str]], most: int = 20) -> str:
    """A line per label file that could not be counted, of which the first ``most`` are shown."""
    lines = [f'{path}: {reason}' for path, reason in failures[:most]]
    if len(failures) > most:
        lines.append(f'... and {len(failures) - most} more')
    return '\n'.join(lines)


class Tally:
    """Sums the counts of images.

    Args:
        classes: their names.
        strict: raise ClassCountError at the first failure.
        total: images to come, for a progress bar; None shows none.
    """

    def __init__(self, classes: tuple[str, ...], strict: bool, total: int | None) -> None:
        self.classes = classes
        self.strict = strict
        self.pixels = np.zeros(len(classes), np.int64)
        self.images = np.zeros(len(classes), np.int64)
        self.num_images = self.num_ignored = 0
        self.failures: list[tuple[str, str]] = []
        self.bar = None if total is None else ProgressBar(total)

    def add(self, count: ImageCount) -> None:
        """Add an image or note its failure."""
        if self.bar is not None:
            self.bar.update()
        if count.error:
            self.failures.append((count.path, count.error))
            if self.strict:
                raise ClassCountError(list_failures(self.failures))
            return
        self.pixels += count.pixels
        self.images += count.pixels > 0
        self.num_ignored += count.num_ignored
        self.num_images += 1

    def report(self, source: str) -> CountReport:
        """The sums as a prior that names its source."""
        prior = None
        if self.pixels.any():
            prior = ClassPrior(
                self.pixels, self.classes, self.images, self.num_images, self.num_ignored, source
            )
        return CountReport(prior, self.failures)


def class_names(parts: list[Any]) -> tuple[str, ...]:
    """The classes of underlying data sets; ValueError where one names none."""
    for part in parts:
        if not part.metainfo.get('classes'):
            raise ValueError(
                f'{type(part).__name__} names no classes, so nothing says which labels are valid: '
                'give it metainfo=dict(classes=[...])'
            )
    return tuple(parts[0].metainfo['classes'])


def part_ignore_index(part: Any, ignore_index: int | None) -> int:
    """``ignore_index``, or the data set's own, or 255."""
    return getattr(part, 'ignore_index', 255) if ignore_index is None else ignore_index


def counted(function: Any, items: Any, num_workers: int) -> Generator[list[ImageCount], None, None]:
    """As :func:`map_chunks`, with a clear error for a process that died."""
    try:
        with closing(map_chunks(function, items, num_workers)) as chunks:
            yield from chunks
    except BrokenProcessPool as error:
        raise ClassCountError(
            'a counting process died, perhaps for want of memory: try fewer processes'
        ) from error


class _Infos:
    """The data infos of some images, a slice at a time."""

    def __init__(self, part: Any, indices: list[int]) -> None:
        self.part, self.indices = part, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, where: slice) -> list[dict]:
        return [self.part.get_data_info(i) for i in self.indices[where]]

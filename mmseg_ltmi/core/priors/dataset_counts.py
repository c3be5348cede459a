"""Counting the labels of a data set, as its own pipeline reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..progress import progress_bar
from .annotation_loader import count_image, label_loader
from .count_cache import CountCache
from .counting import LabelCounts, count_in_batches
from .dataset_parts import (
    common_classes,
    common_ignore_index,
    common_labels,
    dataset_images,
    dataset_parts,
    own_ignore_index,
)
from .fingerprint import describe_part, image_keys
from .label_histogram import ImageCount
from .label_space import check_ignored_is_free


def count_dataset_labels(
    dataset: Any,
    num_workers: int = 0,
    strict: bool = False,
    progress: bool = False,
    ignore_index: int | None = None,
    cache: str | Path | None = None,
    note: Callable[[Any, Iterable[int], list[ImageCount]], None] | None = None,
) -> LabelCounts:
    """The sums of :func:`count_dataset`, which has the same arguments and errors.

    ``note`` is shown the counts of single images: a data set that is not wrapped, numbers of its
    images, and their counts.
    """
    parts = dataset_parts(dataset)
    classes = common_classes(parts)
    if ignore_index is None:
        common_ignore_index(parts, len(classes))
    total = LabelCounts(len(classes), classes)
    total.labels = common_labels(parts, ignore_index)
    known = None if cache is None else CountCache(cache, len(classes))
    sources = []
    steps = sum(len(part.indices) for part in parts) if progress else None
    with progress_bar(steps, 'counting label maps') as advance:

        def add(part: Any, images: Iterable[int], counts: list[ImageCount]) -> None:
            if note is not None:
                note(part, images, counts)
            total.add_all(counts, strict, advance)

        def take(part: Any, images: list[tuple[int, str]], counts: list[ImageCount]) -> None:
            if known is not None:
                known.add(zip((key for _, key in images), counts, strict=True))
            add(part, [image for image, _ in images], counts)

        for part in parts:
            index = own_ignore_index(part.dataset) if ignore_index is None else ignore_index
            check_ignored_is_free(index, len(classes), type(part.dataset).__name__)
            keys = image_keys(part, index)  # before the files are read: a later change shows
            sources.append(describe_part(part, keys))
            missing = []
            for image, key in zip(part.indices, keys, strict=True):
                count = None if known is None else known.get(key)
                if count is None:
                    missing.append((image, key))
                else:
                    add(part.dataset, [image], [count])
            count_one = partial(
                _count_one,
                dataset=part.dataset,
                load=label_loader(part.dataset),
                num_classes=len(classes),
                ignore_index=index,
            )
            count_in_batches(count_one, missing, num_workers, partial(take, part.dataset))
    total.source = f'counted over {"; ".join(sources)}'
    return total


def count_each_image(
    dataset: Any, num_workers: int = 0, cache: str | Path | None = None
) -> np.ndarray:
    """Pixels of each class in each image of a data set, int64 (N, C).

    Arguments and errors are those of :func:`count_dataset`.

    Raises:
        ClassCountError: label files that cannot be counted, or no pixel has a class.
        ValueError: item i is not image i, as in a data set that repeats its images or draws them.
    """
    images = dataset_images(dataset)
    rows: dict[tuple[int, int], np.ndarray] = {}

    def note(part: Any, numbers: Iterable[int], counts: list[ImageCount]) -> None:
        for image, count in zip(numbers, counts, strict=True):
            rows[id(part), image] = count.pixels

    count_dataset_labels(dataset, num_workers, cache=cache, note=note).check_complete()
    return np.stack([rows[id(part), image] for part, image in images])


def _count_one(
    image: tuple[int, str], dataset: Any, load: Any, num_classes: int, ignore_index: int
) -> ImageCount:
    return count_image(dataset.get_data_info(image[0]), load, num_classes, ignore_index)

"""Counting the labels of a data set, as its own pipeline reads them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ..progress import progress_bar
from .annotation_loader import count_image, label_loader
from .count_cache import CountCache
from .counting import LabelCounts, count_in_batches
from .dataset_parts import common_classes, common_labels, dataset_parts, own_ignore_index
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
) -> LabelCounts:
    """The sums of :func:`count_dataset`, which has the same arguments and errors."""
    parts = dataset_parts(dataset)
    classes = common_classes(parts)
    total = LabelCounts(len(classes), classes)
    total.labels = common_labels(parts, ignore_index)
    known = None if cache is None else CountCache(cache, len(classes))
    sources = []
    steps = sum(len(part.indices) for part in parts) if progress else None
    with progress_bar(steps, 'counting label maps') as advance:

        def take(images: list[tuple[int, str]], counts: list[ImageCount]) -> None:
            if known is not None:
                keys = [key for _, key in images]
                known.add(zip(keys, counts, strict=True))
            total.add_all(counts, strict, advance)

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
                    total.add_all([count], strict, advance)
            count_one = partial(
                _count_one,
                dataset=part.dataset,
                load=label_loader(part.dataset),
                num_classes=len(classes),
                ignore_index=index,
            )
            count_in_batches(count_one, missing, num_workers, take)
    total.source = f'counted over {"; ".join(sources)}'
    return total


def _count_one(
    image: tuple[int, str], dataset: Any, load: Any, num_classes: int, ignore_index: int
) -> ImageCount:
    return count_image(dataset.get_data_info(image[0]), load, num_classes, ignore_index)

"""What in a data set changes how often its classes occur."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from .dataset_wrappers import is_subset, pipeline_steps, wrapped


def resampling_of(dataset: Any, of_items: bool = False) -> str:
    """What in a data set changes how often its classes occur, as texts; '' if nothing does.

    That is a wrapper or a transform with an attribute ``class_resampling``, mmengine's
    ClassBalancedDataset, and one that repeats some of its images more often than others. A text
    differs where the draw does.

    Args:
        dataset: wrapped or not.
        of_items: leave out transforms and repeats, which keep the images that items are of.
    """
    found = _drawing(dataset, of_items)
    return ', '.join(filter(None, found if of_items else [_uneven(dataset), *found]))


def _drawing(dataset: Any, of_items: bool) -> list[str]:
    found = [str(getattr(dataset, 'class_resampling', ''))]
    # By name, subclasses included: the core does not import mmengine.
    if any(base.__name__ == 'ClassBalancedDataset' for base in type(dataset).__mro__):
        threshold = getattr(dataset, 'oversample_thr', None)
        found.append(f'{type(dataset).__name__}(oversample_thr={threshold})')
    if not of_items:
        found += [str(getattr(step, 'class_resampling', '')) for step in pipeline_steps(dataset)]
    return found + [text for part in wrapped(dataset) for text in _drawing(part, of_items)]


def _uneven(dataset: Any) -> str:
    # What repeats some images more often than others, and how often those of each data set inside.
    times = _uneven_times(dataset)
    if not times:
        return ''
    texts = [str(n) if isinstance(n, int) else f'[{zlib.crc32(n.tobytes()):08x}]' for n in times]
    return f'{", ".join(_uneven_wrappers(dataset))}(times={", ".join(texts)})'


def _uneven_wrappers(dataset: Any) -> list[str]:
    # The innermost ones.
    inner = [name for part in wrapped(dataset) for name in _uneven_wrappers(part)]
    return inner or [type(dataset).__name__] * bool(_uneven_times(dataset))


def _uneven_times(dataset: Any) -> list[Any]:
    # Of each data set that is not wrapped, as _repeats has it, less what all have in common; []
    # where all images occur alike.
    sums: dict[int, Any] = {}
    for leaf, times in _repeats(dataset):
        sums[id(leaf)] = sums.get(id(leaf), 0) + times
    numbers = {int(n) for times in sums.values() for n in np.unique(times) if n}
    return [times // math.gcd(*numbers) for times in sums.values()] if len(numbers) > 1 else []


def _repeats(dataset: Any, times: Any = 1) -> Iterator[tuple[Any, Any]]:
    # Data sets that are not wrapped, and how often their images occur where each item of
    # ``dataset`` occurs ``times``: one number for all images, or an array.
    parts = wrapped(dataset)
    if not parts:
        yield dataset, times
    elif is_subset(dataset):
        size = len(dataset.dataset)
        images = np.asarray(dataset.indices, np.int64) % size
        number = np.broadcast_to(times, len(images))
        yield from _repeats(dataset.dataset, _summed(images, number, size))
    elif np.ndim(times) == 0:
        for part in parts:
            yield from _repeats(part, times * getattr(dataset, 'times', 1))  # of a RepeatDataset
    else:
        # What is repeated, and each part of what is concatenated, has items of its own.
        sizes = [len(part) for part in parts]
        images = np.arange(len(times)) % sum(sizes)
        each = np.split(_summed(images, times, sum(sizes)), np.cumsum(sizes)[:-1])
        for part, own in zip(parts, each, strict=True):
            yield from _repeats(part, own)


def _summed(images: np.ndarray, times: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(images, times, size).astype(np.int64)

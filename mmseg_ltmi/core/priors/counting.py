"""Sums of label counts over many images, here or in worker processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .label_histogram import ImageCount

BATCH = 32


class ClassCountError(ValueError):
    """Label files that could not be counted."""


def list_failures(failures: list[tuple[str, str]], most: int = 20) -> str:
    """A line per reason why label files could not be counted, at most ``most`` of them.

    Each names the first three of its files and says how many it has.
    """
    files: dict[str, list[str]] = {}
    for path, reason in failures:
        files.setdefault(reason, []).append(path)
    lines = []
    for reason, paths in list(files.items())[:most]:
        others = f' [{len(paths)} files: {", ".join(paths[:3])}' if len(paths) > 1 else ''
        others += ', ...]' if len(paths) > 3 else ']' if others else ''
        lines.append(f'{paths[0]}: {reason}{others}')
    if len(files) > most:
        more = sum(map(len, list(files.values())[most:]))
        lines.append(f'... and {more} more')
    return '\n'.join(lines)


@dataclass
class LabelCounts:
    """Sums over the label maps of images.

    Attributes:
        num_classes: C.
        classes: C names, where they are known.
        source: what was counted.
        pixels: int64 (C,) pixels of each class.
        images: int64 (C,) images in which a class occurs.
        num_images: images counted.
        num_ignored: pixels of ignore_index.
        failures: (file, reason) of each label map that could not be counted.
        labels: how labels were read, as in ClassPrior.
    """

    num_classes: int
    classes: tuple[str, ...] | None = None
    source: str = ''
    pixels: np.ndarray = field(init=False)
    images: np.ndarray = field(init=False)
    num_images: int = 0
    num_ignored: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.num_classes, np.int64)
        self.images = np.zeros(self.num_classes, np.int64)

    def add_all(self, counts: list[ImageCount], strict: bool, advance: Callable[[], None]) -> None:
        """Add images and note failures; ``strict`` raises the first one as ClassCountError."""
        for count in counts:
            advance()
            if not count.error:
                self.pixels += count.pixels
                self.images += count.pixels > 0
                self.num_ignored += count.num_ignored
                self.num_images += 1
                continue
            self.failures.append((count.path, count.error))
            if strict:
                raise ClassCountError(list_failures(self.failures))

    def check_complete(self) -> None:
        """Raise ClassCountError if a label map could not be counted or no pixel has a class."""
        if self.failures:
            raise ClassCountError(list_failures(self.failures))
        if not self.pixels.any():
            raise ClassCountError('no pixel of the data set has a class: check its labels')


def count_in_batches(
    count_one: Callable[[Any], ImageCount],
    items: Sequence[Any],
    num_workers: int,
    take: Callable[[Any, list[ImageCount]], None],
) -> None:
    """Count items and give them, in their order and 32 at a time, to ``take`` with their counts.

    Args:
        count_one: counts one item, in a worker process if there are any.
        items: what is counted.
        num_workers: processes beside this one; 0 counts here.
        take: called in this process with a slice of the items and their counts.

    Raises:
        ClassCountError: a worker process died.
    """
    loader: DataLoader = DataLoader(
        _Counted(count_one, items),
        batch_size=BATCH,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # the loader draws a seed, not from the caller's generator
    )
    try:
        for i, counts in enumerate(loader):
            take(items[BATCH * i : BATCH * (i + 1)], counts)
    except RuntimeError as error:
        # Raised in the loader or, by its signal handler, anywhere.
        if 'DataLoader worker (pid' not in str(error):
            raise
        raise ClassCountError(
            'a counting process died, perhaps for want of memory: try fewer processes'
        ) from error


class _Counted(Dataset):
    # The counts of items, for the DataLoader.

    def __init__(self, count_one: Callable[[Any], ImageCount], items: Sequence[Any]) -> None:
        self.count_one, self.items = count_one, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> ImageCount:
        return self.count_one(self.items[index])


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    try:
        import cv2
    except ImportError:  # optional
        return
    cv2.setNumThreads(0)  # the processes are the parallel part

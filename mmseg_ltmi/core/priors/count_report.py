"""Counting a data set into a class prior, with a list of what could not be counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from .class_prior import ClassPrior
from .counting import LabelCounts
from .dataset_counts import count_dataset_labels


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
    nothing is augmented. In a concatenated, repeated, class-balanced or resampled data set every
    underlying image counts once, and of a torch Subset only its own images.

    Args:
        dataset: a data set, or mmengine's ConcatDataset, RepeatDataset or ClassBalancedDataset,
            or torch's ConcatDataset or Subset.
        num_workers: processes beside this one; 0 counts here.
        strict: stop at the first file that cannot be counted.
        progress: show a progress bar.
        ignore_index: label that belongs to no class; None takes the data set's own.
        cache: file that keeps the counts of each image, see :class:`CountCache`: a count that was
            stopped goes on, and a later one reads only what changed.

    Raises:
        ClassCountError: with ``strict``, the first failure; or a counting process died.
        ValueError: the data set has no LoadAnnotations, no images or names no classes.
    """
    counts = count_dataset_labels(dataset, num_workers, strict, progress, ignore_index, cache)
    return report_counts(counts)


def report_counts(counts: LabelCounts) -> CountReport:
    """The sums as a prior, and the failures."""
    prior = ClassPrior.from_counts(counts) if counts.pixels.any() else None
    return CountReport(prior, counts.failures)

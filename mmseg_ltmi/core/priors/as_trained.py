"""Counting what a training pipeline leaves of the labels: crops, resizes, refetches."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from ..progress import progress_bar
from .annotation_loader import label_path, lost_label, mmseg_label_files
from .count_report import CountReport, report_counts
from .counting import LabelCounts, count_in_batches
from .dataset_parts import (
    common_classes,
    common_ignore_index,
    common_labels,
    data_info,
    dataset_parts,
)
from .fingerprint import describe, pipeline_digest
from .label_histogram import ImageCount, count_histogram, label_histogram
from .label_space import check_ignored_is_free
from .resampling import resampling_of


def count_as_trained(
    dataset: Any,
    num_samples: int,
    seed: int = 0,
    num_workers: int = 0,
    strict: bool = False,
    progress: bool = False,
) -> CountReport:
    """Count the labels of samples as the whole pipeline gives them to the model.

    Samples are drawn as training draws them, in shuffled passes over the data set, repeats,
    RareClassDataset and RareClassPaste included (a sampler with weights of its own is not
    followed). The prior also differs from the raw one where crops avoid a single class
    (``cat_max_ratio``) or images differ in size.
    Padding by the data preprocessor has no class and is not counted. Each sample has a random
    state of its own, so that the counts depend on the seed, not on the number of processes.
    Where label files have labels that mmsegmentation's LoadAnnotations makes others, nothing is
    counted: a sample may be mixed of any files.

    Args:
        dataset: a built data set, wrapped or not, whose pipeline ends in PackSegInputs or leaves
            ``gt_seg_map``. Any transform may load the labels, LoadAnnotations or another.
        num_samples: how many, 1 or more; image counts are counts of samples.
        seed: of the order and of every random transform.
        num_workers: processes beside this one; 0 counts here.
        strict: stop at the first sample that cannot be counted.
        progress: show a progress bar.

    Raises:
        ClassCountError: with ``strict``, the first failure; or a counting process died.
        ValueError: ``num_samples`` or ``seed`` out of range, no images, no class names, or parts
            with another ``ignore_index`` each, of which one is a class.
    """
    if num_samples < 1 or not 0 <= seed < 2**32:
        raise ValueError(
            f'num_samples={num_samples}, seed={seed}: count 1 sample or more, with a seed from 0 '
            'to 2**32 - 1'
        )
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    parts = dataset_parts(dataset)
    classes = common_classes(parts)
    ignore_index = common_ignore_index(parts, len(classes))
    check_ignored_is_free(ignore_index, len(classes), 'the data set')
    checked = LabelCounts(len(classes))
    count_in_batches(
        _check_file,
        mmseg_label_files(parts),
        num_workers,
        lambda _, counts: checked.add_all(counts, strict, lambda: None),
    )
    if checked.failures:
        return report_counts(checked)
    total = LabelCounts(len(classes), classes, as_trained_source(dataset, num_samples, seed))
    total.labels = common_labels(parts)
    count_one = partial(
        _count_sample,
        dataset=dataset,
        num_classes=len(classes),
        ignore_index=ignore_index,
    )
    samples = _draw(len(dataset), num_samples, seed)
    with progress_bar(num_samples if progress else None, 'counting label maps') as advance:
        count_in_batches(
            count_one,
            samples,
            num_workers,
            lambda _, counts: total.add_all(counts, strict, advance),
        )
    return report_counts(total)


def as_trained_source(dataset: Any, num_samples: int, seed: int) -> str:
    """The source of a prior of :func:`count_as_trained` with these arguments."""
    by = resampling_of(dataset)
    return (
        f'counted as trained over {describe(dataset)}, pipeline [{pipeline_digest(dataset)}]'
        f'{f", resampled by {by}" if by else ""}, {num_samples} samples, seed {seed}'
    )


def counted_resampling(source: str) -> str:
    """What resampled the data set that the source of a prior names; '' if nothing did."""
    found = re.search(r', resampled by (.*), \d+ samples, seed \d+$', source)
    return found[1] if found else ''


def sample_labels(data: dict) -> np.ndarray:
    """The label map (H, W) of a sample that a pipeline has packed or not."""
    if 'data_samples' in data:
        return data['data_samples'].gt_sem_seg.data[0].numpy()
    return data['gt_seg_map']


def _check_file(path: Any) -> ImageCount:
    # No pixels: it is only looked whether training reads it otherwise than it is written.
    return ImageCount(str(path), np.zeros(1, np.int64), 0, lost_label(path))


def _draw(length: int, num_samples: int, seed: int) -> list[tuple[int, int]]:
    # (image, seed of its transforms) of each sample.
    rng = np.random.default_rng(seed)
    passes = [rng.permutation(length) for _ in range(-(-num_samples // length))]
    images = np.concatenate(passes)[:num_samples].tolist()
    return list(zip(images, rng.integers(2**32, size=num_samples).tolist(), strict=True))


def _count_sample(
    sample: tuple[int, int], dataset: Any, num_classes: int, ignore_index: int
) -> ImageCount:
    image, seed = sample

    def read() -> np.ndarray:
        with _seeded(seed):
            return label_histogram(sample_labels(dataset[image]))

    path = label_path(data_info(dataset, image))
    return count_histogram(path, read, num_classes, ignore_index)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # Transforms draw from any of these; whoever counts keeps their own.
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])

"""Counts how often each class occurs in a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmseg.registry import DATASETS

from mmseg_ltmi.core.priors import CountReport, count_as_trained, count_dataset

from .config_changes import read_config
from .empty_split import naming_empty_split


def count(
    config: str | Path | Config,
    split: str = 'train',
    num_workers: int = 2,
    strict: bool = False,
    cache: str | Path | None = None,
    as_trained: int | None = None,
    seed: int = 0,
    progress: bool = False,
    options: Mapping[str, Any] | None = None,
) -> CountReport:
    """Count the labels of a config's data set.

    Args:
        config: a file of any mmsegmentation config, or a Config.
        split: 'train', 'val' or 'test'.
        num_workers: processes beside this one; 0 counts here.
        strict: stop at the first label file that cannot be counted.
        cache: file that keeps the counts of each image, so that a count that was stopped goes on.
        as_trained: count this many samples as the pipeline crops and resizes them; None counts
            the raw labels.
        seed: of these samples.
        progress: show a progress bar on stderr.
        options: values of the config by dotted key.

    Raises:
        ClassCountError: with ``strict``, the first failure; or a counting process died.
        OSError: a file that is not there.
        ValueError: no such split, no labels or no images.

    Examples:
        >>> prior, failures = count('config.py')
        >>> prior.save('prior.json')
    """
    cfg = read_config(config, options)
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise ValueError(f'the config has no {split}_dataloader: choose another --split')
    how: dict[str, Any] = dict(num_workers=num_workers, strict=strict, progress=progress)
    with naming_empty_split(split, loader.dataset):
        dataset = DATASETS.build(loader.dataset)
        if as_trained is not None:
            return count_as_trained(dataset, as_trained, seed, **how)
        return count_dataset(dataset, cache=cache, **how)

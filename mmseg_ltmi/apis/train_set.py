"""Which class prior is that of a config's train set, and what resamples its classes."""

from __future__ import annotations

from collections.abc import Iterator

from mmseg.registry import DATASETS, TRANSFORMS

from mmseg_ltmi.core.priors import ClassPrior

from .config_changes import class_of, unscoped_name

PRIORS = {
    'ADE20KDataset': 'ade20k',
    'CityscapesDataset': 'cityscapes',
    'CamVidDataset': 'camvid',
    'NYUv2Dataset': 'nyuv2',
}
"""The published class prior of a data set."""

WRAPPERS = (
    'ClassBalancedDataset',
    'ConcatDataset',
    'MultiImageMixDataset',
    'RareClassDataset',
    'RepeatDataset',
)
"""Data sets of data sets whose labels are those of the data sets inside."""


def _inner(dataset: dict) -> list[dict]:
    """The data sets in one that repeats, joins or draws from others."""
    inner = dataset.get('datasets') or dataset.get('dataset') or []
    parts = inner if isinstance(inner, (list, tuple)) else [inner]
    return [part for part in parts if isinstance(part, dict)]


def leaves(dataset: dict, times: int = 1) -> Iterator[tuple[dict, int]]:
    """The data sets in wrapped ones, and how often each is repeated."""
    if unscoped_name(dataset) not in WRAPPERS:
        if dataset:
            yield dataset, times
        return
    for part in _inner(dataset):
        yield from leaves(part, times * dataset.get('times', 1))


def resampling(dataset: dict) -> str:
    """What changes how often the classes of a data set occur, as names; '' if nothing does."""
    uneven = len({times for _, times in leaves(dataset)}) > 1
    return ', '.join([unscoped_name(dataset)] * uneven + list(dict.fromkeys(_drawing(dataset))))


def _drawing(dataset: dict) -> Iterator[str]:
    # As resampling_of, of what is not built.
    parts = [(dataset, DATASETS), *((step, TRANSFORMS) for step in dataset.get('pipeline') or ())]
    for part, registry in parts:
        if not isinstance(part, dict):  # a transform that is built
            continue
        cls = class_of(registry, part.get('type'))
        names = [base.__name__ for base in getattr(cls, '__mro__', ())]
        if hasattr(cls, 'class_resampling') or 'ClassBalancedDataset' in names:
            yield unscoped_name(part)
    for part in _inner(dataset):
        yield from _drawing(part)


def published_name(dataset: dict) -> str | None:
    """The published prior of a data set; None also where the config changes its classes."""
    name = PRIORS.get(unscoped_name(dataset))
    classes = (dataset.get('metainfo') or {}).get('classes')
    if name is None or classes is None:
        return name
    same = not isinstance(classes, str) and tuple(classes) == ClassPrior.load(name).classes
    return name if same else None

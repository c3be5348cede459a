"""Whether class prior, train set, checkpoint and evaluated data set of a run mean the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmseg_ltmi.core.priors import PriorBuffer
from mmseg_ltmi.core.priors.dataset_parts import unwrapped
from mmseg_ltmi.core.priors.label_space import check_same_classes, check_same_reading, labels_of

REMEDY = (
    'count the prior of the train set with mmseg-ltmi count, or put its classes and counts in the '
    "train set's order"
)
SAME_REMEDY = (
    'count the prior of the train set with mmseg-ltmi count; if other files were counted, which '
    'are numbered otherwise and mean the same, take "labels" out of the prior file'
)


def check_prior(prior: PriorBuffer, dataset: Any) -> None:
    """Refuse a prior that is missing, or of other classes than a train set or a part of it.

    Raises:
        FileNotFoundError: its file is missing.
        ValueError: its classes or labels mean others.
    """
    prior.check_found()
    known = prior.class_prior
    if known is None:
        return
    for name, part in _parts(dataset, 'the train set'):
        who, classes = (prior.describe(), name), metainfo_of(part).get('classes')
        if classes and len(classes) == known.num_classes:  # else mmsegmentation has a say
            check_same_classes(known.classes, classes, who, REMEDY, strict=False)
        if known.labels:
            check_same_reading(known.labels, _reading_of(part), who, SAME_REMEDY)


def has_other_classes(meta: Mapping[str, Any] | None, dataset: Any) -> bool:
    """Whether a checkpoint is known to be of other classes than a train set.

    Args:
        meta: ``meta`` of the checkpoint.
        dataset: the train set.
    """
    trained = ((meta or {}).get('dataset_meta') or {}).get('classes')
    try:
        check_same_classes(trained, metainfo_of(unwrapped(dataset)[0]).get('classes'), ('', ''), '')
    except ValueError:
        return True
    return False


def metainfo_of(dataset: Any) -> Mapping[str, Any]:
    """That of a data set that is not wrapped; {} where it has none."""
    return getattr(dataset, 'metainfo', None) or {}


def _parts(dataset: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Each data set inside a wrapped one, and how messages call it."""
    parts = unwrapped(dataset)
    for i, part in enumerate(parts):
        yield name if len(parts) == 1 else f'part {i} of {name} ({type(part).__name__})', part


def _reading_of(part: Any) -> dict[str, Any]:
    has_images = hasattr(part, 'get_data_info') and len(part)
    return labels_of(part.get_data_info(0) if has_images else metainfo_of(part))

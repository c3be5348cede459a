"""The class prior of a metric: the one that it names, or that of the model that it judges."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log

from mmseg_ltmi.core.priors import ClassPrior, build_class_prior, is_same_log_prior
from mmseg_ltmi.core.priors.label_space import check_same_classes, check_same_reading, zero_label_of
from mmseg_ltmi.prior_message import announced_prior, announced_prior_moves

REMEDY = 'count it again with mmseg-ltmi count'


def read_metric_prior(class_prior: Any, dataset_meta: Mapping[str, Any]) -> ClassPrior | None:
    """The prior that a metric names; None if it names none.

    Also None, with a warning, if it names a file that is missing and the model's prior is known,
    which takes its place: a trained model is tested without the files of its training.

    Args:
        class_prior: of the metric.
        dataset_meta: of the evaluated data set, with its ``classes``.

    Raises:
        ValueError: another number of classes, or labels that are read otherwise.
    """
    if class_prior is None:
        return None
    num_classes = len(dataset_meta['classes'])
    try:
        prior = build_class_prior(class_prior, num_classes, "the metric's class_prior")
    except FileNotFoundError as error:
        if announced_prior(num_classes) is None:
            raise
        print_log(f"the metric takes the model's class prior: {error}", 'current', logging.WARNING)
        return None
    check_reading(prior, dataset_meta)
    return prior


def check_classes(
    prior: ClassPrior, classes: Sequence[str], name: str = "the metric's class_prior"
) -> None:
    """Raise ValueError where a prior has other classes than a data set, see check_same_classes."""
    who = (f'{name} ({_source(prior)})', 'the data set')
    check_same_classes(prior.classes, classes, who, REMEDY, strict=False)


def check_reading(
    prior: ClassPrior, metainfo: Mapping[str, Any], name: str = "the metric's class_prior"
) -> None:
    """Raise ValueError where a prior and a data set have another ``reduce_zero_label``."""
    who = (f'{name} ({_source(prior)})', 'the data set')
    check_same_reading(prior.labels, zero_label_of(metainfo), who, REMEDY)


def check_log_prior(prior: ClassPrior, model: ClassPrior) -> None:
    """Raise ValueError where the numbers differ: a tau would be another one than the model's."""
    if announced_prior_moves():
        return
    if not is_same_log_prior(prior.log_probs(), model.log_probs()):
        _refuse(prior, model)


def check_groups(prior: ClassPrior, model: ClassPrior) -> None:
    """Raise ValueError where head, medium and tail classes differ."""
    if announced_prior_moves():
        return
    if [set(g) for g in prior.groups()] != [set(g) for g in model.groups()]:
        _refuse(prior, model)


def _refuse(prior: ClassPrior, model: ClassPrior) -> None:
    raise ValueError(
        f"the metric's class_prior ({_source(prior)}) is another one than that of the model "
        f"({_source(model)}): leave the metric's out, and it takes the model's"
    )


def _source(prior: ClassPrior) -> str:
    return prior.source or f'{prior.pixel_counts.tolist()!s:.60}'

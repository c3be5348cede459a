"""The class prior of a metric: the one that it names, or that of the model that it judges."""

from __future__ import annotations

from typing import Any

from mmseg_ltmi.core.priors import ClassPrior, build_class_prior, is_same_log_prior
from mmseg_ltmi.prior_message import announced_prior_moves


def read_metric_prior(class_prior: Any, num_classes: int) -> ClassPrior | None:
    """The prior that a metric names; None if it names none."""
    if class_prior is None:
        return None
    return build_class_prior(class_prior, num_classes, "the metric's class_prior")


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

"""Chooses an operating point from what OperatingPointMetric gathered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmseg_ltmi.core.posterior import OperatingPoint, decision_areas, iou_scores
from mmseg_ltmi.core.priors import ClassPrior

from .area_rows import class_rows
from .operating_point_metric import OperatingPointMetric
from .per_class import summary

CRITERIA = {'tau by mIoU': 'mIoU', 'tau by tail mIoU': 'mIoU_tail', 'tau by mAcc': 'mAcc'}


def summary_of(areas: Tensor, prior: ClassPrior) -> dict[str, float]:
    """:func:`summary` of areas (4, C)."""
    return summary(class_rows(areas, prior.names, prior))


def curve(areas: Tensor, prior: ClassPrior) -> list[dict[str, float]]:
    """:func:`summary` at each tau, from areas (T, 4, C)."""
    return [summary_of(at_tau, prior) for at_tau in areas]


def best_tau(curve: list[dict[str, float]], criterion: str) -> int:
    """Place of the first tau with the highest value; 0 where all are unknown."""
    values = torch.tensor([row[criterion] for row in curve])
    return int(values.nan_to_num(nan=-1.0).argmax())


def check_choice(choice: str, curve: list[dict[str, float]], split: str) -> None:
    """Raise ValueError where the score that the choice goes by is unknown at every tau."""
    criterion = CRITERIA.get(choice)
    if criterion and all(row[criterion] != row[criterion] for row in curve):
        raise ValueError(
            f'{choice!r} cannot be chosen: no class that {criterion} is of has a label in the '
            f'{split} split. Choose by another score, or on another split'
        )


def candidates(
    metric: OperatingPointMetric, advance: Callable[[], None] = lambda: None
) -> dict[str, OperatingPoint]:
    """Natural argmax, the best tau by each criterion, and the IoU rule, by name.

    ``advance`` is called when the rule is fitted, which takes long.
    """
    prior = metric.prior
    common: dict[str, Any] = dict(
        classes=prior.names,
        log_prior=tuple(prior.log_probs().tolist()),
    )
    found = {'natural': OperatingPoint('tau', tau=0.0, **common)}
    measured_taus = curve(metric.tau_areas.sum(0), prior)
    for name, criterion in CRITERIA.items():
        tau = metric.taus[best_tau(measured_taus, criterion)]
        found[name] = OperatingPoint('tau', tau=tau, **common)
    rule = metric.fit()
    advance()
    found['IoU rule'] = OperatingPoint(
        'iou', iou=tuple(rule.iou.tolist()), union=tuple(rule.union.tolist()), **common
    )
    return found


def measured(points: dict[str, OperatingPoint], metric: OperatingPointMetric) -> dict[str, Tensor]:
    """Areas (4, C) of each candidate on the metric's images, then of the metric's other rules."""
    areas = metric.tau_areas.sum(0)
    at_taus = {
        name: areas[metric.place_of(point.tau)]
        for name, point in points.items()
        if point.rule == 'tau'
    }
    return at_taus | metric.rule_areas


def measured_per_image(
    points: dict[str, OperatingPoint], metric: OperatingPointMetric
) -> dict[str, float]:
    """As :func:`measured`, but :func:`image_miou`, mean over the images."""
    at_taus = {
        name: float(metric.tau_image_miou[metric.place_of(point.tau)])
        for name, point in points.items()
        if point.rule == 'tau'
    }
    return at_taus | metric.rule_image_miou


def cross_fitted(
    metric: OperatingPointMetric, advance: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    """Areas (4, C) of each criterion, chosen on all folds but one and measured on that one.

    The taus are measured on every pixel, the IoU rule on the sample, whose weights make its areas
    unbiased. Rules that need no choice follow as they are. ``advance`` is called after each fold.
    """
    prior = metric.prior
    total = {
        name: torch.zeros_like(metric.tau_areas[0, 0])
        for name in ('natural', *CRITERIA, 'IoU rule')
    }
    whole = metric.tau_areas.sum(0)
    for fold, areas in enumerate(metric.tau_areas):
        of_others = curve(whole - areas, prior)
        total['natural'] += areas[metric.place_of(0.0)]
        for name, criterion in CRITERIA.items():
            total[name] += areas[best_tau(of_others, criterion)]
        rule = metric.fit(left_out=fold)
        sample = metric.sample(fold.__eq__)
        decision = iou_scores(sample.posterior, rule.iou, rule.union).argmax(1)
        total['IoU rule'] += decision_areas(
            decision, sample.label, prior.num_classes, sample.weight.double()
        )
        advance()
    return total | metric.rule_areas

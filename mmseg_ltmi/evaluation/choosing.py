"""Chooses an operating point from what OperatingPointMetric gathered."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmseg_ltmi.priors import ClassPrior

from .iou_rule import iou_scores
from .operating_point import OperatingPoint
from .operating_point_metric import OperatingPointMetric
from .per_class import class_rows, group_means, overall_means

CRITERIA = {'tau by mIoU': 'mIoU', 'tau by tail mIoU': 'mIoU_tail', 'tau by mAcc': 'mAcc'}
COLUMNS = ('mIoU', 'mIoU_head', 'mIoU_medium', 'mIoU_tail', 'mAcc')


def summary(areas: Tensor, prior: ClassPrior) -> dict[str, float]:
    """mIoU, its head, medium and tail parts, and mAcc in percent, of areas (4, C)."""
    rows = class_rows(areas, prior.classes or [str(c) for c in range(prior.num_classes)], prior)
    means = overall_means(rows) | group_means(rows)
    return {name: means.get(name, float('nan')) for name in COLUMNS}


def curve(areas: Tensor, prior: ClassPrior) -> list[dict[str, float]]:
    """:func:`summary` at each tau, from areas (T, 4, C)."""
    return [summary(at_tau, prior) for at_tau in areas]


def best_tau(areas: Tensor, prior: ClassPrior, criterion: str) -> int:
    """Place of the first tau with the highest value, from areas (T, 4, C)."""
    values = torch.tensor([row[criterion] for row in curve(areas, prior)])
    return int(values.nan_to_num(nan=-1.0).argmax())


def candidates(metric: OperatingPointMetric) -> dict[str, OperatingPoint]:
    """Natural argmax, the best tau by each criterion, and the IoU rule, by name."""
    prior = metric.prior
    common: dict[str, Any] = dict(
        classes=prior.classes or tuple(str(c) for c in range(prior.num_classes)),
        log_prior=tuple(prior.log_probs().tolist()),
    )
    found = {'natural': OperatingPoint('tau', tau=0.0, **common)}
    areas = metric.tau_areas.sum(0)
    for name, criterion in CRITERIA.items():
        tau = metric.taus[best_tau(areas, prior, criterion)]
        found[name] = OperatingPoint('tau', tau=tau, **common)
    rule = metric.fit()
    found['IoU rule'] = OperatingPoint(
        'iou', iou=tuple(rule.iou.tolist()), union=tuple(rule.union.tolist()), **common
    )
    return found


def measured(
    points: dict[str, OperatingPoint], metric: OperatingPointMetric
) -> dict[str, dict[str, float]]:
    """Each candidate on the metric's images; those that are no tau are the metric's rules."""
    areas = metric.tau_areas.sum(0)
    rules = iter(metric.rule_areas)
    return {
        name: summary(
            areas[metric.taus.index(point.tau)] if point.rule == 'tau' else next(rules),
            metric.prior,
        )
        for name, point in points.items()
    }


def cross_fitted(metric: OperatingPointMetric) -> dict[str, dict[str, float]]:
    """Each criterion chosen on all folds but one and measured on that one, over all folds.

    The taus are measured on every pixel, the IoU rule on the sample, whose weights make its areas
    unbiased.
    """
    prior = metric.prior
    total = {
        name: torch.zeros_like(metric.tau_areas[0, 0])
        for name in ('natural', *CRITERIA, 'IoU rule')
    }
    for fold, areas in enumerate(metric.tau_areas):
        others = metric.tau_areas.sum(0) - areas
        total['natural'] += areas[metric.taus.index(0.0)]
        for name, criterion in CRITERIA.items():
            total[name] += areas[best_tau(others, prior, criterion)]
        rule = metric.fit(left_out=fold)
        total['IoU rule'] += _sample_areas(metric, fold, rule.iou, rule.union)
    return {name: summary(areas, prior) for name, areas in total.items()}


def _sample_areas(metric: OperatingPointMetric, fold: int, iou: Tensor, union: Tensor) -> Tensor:
    posterior, label, _, weight = metric.sample(lambda of: of == fold)
    decision = iou_scores(posterior, iou, union).argmax(1)
    correct = decision == label
    areas = torch.zeros(4, metric.prior.num_classes, dtype=torch.float64)
    areas[0].index_add_(0, label[correct], weight[correct].double())
    areas[2].index_add_(0, decision, weight.double())
    areas[3].index_add_(0, label, weight.double())
    areas[1] = areas[2] + areas[3] - areas[0]
    return areas

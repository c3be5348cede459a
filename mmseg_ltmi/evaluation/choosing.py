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
IOU_RULE = 'IoU rule'
WITH_MEMORY = ('memory', 'memory and tau', 'memory and IoU rule')
"""What there is with a memory: at the weight of the highest mIoU with the natural argmax, at the
weight and tau of the highest mIoU, and the IoU rule at the first one's weight."""
MEMORY_FILE = 'class_memory.pth'
"""Beside the file of an operating point that needs it."""


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

    With a memory those of WITH_MEMORY too. ``advance`` is called when a rule is fitted, which takes
    long.
    """
    found = _taus(metric, metric.tau_areas.sum(0), metric.memory_areas.sum(0))
    found[IOU_RULE] = _iou_rule(metric, advance)
    if metric.memory_weights:
        # At the end, and the rule behind the taus.
        found |= {name: found.pop(name) for name in WITH_MEMORY[:2]}
        weight = found[WITH_MEMORY[0]].memory_weight
        found[WITH_MEMORY[2]] = _iou_rule(metric, advance, weight)
    return found


def _taus(metric: OperatingPointMetric, areas: Tensor, memory: Tensor) -> dict[str, OperatingPoint]:
    """The candidates that are a tau, of areas (T, 4, C) and with a memory (W, T, 4, C)."""
    prior = metric.prior
    found = {'natural': _point(metric, 'tau')}
    at_taus = curve(areas, prior)
    for name, criterion in CRITERIA.items():
        found[name] = _point(metric, 'tau', tau=metric.taus[best_tau(at_taus, criterion)])
    if metric.memory_weights:
        natural = metric.taus.index(0.0)
        weight = metric.memory_weights[best_tau(curve(memory[:, natural], prior), 'mIoU')]
        best = best_tau(curve(memory.flatten(0, 1), prior), 'mIoU')
        place, tau = divmod(best, len(metric.taus))
        both = dict(tau=metric.taus[tau], memory_weight=metric.memory_weights[place])
        found[WITH_MEMORY[0]] = _point(metric, 'tau', memory_weight=weight)
        found[WITH_MEMORY[1]] = _point(metric, 'tau', **both)
    return found


def _point(metric: OperatingPointMetric, rule: str, **more: Any) -> OperatingPoint:
    prior = metric.prior
    if more.get('memory_weight'):
        more['memory'] = MEMORY_FILE
    return OperatingPoint(rule, prior.names, tuple(prior.log_probs().tolist()), **more)


def _iou_rule(
    metric: OperatingPointMetric, advance: Callable[[], None], memory_weight: float = 0.0
) -> OperatingPoint:
    rule = metric.fit(memory_weight=memory_weight)
    advance()
    fitted = dict(iou=tuple(rule.iou.tolist()), union=tuple(rule.union.tolist()))
    return _point(metric, 'iou', **fitted, memory_weight=memory_weight)


def measured(points: dict[str, OperatingPoint], metric: OperatingPointMetric) -> dict[str, Tensor]:
    """Areas (4, C) of each candidate on the metric's images, then of the metric's other rules."""
    found = {
        name: metric.areas_at(point).sum(0) if point.rule == 'tau' else metric.rule_areas[name]
        for name, point in points.items()
    }
    return found | metric.rule_areas


def measured_per_image(
    points: dict[str, OperatingPoint], metric: OperatingPointMetric
) -> dict[str, float]:
    """As :func:`measured`, but :func:`image_miou`, mean over the images."""
    at_taus = {
        name: metric.image_miou_at(point) for name, point in points.items() if point.rule == 'tau'
    }
    return at_taus | metric.rule_image_miou


def cross_fitted(
    metric: OperatingPointMetric, advance: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    """Areas (4, C) of each criterion, chosen on all folds but one and measured on that one.

    The taus are measured on every pixel, the IoU rule on the sample, whose weights make its areas
    unbiased. Rules that need no choice follow as they are. ``advance`` is called after each fold.
    """
    names = ['natural', *CRITERIA, IOU_RULE, *(WITH_MEMORY if metric.memory_weights else ())]
    total = {name: torch.zeros_like(metric.tau_areas[0, 0]) for name in names}
    whole, with_memory = metric.tau_areas.sum(0), metric.memory_areas.sum(0)
    for fold, areas in enumerate(metric.tau_areas):
        chosen = _taus(metric, whole - areas, with_memory - metric.memory_areas[fold])
        for name, point in chosen.items():
            total[name] += metric.areas_at(point)[fold]
        total[IOU_RULE] += _rule_on_fold(metric, fold)
        if metric.memory_weights:
            weight = chosen[WITH_MEMORY[0]].memory_weight
            total[WITH_MEMORY[2]] += _rule_on_fold(metric, fold, weight)
        advance()
    return total | metric.rule_areas


def _rule_on_fold(metric: OperatingPointMetric, fold: int, memory_weight: float = 0.0) -> Tensor:
    rule = metric.fit(left_out=fold, memory_weight=memory_weight)
    sample = metric.sample(fold.__eq__)
    posterior = sample.posterior(memory_weight)
    decision = iou_scores(posterior, rule.iou, rule.union).argmax(1)
    weight = sample.weight.double()
    return decision_areas(decision, sample.label, metric.prior.num_classes, weight)

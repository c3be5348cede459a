"""Chooses an operating point from what OperatingPointMetric gathered."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmseg_ltmi.core.posterior import OperatingPoint
from mmseg_ltmi.core.priors import ClassPrior
from mmseg_ltmi.readings import CRITERIA, IOU_RULE, MEMORY_FILE, WITH_MEMORY

from .area_rows import class_rows
from .operating_point_metric import OperatingPointMetric, mean_iou
from .per_class import summary

AIM_AT_MIOU = ('natural', 'tau by mIoU', IOU_RULE, *WITH_MEMORY)
"""The candidates that do, from the simplest on."""
WORTH_IT = 0.1
"""mIoU in percent that a reading must gain over a simpler one."""


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
    metric: OperatingPointMetric,
    advance: Callable[[], None] = lambda: None,
    left_out: int | None = None,
) -> dict[str, OperatingPoint]:
    """Natural argmax, the best tau by each criterion, and the IoU rule, by name.

    With a memory those of WITH_MEMORY too.

    Args:
        metric: what the images gave.
        advance: is called when a rule is fitted, which takes long.
        left_out: number of a fold that has no say.
    """
    wanted = torch.arange(metric.folds) != (-1 if left_out is None else left_out)
    areas, memory = metric.tau_areas[wanted].sum(0), metric.memory_areas[wanted].sum(0)
    found = _taus(metric, areas, memory)
    found[IOU_RULE] = _iou_rule(metric, advance, left_out)
    if metric.memory_weights:
        # At the end, and the rule behind the taus.
        found |= {name: found.pop(name) for name in WITH_MEMORY[:2]}
        weight = found[WITH_MEMORY[0]].memory_weight
        found[WITH_MEMORY[2]] = _iou_rule(metric, advance, left_out, weight)
    return found


def candidates_of_folds(
    metric: OperatingPointMetric, advance: Callable[[], None] = lambda: None
) -> list[dict[str, OperatingPoint]]:
    """The candidates of each fold, chosen on all the others. ``advance`` is called after each."""
    found = []
    for fold in range(metric.folds):
        found.append(candidates(metric, left_out=fold))
        advance()
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
    metric: OperatingPointMetric,
    advance: Callable[[], None],
    left_out: int | None,
    memory_weight: float = 0.0,
) -> OperatingPoint:
    rule = metric.fit(left_out, memory_weight)
    advance()
    fitted = dict(iou=tuple(rule.iou.tolist()), union=tuple(rule.union.tolist()))
    return _point(metric, 'iou', **fitted, memory_weight=memory_weight)


def measured(points: dict[str, OperatingPoint], metric: OperatingPointMetric) -> dict[str, Tensor]:
    """Areas (4, C) of each candidate on the metric's images, then of the metric's other rules.

    A candidate that is one of the metric's rules is taken from there, another one is a tau.
    """
    found = metric.rule_areas
    return {
        name: found[name] if name in found else metric.areas_at(points[name]).sum(0)
        for name in points | found
    }


def measured_per_image(
    points: dict[str, OperatingPoint], metric: OperatingPointMetric
) -> dict[str, float]:
    """As :func:`measured`, but :func:`image_miou`, mean over the images."""
    found = metric.rule_image_miou
    return {
        name: found[name] if name in found else metric.image_miou_at(points[name])
        for name in points | found
    }


def cross_fitted(
    metric: OperatingPointMetric, of_folds: list[dict[str, OperatingPoint]]
) -> dict[str, Tensor]:
    """Areas (4, C) of each candidate, chosen on all folds but one and measured on that one.

    The taus are measured on every pixel, the IoU rule on the sample, whose weights make its areas
    unbiased. Rules that need no choice follow as they are.

    Args:
        metric: what the images gave.
        of_folds: of :func:`candidates_of_folds`.
    """
    total: dict[str, Any] = dict.fromkeys(of_folds[0], 0.0)
    for fold, points in enumerate(of_folds):
        sample = metric.sample(fold.__eq__)
        for name, point in points.items():
            if point.rule == 'tau':
                total[name] += metric.areas_at(point)[fold]
            else:
                total[name] += sample.areas(sample.decide(point))
    return total | metric.rule_areas


def estimates(
    metric: OperatingPointMetric, of_folds: list[dict[str, OperatingPoint]]
) -> dict[str, tuple[float, float]]:
    """Cross-fitted mIoU of the candidates that aim at it, for two class frequencies, in percent.

    The first is for the classes as they are on these images. The second is for classes as frequent
    as in the metric's prior: each pixel counts ``pi_c / share of class c``, but at most tenfold, so
    that a few pixels do not decide. A reading that is good only at the frequencies that it was
    chosen at falls behind in the second.

    Args:
        metric: what the images gave.
        of_folds: of :func:`candidates_of_folds`.
    """
    labelled = metric.image_labels.sum(0)
    as_in_prior = (metric.prior.probs(0) / (labelled / labelled.sum())).clamp(max=10)
    samples = [metric.sample(fold.__eq__) for fold in range(metric.folds)]

    def miou(name: str) -> tuple[float, float]:
        decided = [
            (sample, sample.decide(points[name]))
            for sample, points in zip(samples, of_folds, strict=True)
        ]
        as_it_is, in_prior = (
            torch.stack([sample.areas(decision, factor) for sample, decision in decided]).sum(0)
            for factor in (None, as_in_prior)
        )
        return mean_iou(as_it_is), mean_iou(in_prior)

    return {name: miou(name) for name in AIM_AT_MIOU if name in of_folds[0]}


def best_estimate(estimates: dict[str, tuple[float, float]]) -> str:
    """The candidate that gains most over the natural argmax where it gains less of the two.

    They are gone through from simple to complex, and one takes the place of the best so far if it
    gains a tenth of a point more.

    Args:
        estimates: of :func:`estimates`; without any it is the natural argmax.
    """
    best, best_gain = 'natural', 0.0
    for name, values in estimates.items():
        gain = min(value - base for value, base in zip(values, estimates['natural'], strict=True))
        if gain >= best_gain + WORTH_IT:
            best, best_gain = name, gain
    return best


class FrequencyShift(NamedTuple):
    """How far a split's class frequencies are from those of a prior.

    Attributes:
        share: of the pixels that would have to be of other classes, 0..1: the total variation
            distance.
        by_chance: what is expected of so many images that are drawn as those of the prior.
        most: the class whose share differs most.
    """

    share: float
    by_chance: float
    most: int

    @property
    def drawn_alike(self) -> bool:
        """Whether the difference is at most three times what chance makes of so many images.

        For CamVid's drives it is 7 to 24 times that, for NYUv2's val and test split twice
        (docs/experiments/nyuv2.md).
        """
        return self.share <= 3 * self.by_chance


def frequency_shift(image_labels: Tensor, prior: ClassPrior) -> FrequencyShift:
    """Compare the label pixels of images (images, C) with a prior."""
    pixels = image_labels.double()
    total, number = pixels.sum(), len(pixels)
    share = pixels.sum(0) / total
    difference = (share - prior.probs(0)).abs()
    # The standard error of a ratio of sums over images, and the mean of a normal's magnitude.
    residual = pixels - share * pixels.sum(1, keepdim=True)
    error = (residual.square().sum(0) * number / max(number - 1, 1)).sqrt() / total
    by_chance = math.sqrt(2 / math.pi) * error.sum() / 2
    return FrequencyShift(float(difference.sum() / 2), float(by_chance), int(difference.argmax()))

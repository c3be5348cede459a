"""Everything that choosing an operating point needs, gathered in one evaluation pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmseg_ltmi.core.posterior import (
    IoURule,
    OperatingPoint,
    areas_over_taus,
    class_scores,
    decide_by_iou,
    decision_areas,
    fit_iou_rule,
    image_miou,
    labels_or_spare,
)
from mmseg_ltmi.core.priors import ClassPrior

from .posterior_sample import PosteriorDraw, PosteriorSample

TAUS = tuple(i / 20 for i in range(21))
MEMORY_WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5)


def mean_iou(areas: Tensor) -> float:
    """mIoU in percent of areas (4, C), over the classes that have a label."""
    return float(class_scores(areas)[0].nanmean())


class DecisionRule(Protocol):
    """A decision on natural log-posteriors: an OperatingPoint, or a peer's.

    One with a ``memory_weight`` is shown the sum of both log-posteriors, the memory's times that.
    """

    def decide(self, log_posterior: Tensor) -> Tensor:
        """(C, H, W) to classes (H, W)."""


class OperatingPointMetric(BaseMetric):
    """Areas at each tau, those of given rules, and a sample of the posteriors.

    Predictions are read as natural log-posterior. Those that have ``memory_logits`` too, the
    log-posterior of a memory, are measured at each weight of it and tau.

    The images are split into ``folds`` blocks of neighbours, so that frames of one clip stay
    together.

    Args:
        prior: C classes.
        num_images: images that will be seen.
        rules: decisions to measure as they are, by name.
        folds: K; there are no more than images with labels.
        taus: ascending values of ``tau_test``.
        memory_weights: ascending weights of a memory to measure at each tau, above 0; () for none.
        max_values: posteriors that are kept at most, pixels times classes, by a PosteriorDraw; 0
            keeps none, and no IoU rule can be fitted.
        ignore_index: label that takes no part.
        seed: of the sample.

    Attributes:
        tau_areas: float64 (K, T, 4, C), as in :func:`areas_over_taus`. This and the following are
            there after ``evaluate``, on rank 0, and hold the images of all ranks.
        memory_areas: float64 (K, W, T, 4, C), likewise at each of the ``memory_weights``.
        image_labels: float64 (images, C), label pixels of each image.
        rule_areas: float64 (4, C) of each rule, by name.
        tau_image_miou: float64 (T,), :func:`image_miou` at each tau, mean over the images.
        memory_image_miou: float64 (W, T), likewise.
        rule_image_miou: the same of each rule, by name.

    Raises:
        ValueError: more folds than images, or room for less than a pixel of an image.
    """

    tau_areas: Tensor
    memory_areas: Tensor
    image_labels: Tensor
    rule_areas: dict[str, Tensor]
    tau_image_miou: Tensor
    memory_image_miou: Tensor
    rule_image_miou: dict[str, float]

    def __init__(
        self,
        prior: ClassPrior,
        num_images: int,
        rules: Mapping[str, DecisionRule] | None = None,
        folds: int = 1,
        taus: Sequence[float] = TAUS,
        memory_weights: Sequence[float] = (),
        max_values: int = 2**25,
        ignore_index: int = 255,
        seed: int = 0,
    ) -> None:
        super().__init__(collect_device='cpu', prefix='operating_point')
        if not 1 <= folds <= num_images:
            raise ValueError(f'folds={folds} of {num_images} images: use 1 to {num_images}')
        self.prior = prior
        self.log_prior = prior.log_probs()
        self.rules = dict(rules or {})
        self.folds = folds
        self.taus = tuple(taus)
        self.memory_weights = tuple(memory_weights)
        self.ignore_index = ignore_index
        self.draw = PosteriorDraw(prior.num_classes, num_images, max_values, seed)
        self._samples: list[PosteriorSample] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Store the areas (T + W T + rules, 4, C) of each image, and its part of the sample."""
        for sample in data_samples:
            logits = sample['seg_logits']['data']
            if logits.shape[0] != self.prior.num_classes:
                raise ValueError(
                    f'an operating point needs a score per class: the head gives '
                    f'{logits.shape[0]} channels for {self.prior.num_classes} classes'
                )
            label = sample['gt_sem_seg']['data'].squeeze(0).to(logits.device).long()
            known = labels_or_spare(label.flatten(), len(logits), self.ignore_index)
            memory = sample['memory_logits']['data'] if 'memory_logits' in sample else logits[:0]

            def at(weight: float, logits: Tensor = logits, memory: Tensor = memory) -> Tensor:
                return logits + weight * memory if weight else logits

            areas = [
                areas_over_taus(at(weight), label, self.log_prior, self.taus, self.ignore_index)
                for weight in (0.0, *self.memory_weights)
            ]
            for rule in self.rules.values():
                decision = rule.decide(at(getattr(rule, 'memory_weight', 0.0))).flatten()
                areas.append(decision_areas(decision, known, len(logits))[None])
            # Exact, and half of float64: there is one for every image.
            self.results.append((torch.cat(areas).cpu().int(), self.draw(logits, memory, known)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Nothing to log: the attributes are the result. ``results`` are those of all ranks."""
        num_taus, num_weights = len(self.taus), len(self.memory_weights)
        num_points = num_taus * (1 + num_weights)
        grid = num_weights, num_taus
        areas = torch.stack([areas for areas, _ in results]).double()
        self._samples = [PosteriorSample(*sample) for _, sample in results]
        self.image_labels = areas[:, 0, 3]
        labelled = (self.image_labels.sum(1) > 0).long()
        number = max(int(labelled.sum()), 1)
        self.folds = min(self.folds, number)
        # In blocks of as many labelled images, so that none has all of the labels.
        before = labelled.cumsum(0) - labelled
        self._fold_of_images = (before * self.folds // number).clamp(max=self.folds - 1)
        of_points = areas.new_zeros(self.folds, num_points, *areas.shape[2:])
        of_points.index_add_(0, self._fold_of_images, areas[:, :num_points])
        self.tau_areas = of_points[:, :num_taus]
        self.memory_areas = of_points[:, num_taus:].unflatten(1, grid)
        of_rules = areas[:, num_points:].sum(0)
        self.rule_areas = dict(zip(self.rules, of_rules, strict=True))
        miou = image_miou(areas).nanmean(0)
        self.tau_image_miou = miou[:num_taus]
        self.memory_image_miou = miou[num_taus:num_points].view(grid)
        self.rule_image_miou = dict(zip(self.rules, miou[num_points:].tolist(), strict=True))
        return {}

    def areas_at(self, point: OperatingPoint) -> Tensor:
        """float64 (K, 4, C) of an operating point that is a tau, with a memory or without."""
        tau = _place(point.tau, self.taus)
        if not point.memory_weight:
            return self.tau_areas[:, tau]
        return self.memory_areas[:, _place(point.memory_weight, self.memory_weights), tau]

    def image_miou_at(self, point: OperatingPoint) -> float:
        """:func:`image_miou` of an operating point that is a tau, mean over the images."""
        tau = _place(point.tau, self.taus)
        if not point.memory_weight:
            return float(self.tau_image_miou[tau])
        weight = _place(point.memory_weight, self.memory_weights)
        return float(self.memory_image_miou[weight, tau])

    def fit(self, left_out: int | None = None, memory_weight: float = 0.0) -> IoURule:
        """The IoU rule of the sample, without the pixels of one fold.

        Its areas are expected under the posterior, at the temperature that calibrates it. Counting
        them with the labels is worse: docs/experiments/iou_rule.md. If the labels say that it is
        worse than argmax on these pixels, the rule is argmax.

        Args:
            left_out: number of that fold.
            memory_weight: of the memory whose posterior it decides on.

        Raises:
            ValueError: nothing was kept, or no label of a class.
        """
        if not self.draw.pixels_per_image:
            raise ValueError('the IoU rule needs kept posteriors, but max_values is 0')
        sample = self.sample(lambda fold: fold != left_out)
        posterior = sample.posterior(memory_weight)
        calibrated = sample.posterior(memory_weight, sample.temperature(memory_weight))
        rule = fit_iou_rule(posterior, calibrated, self.prior.probs(), sample.weight)
        decisions = decide_by_iou(posterior, rule.iou, rule.union), posterior.argmax(1)
        by_rule, by_argmax = (mean_iou(sample.areas(decision)) for decision in decisions)
        return rule if by_rule >= by_argmax else rule.as_argmax()

    def sample(self, wanted: Callable[[int], bool]) -> PosteriorSample:
        """The kept pixels of the folds that are wanted."""
        folds = self._fold_of_images.tolist()
        parts = [part for part, fold in zip(self._samples, folds, strict=True) if wanted(fold)]
        return PosteriorSample.joined(parts)


def _place(value: float, values: Sequence[float]) -> int:
    # Rounding does not matter.
    return min(range(len(values)), key=lambda i: abs(values[i] - value))

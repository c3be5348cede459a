"""Everything that choosing an operating point needs, gathered in one evaluation pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmseg_ltmi.priors import ClassPrior

from .areas import decision_areas, image_miou, with_spare
from .iou_rule import IoURule, fit_iou_rule
from .tau_sweep import areas_over_taus

TAUS = tuple(i / 20 for i in range(21))


class Rule(Protocol):
    """A decision on natural log-posteriors: an OperatingPoint, or a peer's."""

    def decide(self, log_posterior: Tensor) -> Tensor:
        """(C, H, W) to classes (H, W)."""


class OperatingPointMetric(BaseMetric):
    """Areas at each tau, those of given rules, and a sample of the posteriors.

    Predictions are read as natural log-posterior. The images are split into ``folds`` blocks of
    neighbours, so that frames of one clip stay together. The sample bounds the memory: each image
    may keep its share of ``max_values / C`` pixels, divided among the classes that it holds, and a
    kept pixel stands for as many as its class has there in proportion, so that sums are unbiased
    and rare classes are kept whole.

    Args:
        prior: C classes.
        num_images: images that will be seen.
        rules: decisions to measure as they are, by name.
        folds: K.
        taus: ascending values of ``tau_test``.
        max_values: posteriors that are kept at most, pixels times classes; 0 keeps none, and no
            IoU rule can be fitted.
        ignore_index: label that takes no part.
        seed: of the sample.

    Attributes:
        tau_areas: float64 (K, T, 4, C), as in :func:`areas_over_taus`.
        rule_areas: float64 (4, C) of each rule, by name.
        tau_image_miou: float64 (T,), :func:`image_miou` at each tau, mean over the images.
        rule_image_miou: the same of each rule, by name.

    Raises:
        ValueError: more folds than images, or room for less than a pixel of an image.
    """

    def __init__(
        self,
        prior: ClassPrior,
        num_images: int,
        rules: Mapping[str, Rule] | None = None,
        folds: int = 1,
        taus: Sequence[float] = TAUS,
        max_values: int = 2**25,
        ignore_index: int = 255,
        seed: int = 0,
    ) -> None:
        super().__init__(collect_device='cpu', prefix='operating_point')
        if not 1 <= folds <= num_images:
            raise ValueError(f'folds={folds} of {num_images} images: use 1 to {num_images}')
        if 0 < max_values < num_images * prior.num_classes:
            raise ValueError(
                f'max_values={max_values} has no room for a pixel of each of {num_images} images, '
                f'{prior.num_classes} values each: give {num_images * prior.num_classes} or more'
            )
        self.prior = prior
        self.log_prior = prior.log_probs()
        self.num_images = num_images
        self.rules = dict(rules or {})
        self.folds = folds
        self.taus = tuple(taus)
        self.pixels_per_image = max_values // prior.num_classes // num_images
        self.ignore_index = ignore_index
        self.generator = torch.Generator().manual_seed(seed)
        shape = (4, prior.num_classes)
        self.tau_areas = torch.zeros(folds, len(self.taus), *shape, dtype=torch.float64)
        self.rule_areas = {name: self.tau_areas.new_zeros(shape) for name in self.rules}
        self._image_miou: list[Tensor] = []
        self._sample: list[tuple[Tensor, Tensor, Tensor, int]] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Take in the predictions of a batch."""
        for sample in data_samples:
            logits = sample['seg_logits']['data']
            if logits.shape[0] != self.prior.num_classes:
                raise ValueError(
                    f'an operating point needs a score per class: the head gives '
                    f'{logits.shape[0]} channels for {self.prior.num_classes} classes'
                )
            label = sample['gt_sem_seg']['data'].squeeze(0).to(logits.device).long()
            fold = len(self.results) * self.folds // self.num_images
            at_taus = areas_over_taus(
                logits, label, self.log_prior, self.taus, self.ignore_index
            ).cpu()
            self.tau_areas[fold] += at_taus
            known = with_spare(label.flatten(), len(logits), self.ignore_index)
            of_rules = []
            for name, rule in self.rules.items():
                decision = rule.decide(logits).flatten()
                of_rules.append(decision_areas(decision, known, len(logits)).cpu())
                self.rule_areas[name] += of_rules[-1]
            self._image_miou.append(image_miou(torch.stack([*at_taus, *of_rules])))
            if self.pixels_per_image:
                self._keep(logits, known, fold)
            self.results.append(None)

    def _keep(self, logits: Tensor, label: Tensor, fold: int) -> None:
        place = (label < len(logits)).nonzero()[:, 0]
        label = label[place]
        count = label.bincount(minlength=self.prior.num_classes)
        room = self.pixels_per_image / (count > 0).sum().clamp(min=1)
        chance = (room / count[label]).clamp(max=1)
        draw = torch.rand(len(chance), generator=self.generator).to(chance.device)
        kept = draw < chance
        posterior = logits.flatten(1)[:, place[kept]].float().softmax(0).T
        self._sample.append((posterior.cpu(), label[kept].cpu(), 1 / chance[kept].cpu(), fold))

    @property
    def tau_image_miou(self) -> Tensor:
        """See the class."""
        return torch.stack(self._image_miou).nanmean(0)[: len(self.taus)]

    @property
    def rule_image_miou(self) -> dict[str, float]:
        """See the class."""
        means = torch.stack(self._image_miou).nanmean(0)[len(self.taus) :]
        return dict(zip(self.rules, means.tolist(), strict=True))

    def fit(self, left_out: int | None = None) -> IoURule:
        """The IoU rule of the sample, without the pixels of one fold.

        Raises:
            ValueError: nothing was kept.
        """
        if not self.pixels_per_image:
            raise ValueError('the IoU rule needs kept posteriors, but max_values is 0')
        return fit_iou_rule(*self.sample(lambda fold: fold != left_out))

    def sample(self, wanted: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Posterior, label, prior and weight of the kept pixels whose fold is wanted."""
        parts = [part for part in self._sample if wanted(part[3])]
        posterior, label, weight = (
            torch.cat(column) for column in list(zip(*parts, strict=True))[:3]
        )
        return posterior, label, self.prior.probs(), weight

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Nothing to log: the attributes are the result."""
        return {}

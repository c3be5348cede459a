"""A sample of a network's posteriors, and what can be said of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from mmseg_ltmi.core.posterior import OperatingPoint, calibrating_temperature, decision_areas


class PosteriorSample(NamedTuple):
    """Posteriors of some pixels.

    Attributes:
        log_posterior: float32 (M, C), natural, of the classifier.
        memory: float32 (M, C), log-posterior of a memory; (M, 0) without one.
        label: int64 (M,), classes.
        weight: float32 (M,), pixels that each one stands for.
    """

    log_posterior: Tensor
    memory: Tensor
    label: Tensor
    weight: Tensor

    @classmethod
    def joined(cls, parts: Iterable[PosteriorSample]) -> PosteriorSample:
        """The pixels of several samples."""
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def scores(self, memory_weight: float = 0.0) -> Tensor:
        """Sum of both log-posteriors, float32 (M, C), the memory's times this weight."""
        scores = self.log_posterior
        return scores + memory_weight * self.memory if memory_weight else scores

    def posterior(self, memory_weight: float = 0.0, temperature: float = 1.0) -> Tensor:
        """float32 (M, C), pooled with a memory of this weight."""
        return (self._pooled(memory_weight) / temperature).softmax(1)

    def temperature(self, memory_weight: float = 0.0) -> float:
        """The one that calibrates the posterior that is pooled with a memory of this weight."""
        return calibrating_temperature(self._pooled(memory_weight), self.label, self.weight)

    def _pooled(self, memory_weight: float) -> Tensor:
        return self.scores(memory_weight) / (1 + memory_weight)

    def calibration(self, memory_weight: float = 0.0, bins: int = 15) -> Calibration:
        """Of the natural posterior, with a memory of this weight."""
        posterior, weight = self.posterior(memory_weight), self.weight.double()
        own = posterior.gather(1, self.label[:, None])[:, 0]
        log_loss = -own.clamp(min=torch.finfo(own.dtype).tiny).log().double() @ weight
        confidence, decision = posterior.max(1)
        gap = (confidence.double() - (decision == self.label).double()) * weight
        of_bin = (confidence * bins).long().clamp(max=bins - 1)
        error = torch.zeros(bins, dtype=torch.float64).index_add_(0, of_bin, gap).abs().sum()
        return Calibration(float(log_loss / weight.sum()), float(100 * error / weight.sum()))

    def decide(self, point: OperatingPoint) -> Tensor:
        """Classes, int64 (M,), by an operating point with a memory or without."""
        return point.decide(self.scores(point.memory_weight).T)

    def areas(self, decision: Tensor, factor: Tensor | None = None) -> Tensor:
        """float64 (4, C), as in :func:`decision_areas`.

        Args:
            decision: int64 (M,), classes.
            factor: (C,) how often a pixel of each class counts; None is once.
        """
        weight = self.weight.double()
        if factor is not None:
            weight = weight * factor.double()[self.label]
        return decision_areas(decision, self.label, self.log_posterior.shape[1], weight)


class Calibration(NamedTuple):
    """How far a posterior can be believed.

    Attributes:
        log_loss: mean of ``-log p`` of the right class, in nats.
        error: expected calibration error in percent, over 15 bins of the highest probability (Guo
            et al., ICML 2017): how far that probability is from the share of right decisions.
    """

    log_loss: float
    error: float


class PosteriorDraw:
    """Draws pixels of images, few enough for a bound on the memory.

    Each image may keep its share of ``max_values / C`` pixels, divided among the classes that it
    holds. A kept pixel stands for as many as its class has there in proportion, so that sums are
    unbiased and rare classes are kept whole.

    Args:
        num_classes: C.
        num_images: images that will be seen.
        max_values: posteriors that are kept at most, pixels times classes; 0 keeps none.
        seed: of the draw.

    Raises:
        ValueError: room for less than a pixel of an image.
    """

    def __init__(self, num_classes: int, num_images: int, max_values: int, seed: int = 0) -> None:
        if 0 < max_values < num_images * num_classes:
            raise ValueError(
                f'max_values={max_values} has no room for a pixel of each of {num_images} images, '
                f'{num_classes} values each: give {num_images * num_classes} or more'
            )
        self.pixels_per_image = max_values // num_classes // num_images
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor, memory: Tensor, label: Tensor) -> PosteriorSample:
        """Pixels of an image.

        Args:
            logits: (C, H, W), natural log-posterior.
            memory: (C, H, W), log-posterior of a memory; (0, H, W) without one.
            label: int64 (H*W,), classes; C takes no part.
        """
        if not self.pixels_per_image:
            nothing = torch.empty(0, len(logits))
            return PosteriorSample(
                nothing, torch.empty(0, len(memory)), label[:0].cpu(), torch.empty(0)
            )
        place = (label < len(logits)).nonzero()[:, 0]
        label = label[place]
        count = label.bincount(minlength=len(logits))
        room = self.pixels_per_image / (count > 0).sum().clamp(min=1)
        chance = (room / count[label]).clamp(max=1)
        draw = torch.rand(len(chance), generator=self.generator).to(chance.device)
        kept = draw < chance
        scores = logits.flatten(1)[:, place[kept]].float().log_softmax(0).T
        added = memory.flatten(1)[:, place[kept]].float().T
        weight = 1 / chance[kept]
        return PosteriorSample(scores.cpu(), added.cpu(), label[kept].cpu(), weight.cpu())

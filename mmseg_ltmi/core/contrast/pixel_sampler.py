"""Which pixels become queries, and the class distribution that this choice makes.

Every sampler draws with replacement and returns a fixed number of pixels, so that the ranks of a
distributed run agree on shapes without talking; a draw that could not be filled carries the label
``-1``, which contributes nothing downstream.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class PixelSample(NamedTuple):
    """Drawn pixels.

    Attributes:
        pixel: int64 (N,), index into the flattened (B*H*W) map.
        labels: int64 (N,), the class of each, -1 where nothing could be drawn.
        log_prior: float32 (C,), log class distribution of what the sampler draws.
    """

    pixel: Tensor
    labels: Tensor
    log_prior: Tensor


class UniformPixelSampler(nn.Module):
    """Valid pixels, all equally likely: the queries follow the class prior.

    Args:
        num_samples: N, pixels drawn from a batch (on each rank).
        told_prior: distribution that the loss is told: 'drawn', the one of the draw, as the method
            wants it; 'data', the class prior, or 'uniform', to see what a mismatch does.

    Raises:
        ValueError: ``num_samples`` below 1, an unknown ``told_prior``.
    """

    needs_logits = False

    def __init__(self, num_samples: int = 512, told_prior: str = 'drawn') -> None:
        super().__init__()
        if num_samples < 1:
            raise ValueError(f'{type(self).__name__}.num_samples is {num_samples}: draw at least 1')
        if told_prior not in ('drawn', 'data', 'uniform'):
            raise ValueError(
                f"{type(self).__name__}.told_prior is {told_prior!r}: use 'drawn', 'data' or "
                "'uniform'"
            )
        self.num_samples = num_samples
        self.told_prior = told_prior

    @torch.no_grad()
    def forward(
        self, labels: Tensor, class_log_prior: Tensor, logits: Tensor | None = None
    ) -> PixelSample:
        """Draw pixels.

        Args:
            labels: int64 (B, H, W); what is outside 0..C-1 is not drawn.
            class_log_prior: float32 (C,), the pixel-level log-prior of the data.
            logits: (B, C, H, W) raw scores, for samplers with ``needs_logits``.
        """
        num_classes = class_log_prior.numel()
        flat = labels.flatten()
        valid = (flat >= 0) & (flat < num_classes)
        weight = self._weights(flat.where(valid, num_classes), num_classes, logits)
        weight = weight.double() * valid
        # Inverse transform sampling: unlike torch.multinomial it has no limit on the number of
        # pixels and needs no answer from the device.
        cumulative = weight.cumsum(0)
        position = torch.rand(self.num_samples, dtype=torch.float64, device=labels.device)
        index = torch.searchsorted(cumulative, position * cumulative[-1], right=True)
        index = index.clamp(max=flat.numel() - 1)
        drawn = flat[index].where(valid[index], -1)
        told = {'data': class_log_prior, 'uniform': _uniform(class_log_prior)}.get(
            self.told_prior, self._log_prior(class_log_prior)
        )
        return PixelSample(index, drawn, told)

    def _weights(self, labels: Tensor, num_classes: int, logits: Tensor | None) -> Tensor:
        """Relative probability (B*H*W,) of each pixel; label C marks a pixel that is not valid."""
        return torch.ones_like(labels, dtype=torch.float32)

    def _log_prior(self, class_log_prior: Tensor) -> Tensor:
        return class_log_prior


class ClassBalancedPixelSampler(UniformPixelSampler):
    """Each class of the batch equally likely, and its pixels too: a uniform distribution.

    Args:
        num_samples: N, pixels drawn from a batch (on each rank).
        told_prior: as for UniformPixelSampler.
        power: a class is drawn in proportion to its pixels in the batch to this power: 0 draws all
            alike, 0.5 by the square root, 1 as UniformPixelSampler. The loss is told the class
            prior to this power, as if each batch had the classes of the train set.

    Raises:
        ValueError: as UniformPixelSampler, or ``power`` outside 0..1.
    """

    def __init__(
        self, num_samples: int = 512, told_prior: str = 'drawn', power: float = 0.0
    ) -> None:
        super().__init__(num_samples, told_prior)
        if not 0 <= power <= 1:
            raise ValueError(f'{type(self).__name__}.power is {power}: give 0 to 1')
        self.power = power

    def _weights(self, labels: Tensor, num_classes: int, logits: Tensor | None) -> Tensor:
        return self._balanced(torch.ones_like(labels, dtype=torch.float32), labels, num_classes)

    def _balanced(self, weight: Tensor, labels: Tensor, num_classes: int) -> Tensor:
        """Scale weights so that each class's sum to its pixels to the power (label C: no class)."""
        total = weight.new_zeros(num_classes + 1).index_add(0, labels, weight)
        if not self.power:  # one, of which no pixels need to be counted
            return weight / total[labels]
        count = weight.new_zeros(num_classes + 1).index_add(0, labels, torch.ones_like(weight))
        return weight * (count**self.power / total)[labels]

    def _log_prior(self, class_log_prior: Tensor) -> Tensor:
        # As a power of the prior, and not as a factor: 0 times -inf, of an absent class, is NaN.
        return (class_log_prior.exp() ** self.power).log().log_softmax(0)


class HardPixelSampler(ClassBalancedPixelSampler):
    """Class-balanced, and within a class in proportion to ``1 - p(y|x)``, so still uniform in Y.

    Args:
        num_samples: N, pixels drawn from a batch (on each rank).
        floor: hardness of a pixel that is perfectly classified; it keeps easy pixels in play.
        told_prior, power: as for ClassBalancedPixelSampler.
    """

    needs_logits = True

    def __init__(
        self,
        num_samples: int = 512,
        floor: float = 0.05,
        told_prior: str = 'drawn',
        power: float = 0.0,
    ) -> None:
        super().__init__(num_samples, told_prior, power)
        if not floor > 0:
            raise ValueError(f'HardPixelSampler.floor must be positive, but is {floor}')
        self.floor = floor

    def _weights(self, labels: Tensor, num_classes: int, logits: Tensor | None) -> Tensor:
        if logits is None:
            raise ValueError(
                "HardPixelSampler needs the head's scores (logits=): draw with "
                'ClassBalancedPixelSampler where there are none'
            )
        posterior = logits.float().softmax(1).movedim(1, -1).reshape(-1, num_classes)
        own = posterior.gather(1, labels.clamp(max=num_classes - 1)[:, None])[:, 0]
        return self._balanced((1 - own).clamp(min=0) + self.floor, labels, num_classes)


def _uniform(class_log_prior: Tensor) -> Tensor:
    return torch.full_like(class_log_prior, -math.log(class_log_prior.numel()))

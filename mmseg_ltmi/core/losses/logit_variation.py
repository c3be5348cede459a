"""Balancing logit variation, a baseline to compare with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..precision import at_least_float32
from ..priors.class_prior import occurs
from .logit_adjustment import LogitAdjustedLoss


class BLVLoss(LogitAdjustedLoss):
    """Cross-entropy of scores with noise, ``s + |n| r``, more of it on rare classes.

    ``n`` is drawn from ``N(0, sigma^2)`` for each score and clamped to ``[-bound, bound]``;
    ``r_c = -log pi_c / max(-log pi)``, the maximum over the classes that occur (an absent one has
    1). The noise is there in training only, and comes from torch's default generator.

    The noise has a positive mean, so training adds ``m r`` to the scores, with ``m = E|n|``: a
    logit adjustment of ``tau = -m / max(-log pi)``, which lowers the raw scores of rare classes.
    ``natural_shift`` gives ``m r`` back. It is exact to first order in the noise's deviation from
    its mean, which is small at the default sigma, where most draws are clamped.

    Source: Wang et al., "Balancing Logit Variation for Long-tailed Semantic Segmentation", CVPR
    2023; the absolute value, the clamping and sigma are those of the authors' code.

    Args:
        class_prior: as for LogitAdjustedLoss.
        sigma: deviation of the noise before it is clamped, > 0.
        bound: where the noise is clamped, > 0.
        zero_mean: keep the noise's sign. Its mean is then zero, and so is its part of the natural
            shift: the control that tells the noise from the adjustment that it hides. Signed noise
            varies more, and its second order is not corrected: a rare class, whose score gains
            ``log E exp(n r)``, is read up to 0.4 too low (log cosh 1, at a bound of 1).
        tau: as for LogitAdjustedLoss; the shifts are summed.
        loss_name: as for LogitAdjustedLoss.
        kwargs: the other arguments of LogitAdjustedLoss.

    Raises:
        ValueError: ``sigma`` or ``bound`` is not positive; as LogitAdjustedLoss.
    """

    def __init__(
        self,
        class_prior: Any = None,
        sigma: float = 4.0,
        bound: float = 1.0,
        zero_mean: bool = False,
        tau: float = 0.0,
        loss_name: str = 'loss_blv',
        **kwargs: Any,
    ) -> None:
        super().__init__(class_prior, tau, loss_name=loss_name, **kwargs)
        if not (0 < sigma < math.inf and 0 < bound < math.inf):
            raise ValueError(
                f'BLVLoss.sigma is {sigma} and bound is {bound}: both must be positive and finite'
            )
        self.sigma = sigma
        self.bound = bound
        self.zero_mean = zero_mean

    @property
    def noise_mean(self) -> float:
        """``m``, the mean of the noise before ``r`` scales it; 0 with ``zero_mean``."""
        if self.zero_mean:
            return 0.0
        ratio = self.bound / self.sigma
        # The half-normal's mean up to the bound, and the bound with the probability beyond it.
        inside = self.sigma * math.sqrt(2 / math.pi) * -math.expm1(-(ratio**2) / 2)
        return inside + self.bound * math.erfc(ratio / math.sqrt(2))

    def class_scale(self) -> Tensor:
        """``r``, float32 (C,), between 0 and 1."""
        log_prior = self.prior.required()
        surprise = -log_prior
        # Of one class it is 0.
        largest = surprise.where(occurs(log_prior), 0).max().clamp(min=1e-12)
        return (surprise / largest).clamp(max=1)

    def trained_shift(self) -> Tensor:
        """``m r + tau log pi`` (C,), with the noise at its mean."""
        return super().trained_shift() + self.noise_mean * self.class_scale()

    def _vary(self, pred: Tensor) -> Tensor:
        if not self.training:
            return pred
        with torch.autocast(pred.device.type, enabled=False):
            scores = at_least_float32(pred)
            noise = torch.randn_like(scores).mul_(self.sigma).clamp_(-self.bound, self.bound)
            if not self.zero_mean:
                noise = noise.abs_()
            scale = self.class_scale().to(scores)
            return scores + noise.mul_(scale.view(1, -1, *[1] * (scores.ndim - 2)))

"""Knowledge distillation between the scores of two segmentation networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .functional import distillation_loss


class DistillationLoss(nn.Module):
    """``T^2 KL(softmax(t / T) || softmax(s / T))``, the mean over valid pixels.

    The scores t and s must be of the same reading (both raw under the same prior, say). A cosine
    classifier's contain their ``1 / T_s``, so that T is the paper's 4.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531);
    with T = 4 in the code of Suh & Seo, ICML 2023 (arXiv 2305.01160).

    Args:
        temperature: T > 0.
        loss_weight: factor of the loss (alpha).

    Raises:
        ValueError: ``temperature`` is not positive or ``loss_weight`` is negative.
    """

    def __init__(self, temperature: float = 4.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f'DistillationLoss.temperature must be positive, but is {temperature}')
        if not loss_weight >= 0:
            raise ValueError(f'DistillationLoss.loss_weight is {loss_weight}: give 0 or more')
        self.temperature = temperature
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar of float32 at least.

        Args:
            student: scores s (N, C, *).
            teacher: scores t (N, C, *); no gradient flows into them.
            labels: int64 (N, *); only pixels with a label in 0..C-1 count.
        """
        valid = (labels >= 0) & (labels < student.shape[1])
        with torch.autocast(student.device.type, enabled=False):
            loss = distillation_loss(student, teacher.detach(), valid, self.temperature)
        return self.loss_weight * loss

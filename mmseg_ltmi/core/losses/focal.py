"""Focal loss over softmax scores, a baseline to compare with."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .functional import check_reduction
from .logit_adjustment import check_loss_name, named_ignore_index


class SoftmaxFocalLoss(nn.Module):
    """``(1 - p_y)^gamma * CE(s, y)``, mean over the valid pixels, as a ``loss_decode``.

    mmsegmentation's FocalLoss is a sigmoid per class and fails on a CPU. A network trained with
    this one is no natural posterior, since small errors hardly count; its scores are read as if.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4.

    Args:
        gamma: how strongly easy pixels are discounted; 0 is cross-entropy.
        loss_weight: factor of the loss.
        loss_name: name in the log; it must start with ``loss_`` to take part in the backward pass.
        ignore_index: as for LogitAdjustedLoss.

    Raises:
        ValueError: ``gamma`` is negative, or ``loss_name`` does not start with ``loss_``.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_focal',
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        check_loss_name(loss_name, 'SoftmaxFocalLoss')
        if gamma < 0:
            raise ValueError(f'SoftmaxFocalLoss.gamma must not be negative, but is {gamma}')
        self.gamma = gamma
        self.loss_weight = loss_weight
        self.loss_name = loss_name
        self.ignore_index = ignore_index

    def forward(
        self,
        pred: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """A float32 scalar of scores (N, C, H, W), labels (N, H, W) and weights (N, H, W).

        ``reduction_override='none'`` gives the loss of each pixel, as mmsegmentation's OHEM sampler
        asks for, and 'sum' their sum.

        Raises:
            ValueError: another ``reduction_override``.
        """
        reduction = reduction_override or 'mean'
        check_reduction(reduction)
        ignore_index = named_ignore_index(self, ignore_index)
        loss = cross_entropy(pred.float(), label, ignore_index=ignore_index, reduction='none')
        # The floor keeps the power's derivative finite where p_y is 1.
        loss = (1 - (-loss).exp()).clamp(min=1e-6).pow(self.gamma) * loss
        if weight is not None:
            loss = loss * weight
        if reduction == 'none':
            return self.loss_weight * loss
        if reduction == 'sum':
            return self.loss_weight * loss.sum()
        return self.loss_weight * loss.sum() / (label != ignore_index).sum().clamp(min=1)

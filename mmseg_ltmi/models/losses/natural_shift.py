"""What a loss has to say about the scores that it trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def natural_shift_of(loss: nn.Module, num_classes: int) -> Tensor | None:
    """The per-class shift that turns raw scores into the natural log-posterior.

    ``tau * log pi`` for logit adjustment, ``-log w`` for class weights, their sum for both, zero
    for plain cross-entropy.

    Args:
        loss: a loss module: one that states ``natural_shift()``, or mmsegmentation's
            CrossEntropyLoss.
        num_classes: C.

    Returns:
        float32 (C,), or None where the loss does not say (its class prior is still to be filled
        in, or its scores are no log-posterior at all, as with Dice).
    """
    stated = getattr(loss, 'natural_shift', None)
    if callable(stated):
        return stated()
    if type(loss).__name__ != 'CrossEntropyLoss' or getattr(loss, 'use_sigmoid', False):
        return None
    class_weight = getattr(loss, 'class_weight', None)
    if class_weight is None:
        return torch.zeros(num_classes)
    return -torch.as_tensor(class_weight, dtype=torch.float32).log()


def losses_of(head: nn.Module) -> list[nn.Module]:
    """The losses of a decode head's ``loss_decode``, one or several."""
    losses: Any = head.loss_decode
    return list(losses) if isinstance(losses, nn.ModuleList) else [losses]


def first_stated(losses: list[nn.Module], num_classes: int) -> tuple[nn.Module, Tensor] | None:
    """The first loss that states a shift (C,), which speaks for the head, and the shift."""
    for loss in losses:
        shift = natural_shift_of(loss, num_classes)
        if shift is not None and shift.shape == (num_classes,):
            return loss, shift
    return None

"""What turns raw scores into the natural log-posterior: of a loss, and of a head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CROSS_ENTROPIES = ('CrossEntropyLoss', 'OhemCrossEntropy')
PREDICTING = {'DDRHead': (0,), 'PIDHead': (1, 3)}
"""Heads that give each of their losses other scores, and which losses get those that predict."""


def natural_shift_of(loss: nn.Module, num_classes: int) -> Tensor | None:
    """The per-class shift that turns raw scores into the natural log-posterior.

    ``tau * log pi`` for logit adjustment, ``-log w`` for class weights, their sum for both, zero
    for plain cross-entropy. A class of weight zero is not learned: it gets the smallest shift.

    Args:
        loss: a loss module: one that states ``natural_shift()``, mmsegmentation's or torch's
            CrossEntropyLoss, or mmsegmentation's OhemCrossEntropy with class weights.
        num_classes: C.

    Returns:
        float32 (C,), or None where the loss does not say (its class prior is still to be filled
        in, or its scores are no log-posterior at all, as with Dice).

    Raises:
        ValueError: class weights that are negative, not finite or all zero.
    """
    stated = getattr(loss, 'natural_shift', None)
    if callable(stated):
        return stated()
    name = type(loss).__name__
    if name not in CROSS_ENTROPIES or getattr(loss, 'use_sigmoid', False):
        return None
    class_weight = getattr(loss, 'class_weight', getattr(loss, 'weight', None))
    if class_weight is None:
        return torch.zeros(num_classes) if name == 'CrossEntropyLoss' else None
    if isinstance(class_weight, str):  # a file, which OhemCrossEntropy does not read
        return None
    weight = torch.as_tensor(class_weight, dtype=torch.float32)
    # Not on a GPU, which each training step would wait for: a head is built on the CPU.
    if not weight.is_cuda and not ((weight.isfinite() & (weight >= 0)).all() and weight.any()):
        raise ValueError(
            f'{type(loss).__name__}.class_weight must be finite numbers of at least 0, and one of '
            f'them above it, but is {class_weight!r:.200}'
        )
    return -weight.where(weight > 0, weight.max()).log()


def losses_of(head: nn.Module) -> list[nn.Module]:
    """The losses of a decode head's ``loss_decode``, one or several.

    A mask classifier has ``loss_cls`` instead, K-Net's head the losses of the one that it wraps.
    """
    losses: Any = getattr(head, 'loss_decode', None)
    if losses is None:
        wrapped = getattr(head, 'kernel_generate_head', None)
        losses = head.loss_cls if wrapped is None else wrapped.loss_decode
    return list(losses) if isinstance(losses, nn.ModuleList) else [losses]


def predicting_losses_of(head: nn.Module) -> list[nn.Module]:
    """Of :func:`losses_of` those that train the scores by which the head predicts.

    DDRHead and PIDHead have losses of auxiliary branches and of a boundary beside them.
    """
    losses = losses_of(head)
    places = (PREDICTING[c.__name__] for c in type(head).__mro__ if c.__name__ in PREDICTING)
    return [losses[i] for i in next(places, range(len(losses))) if i < len(losses)]


def stated_shift(losses: list[nn.Module], num_classes: int) -> Tensor | None:
    """The shift (C,) of the first loss that states one, which speaks for the head.

    A loss of weight 0 trains nothing and says nothing.
    """
    for loss in losses:
        if getattr(loss, 'loss_weight', 1) == 0:
            continue
        shift = natural_shift_of(loss, num_classes)
        if shift is not None and shift.shape in ((num_classes,), (num_classes + 1,)):
            return shift[:num_classes]  # a mask classifier's last class is "no object"
    return None


def natural_shift_of_head(head: nn.Module, num_classes: int) -> Tensor | None:
    """The natural shift of a decode head, whatever its kind.

    An LTMI head has a ScoreReader that learned the shift in training or from a checkpoint. A stock
    head's losses state it.

    Args:
        head: a module with ``loss_decode``, and a ``score_reader`` if it is an LTMI head.
        num_classes: C.

    Returns:
        float32 (C,), or None where nothing says it.
    """
    reader = getattr(head, 'score_reader', None)
    if reader is not None and not reader.natural_shift.isnan().any():
        return reader.natural_shift
    return stated_shift(predicting_losses_of(head), num_classes)

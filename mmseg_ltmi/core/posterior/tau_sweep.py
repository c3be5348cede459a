"""Areas at many values of ``tau_test`` for little more than the price of two."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..priors.class_prior import balancing_shift
from .areas import decision_areas, labels_or_spare


def areas_over_taus(
    logits: Tensor, label: Tensor, log_prior: Tensor, taus: Sequence[float], ignore_index: int = 255
) -> Tensor:
    """Areas of the decisions ``argmax_c s_c - tau * log pi_c``, by :func:`balancing_shift`.

    The scores of a pixel are lines in tau, and the winner is their upper envelope: a class wins on
    one interval. So a pixel that decides alike at two values decides alike between them, and only
    those that do not are looked at again, by bisection.

    Args:
        logits: (C, ...) natural log-posterior up to a constant per pixel.
        label: int64 (...), class or ``ignore_index``.
        log_prior: (C,), finite.
        taus: T values, ascending.
        ignore_index: label that takes no part, nor does one outside 0..C-1.

    Returns:
        float64 (T, 4, C): intersection, union, prediction and label pixels.

    Raises:
        ValueError: ``taus`` are empty or not ascending.
    """
    taus = list(taus)
    if not taus or any(a >= b for a, b in zip(taus, taus[1:], strict=False)):
        raise ValueError(f'taus must ascend, but are {taus}')
    num_classes = logits.shape[0]
    scores, label = logits.reshape(num_classes, -1), label.reshape(-1)
    balancing = balancing_shift(log_prior).to(logits)
    areas = torch.zeros(len(taus), 4, num_classes, dtype=torch.float64, device=logits.device)

    def decide(scores: Tensor, label: Tensor, place: int, dim: int) -> Tensor:
        if taus[place]:
            shift = taus[place] * balancing
            scores = scores + (shift[:, None] if dim == 0 else shift)
        decision = scores.max(dim).indices  # on a CPU many times as fast as argmax
        areas[place] += decision_areas(decision, label, num_classes)
        return decision

    def between(
        scores: Tensor, label: Tensor, low: int, at_low: Tensor, high: int, at_high: Tensor
    ) -> None:
        """Add the areas of the values between two, whose decisions are known."""
        if high - low < 2:
            return
        same = at_low == at_high
        areas[low + 1 : high] += decision_areas(at_low[same], label[same], num_classes)
        moving = same.logical_not_().nonzero()[:, 0]
        if not len(moving):
            return
        # Once a part of the pixels is picked, a pixel's scores had better lie together.
        scores = scores[:, moving].T.contiguous() if scores is top else scores[moving]
        label, at_low, at_high = label[moving], at_low[moving], at_high[moving]
        middle = (low + high) // 2
        at_middle = decide(scores, label, middle, 1)
        between(scores, label, low, at_low, middle, at_middle)
        between(scores, label, middle, at_middle, high, at_high)

    label = labels_or_spare(label, num_classes, ignore_index)
    top = scores
    first = decide(scores, label, 0, 0)
    if len(taus) > 1:
        last = decide(scores, label, len(taus) - 1, 0)
        between(scores, label, 0, first, len(taus) - 1, last)
    return areas

"""Areas at many values of ``tau_test`` for little more than the price of two."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def areas_over_taus(
    logits: Tensor, label: Tensor, log_prior: Tensor, taus: Sequence[float], ignore_index: int = 255
) -> Tensor:
    """Areas of the decisions ``argmax_c s_c - tau * log pi_c``.

    The scores of a pixel are lines in tau, and the winner is their upper envelope: a class wins on
    one interval. So a pixel that decides alike at two values decides alike between them, and only
    those that do not are looked at again, by bisection.

    Args:
        logits: (C, ...) natural log-posterior up to a constant per pixel.
        label: int64 (...), class or ``ignore_index``.
        log_prior: (C,), finite.
        taus: T values, ascending.
        ignore_index: label that takes no part.

    Returns:
        float64 (T, 4, C): intersection, union, prediction and label pixels.

    Raises:
        ValueError: ``taus`` are empty or not ascending.
    """
    taus = list(taus)
    if not taus or any(a >= b for a, b in zip(taus, taus[1:], strict=False)):
        raise ValueError(f'taus must ascend, but are {taus}')
    num_classes = logits.shape[0]
    scores, label = logits.reshape(num_classes, -1).T, label.reshape(-1)
    log_prior = log_prior.to(logits)
    areas = torch.zeros(len(taus), 4, num_classes, dtype=torch.float64, device=logits.device)

    def decide(scores: Tensor, label: Tensor, place: int) -> Tensor:
        shifted = scores - taus[place] * log_prior if taus[place] else scores
        decision = shifted.argmax(1)
        valid = label != ignore_index
        areas[place] += _areas(decision[valid], label[valid], num_classes)
        return decision

    def between(
        scores: Tensor, label: Tensor, low: int, at_low: Tensor, high: int, at_high: Tensor
    ) -> None:
        """Add the areas of the values between two, whose decisions are known."""
        if high - low < 2:
            return
        valid = label != ignore_index
        same = valid & (at_low == at_high)
        areas[low + 1 : high] += _areas(at_low[same], label[same], num_classes)
        moving = (valid & (at_low != at_high)).nonzero()[:, 0]
        if not len(moving):
            return
        scores, label = scores[moving], label[moving]
        middle = (low + high) // 2
        at_middle = decide(scores, label, middle)
        between(scores, label, low, at_low[moving], middle, at_middle)
        between(scores, label, middle, at_middle, high, at_high[moving])

    first = decide(scores, label, 0)
    if len(taus) > 1:
        last = decide(scores, label, len(taus) - 1)
        between(scores, label, 0, first, len(taus) - 1, last)
    return areas


def _areas(decision: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """(4, C) areas of valid pixels."""
    intersect = label[decision == label].bincount(minlength=num_classes)
    predicted = decision.bincount(minlength=num_classes)
    labelled = label.bincount(minlength=num_classes)
    return torch.stack([intersect, predicted + labelled - intersect, predicted, labelled])

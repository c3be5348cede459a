"""The four areas that every score is made of."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 2**15
"""Pixels that are taken at once: a CPU keeps their posteriors in its cache."""


def labels_or_spare(label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Labels with C for each pixel that takes no part: ``ignore_index``, or outside 0..C-1."""
    known = (label != ignore_index) & (label >= 0) & (label < num_classes)
    return label.where(known, num_classes)


def decision_areas(
    decision: Tensor, label: Tensor, num_classes: int, weight: Tensor | None = None
) -> Tensor:
    """Intersection, union, prediction and label pixels of each class, float64 (4, C).

    Args:
        decision: int64 (P,), classes.
        label: int64 (P,), classes, or C for a pixel that takes no part.
        num_classes: C.
        weight: float64 (P,), pixels that each one stands for; None is one.
    """
    # One histogram of pairs holds them all.
    pairs = (label * num_classes + decision).bincount(weight, (num_classes + 1) * num_classes)
    confusion = pairs.view(num_classes + 1, num_classes)[:-1].double()
    intersect, predicted, labelled = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    return torch.stack([intersect, predicted + labelled - intersect, predicted, labelled])


def expected_areas(
    decision: Tensor,
    posterior: Tensor,
    weight: Tensor | None = None,
    labelled: Tensor | None = None,
) -> Tensor:
    """As :func:`decision_areas`, of pixels whose class is not known: the expected values.

    Args:
        decision: int64 (P,), classes.
        posterior: (P, C), how probable each class is; rows sum to one.
        weight: float64 (P,), pixels that each one stands for; None is one.
        labelled: float64 (C,), the last row of the result where it is known already. It is the
            same for every decision, and most of the work.
    """
    num_classes = posterior.shape[1]
    right = posterior.gather(1, decision[:, None])[:, 0].double()
    if weight is None:
        weight = torch.ones_like(right)
    intersect, predicted = (decision.bincount(w, num_classes) for w in (right * weight, weight))
    if labelled is None:
        # In blocks, since float64 copies of all posteriors would be large.
        parts = zip(weight.split(BLOCK), posterior.split(BLOCK), strict=True)
        labelled = torch.stack([w @ of.double() for w, of in parts]).sum(0)
    return torch.stack([intersect, predicted + labelled - intersect, predicted, labelled])


def class_scores(areas: Tensor) -> Tensor:
    """IoU, accuracy and precision of each class in percent, float64 (..., 3, C).

    A class without a label pixel has none, ``nan``, also where it is predicted: a mean then is over
    the same classes for every model. Its wrong pixels count against the classes that they are of.

    Args:
        areas: (..., 4, C) intersection, union, prediction and label pixels.

    Returns:
        ``nan`` too for the precision of a class that is never predicted.
    """
    areas = areas.double()
    intersect, labelled = areas[..., :1, :], areas[..., 3:, :]
    scores = 100 * intersect / areas[..., (1, 3, 2), :]
    return scores.where(labelled > 0, torch.nan)


def image_miou(areas: Tensor) -> Tensor:
    """Mean IoU of one image, in percent, over the classes that its labels or its decision hold.

    It is another score than the mIoU of a data set (:func:`class_scores`): an image lacks most
    classes, and a lacking one that is predicted counts as 0.

    Args:
        areas: (..., 4, C) intersection, union, prediction and label pixels.

    Returns:
        (...); ``nan`` for an image without a labelled pixel.
    """
    intersect, union = areas[..., 0, :], areas[..., 1, :]
    return 100 * (intersect / union).nanmean(-1)

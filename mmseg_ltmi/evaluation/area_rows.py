"""A row per class, from the areas that a metric sums up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mmseg_ltmi.core.class_names import distinct_names
from mmseg_ltmi.core.posterior import class_scores
from mmseg_ltmi.core.priors import ClassPrior, build_class_prior

from .metric_prior import check_classes
from .per_class import SCORES


def class_rows(
    areas: torch.Tensor,
    classes: Sequence[Any],
    class_prior: Any = None,
    image_counts: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """What happened to each class.

    Args:
        areas: (4, C) intersection, union, prediction and label pixels, summed over the images.
        classes: C names; rows have them as :func:`distinct_names` makes them.
        class_prior: what ranks the classes; None ranks them by the evaluated labels.
        image_counts: (C,) evaluated images that hold each class, for ``class_prior=None``.

    Returns:
        C dicts: ``class``, ``group`` by pixel and ``image_group`` by image frequency (None if no
        image counts are known), ``prior`` (share of the pixels), ``pixels``, ``predicted`` and
        ``intersection`` (pixels), ``IoU``, ``Acc`` and ``Precision`` in percent. ``nan`` stands for
        the scores of a class that the labels do not hold, and for the precision of one that is
        never predicted.

    Raises:
        ValueError: the prior is not C long, or names other classes.
    """
    intersect, _, predicted, label = areas.double().numpy()
    if class_prior is None:
        # Where nothing is labelled all classes rank alike, and all scores are nan.
        counts = label.astype(np.int64) if label.any() else np.ones(len(label), np.int64)
        prior = ClassPrior(counts, image_counts=image_counts)
    else:
        prior = build_class_prior(class_prior, len(classes), "the metric's class_prior")
    check_classes(prior, [str(name) for name in classes])
    group = prior.groups().by_class()
    has_images = prior.image_counts is not None
    image_group = prior.groups(by='images').by_class() if has_images else {}
    scores = class_scores(areas).numpy()
    probs = prior.probs(0)
    return [
        {
            'class': name,
            'group': group[c],
            'image_group': image_group.get(c),
            'prior': float(probs[c]),
            'pixels': int(label[c]),
            'predicted': int(predicted[c]),
            'intersection': int(intersect[c]),
            **{key: float(score[c]) for key, score in zip(SCORES, scores, strict=True)},
        }
        for c, name in enumerate(distinct_names(classes))
    ]

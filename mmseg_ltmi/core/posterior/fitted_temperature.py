"""The temperature at which stored pixels are read best by those of other images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..losses.functional import class_log_likelihood
from .class_memory import sort_by_class

TEMPERATURES = tuple(0.01 * 2 ** (step / 2) for step in range(15))
"""From 0.01 to 1.28, by factors of the square root of 2."""
QUERIES_PER_CLASS = 32


def fit_temperature(samples: Tensor, labels: Tensor, image: Tensor, num_classes: int) -> float:
    """Choose T by the likelihood of each pixel's class, read by the pixels of other images.

    ``log softmax_c log mean_{j in c} exp(q.k_j / T)``, as ClassMemory reads it, is averaged over
    pixels of a class and then over the classes, so that each class counts alike. Pixels of the
    query's own image take no part: they look alike, and would make any T seem too sharp.

    Args:
        samples: (K, D) unit vectors, pixels of each class in any order.
        labels: int64 (K,), classes.
        image: int64 (K,), the image of each.
        num_classes: C.

    Returns:
        one of TEMPERATURES; the middle one where no class has pixels of two images.
    """
    order, rank = sort_by_class(labels, num_classes)
    query = order[rank < QUERIES_PER_CLASS]
    same = image[query][:, None] == image  # (Q, K)

    def likelihood(temperature: float) -> float:
        of_classes = class_log_likelihood(
            samples[query], samples, labels, num_classes, temperature, exclude=same
        )
        found = of_classes.log_softmax(1).gather(1, labels[query][:, None])[:, 0]
        known = found > -torch.inf  # its class has pixels of another image
        sums = samples.new_zeros(2, num_classes)
        sums.index_add_(1, labels[query], torch.stack([found.where(known, 0), known.to(found)]))
        return float((sums[0] / sums[1]).nanmean())

    found = [likelihood(temperature) for temperature in TEMPERATURES]
    if math.isnan(found[0]):
        return TEMPERATURES[len(TEMPERATURES) // 2]
    return TEMPERATURES[found.index(max(found))]

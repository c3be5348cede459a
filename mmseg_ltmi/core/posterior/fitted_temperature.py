"""The temperature at which stored pixels are read best by those of other images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

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
    other = image[query][:, None] != image  # (Q, K)
    group = F.one_hot(labels, num_classes).float()
    count = other.float() @ group
    known = count.gather(1, labels[query][:, None])[:, 0] > 0
    score = samples[query] @ samples.T
    per_class = torch.zeros(num_classes, device=labels.device).index_add_(
        0, labels[query], known.float()
    )
    if not known.any():
        return TEMPERATURES[len(TEMPERATURES) // 2]

    def likelihood(temperature: float) -> float:
        scaled = (score / temperature).masked_fill(~other, -math.inf)
        scaled = scaled - scaled.amax(1, keepdim=True)
        mean = (scaled.exp() @ group) / count
        log_posterior = mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
        log_posterior = log_posterior.masked_fill(count == 0, -math.inf).log_softmax(1)
        found = log_posterior.gather(1, labels[query][:, None])[:, 0].where(known, 0)
        total = torch.zeros(num_classes, device=labels.device).index_add_(0, labels[query], found)
        return float((total / per_class).nanmean())

    return max(TEMPERATURES, key=likelihood)

"""The temperature that calibrates a posterior."""

from __future__ import annotations

import torch
from torch import Tensor

from .areas import BLOCK

COLDEST, HOTTEST = 0.05, 20.0
FLOOR = -1e4
"""Of a score: a class that is ruled out has -inf."""


def calibrating_temperature(scores: Tensor, label: Tensor, weight: Tensor | None = None) -> float:
    """T of the highest likelihood of the labels under ``softmax(scores / T)``.

    Temperature scaling (Guo et al., ICML 2017). The log-likelihood is concave in 1 / T, so Newton's
    method finds it.

    Args:
        scores: float (M, C), log-posterior up to a constant per pixel.
        label: int64 (M,), classes.
        weight: (M,), pixels that each one stands for; None is one.

    Returns:
        T, within 0.05 and 20. Above 1 the posterior was too sure of itself.

    Raises:
        ValueError: no pixel.
    """
    if not len(label):
        raise ValueError('a temperature needs labelled pixels, but there is none')
    weight = torch.ones(len(label)) if weight is None else weight
    weight = weight.to(scores.device).double()
    parts = list(zip(*(of.split(BLOCK) for of in (scores, label, weight)), strict=True))
    sharpness = 1.0
    for _ in range(20):
        slope = curvature = 0.0
        for z, own, w in parts:
            z = z.clamp(min=FLOOR)
            p = (sharpness * z).softmax(1)
            mean = (p * z).sum(1)
            slope += float((z.gather(1, own[:, None])[:, 0] - mean).double() @ w)
            curvature += float(((p * z * z).sum(1) - mean * mean).clamp(min=0).double() @ w)
        if curvature <= 0:  # all scores alike: no temperature matters
            break
        # At most a factor of 2 at once, since the likelihood is flat far from its top.
        new = min(max(sharpness + slope / curvature, sharpness / 2), 2 * sharpness)
        new = min(max(new, 1 / HOTTEST), 1 / COLDEST)
        done = abs(new - sharpness) < 1e-4 * sharpness
        sharpness = new
        if done:
            break
    return 1 / sharpness

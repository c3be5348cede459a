"""Brings label maps and feature maps to another size, picks pixels from them, and means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def resize_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels int64 (B, H, W) at ``size`` (h, w): that of the first pixel of each cell.

    Its centre is where ``align_corners=False`` puts the score. Training by it was no better
    (docs/experiments/nyuv2.md).
    """
    return F.interpolate(labels[:, None].float(), tuple(size), mode='nearest')[:, 0].long()


def resize_features(features: Tensor, size: Sequence[int]) -> Tensor:
    """Features (B, C, H, W) at ``size`` (h, w), bilinearly; a map of that size stays as it is.

    Both maps cover the whole image, so their borders coincide (``align_corners=False``).
    """
    if features.shape[2:] == tuple(size):
        return features
    return F.interpolate(features, tuple(size), mode='bilinear', align_corners=False)


def rgb_picture(image: Tensor, size: Sequence[int]) -> np.ndarray:
    """An image BGR (3, H, W), as mmsegmentation loads it, as uint8 RGB (h, w, 3) at ``size``.

    Of other numbers of channels the first three are drawn, or the first one in grey.
    """
    image = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    bgr = F.interpolate(image[None].float().cpu(), tuple(size), mode='bilinear')[0]
    return bgr.flip(0).movedim(0, -1).clamp(0, 255).byte().numpy()


def gather_pixels(features: Tensor, pixel: Tensor) -> Tensor:
    """Rows (N, C) of the map (B, C, H, W) at ``pixel``, int64 (N,) into the flattened (B*H*W)."""
    # Only what is picked is read: a map with its channels last would be a copy of all of it.
    flat = features.flatten(2)
    return flat[pixel // flat.shape[2], :, pixel % flat.shape[2]]


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The mean feature of the pixels of each class in each image, float32 at least.

    Args:
        features: (B, D, h, w).
        labels: int64 (B, h, w); what is outside 0..C-1 takes no part.
        num_classes: C.

    Returns:
        means (B*C, D), and their classes int64 (B*C,), -1 where an image has no such pixel.
    """
    precise = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        classes = torch.arange(num_classes, device=labels.device)
        is_member = labels.flatten(1)[..., None] == classes
        number = is_member.sum(1)
        sums = features.flatten(2).to(precise) @ is_member.to(precise)
        means = sums.mT / number.clamp(min=1)[..., None]
    return means.flatten(0, 1), classes.expand_as(number).where(number > 0, -1).flatten()

"""Brings label maps and feature maps to another size, and picks pixels from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resize_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels int64 (B, H, W) at ``size`` (h, w), by the nearest pixel."""
    return F.interpolate(labels[:, None].float(), tuple(size), mode='nearest')[:, 0].long()


def resize_features(features: Tensor, size: Sequence[int]) -> Tensor:
    """Features (B, C, H, W) at ``size`` (h, w), bilinearly; a map of that size stays as it is.

    Both maps cover the whole image, so their borders coincide (``align_corners=False``).
    """
    if features.shape[2:] == tuple(size):
        return features
    return F.interpolate(features, tuple(size), mode='bilinear', align_corners=False)


def gather_pixels(features: Tensor, pixel: Tensor) -> Tensor:
    """Rows (N, C) of the map (B, C, H, W) at ``pixel``, int64 (N,) into the flattened (B*H*W)."""
    # Only what is picked is read: a map with its channels last would be a copy of all of it.
    flat = features.flatten(2)
    return flat[pixel // flat.shape[2], :, pixel % flat.shape[2]]

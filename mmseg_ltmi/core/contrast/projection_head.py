"""Projection of pixel features onto the unit sphere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses.functional import at_least_float32


class ProjectionHead(nn.Sequential):
    """Linear, ReLU, linear, then division by the norm. No BatchNorm: it would mix the samples.

    Args:
        in_channels: channels of the pixel feature.
        out_channels: D, width of the embedding.
        hidden_channels: width between the two layers; None takes ``in_channels``.
    """

    def __init__(
        self, in_channels: int, out_channels: int = 128, hidden_channels: int | None = None
    ) -> None:
        hidden_channels = hidden_channels or in_channels
        super().__init__(
            nn.Linear(in_channels, hidden_channels),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_channels, out_channels),
        )
        self.out_channels = out_channels

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels) to unit vectors (N, out_channels), float32 at least."""
        # In the weights' own precision: under autocast large features would overflow float16.
        with torch.autocast(features.device.type, enabled=False):
            projected = super().forward(features.to(next(self.parameters())))
        return F.normalize(at_least_float32(projected), dim=1)

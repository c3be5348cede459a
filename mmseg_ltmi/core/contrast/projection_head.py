"""Projection of pixel features onto the unit sphere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..precision import at_least_float32


class ProjectionHead(nn.Sequential):
    """Linear, ReLU, linear, or one linear layer; then division by the norm.

    There is no BatchNorm: it would mix the samples.

    Args:
        in_channels: channels of the pixel feature.
        out_channels: D, width of the embedding.
        hidden_channels: width between the two layers; None takes ``in_channels``.
        num_layers: 2, or 1 for a single linear layer.

    Raises:
        ValueError: another ``num_layers``, or ``hidden_channels`` of one layer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 128,
        hidden_channels: int | None = None,
        num_layers: int = 2,
    ) -> None:
        if num_layers not in (1, 2) or (num_layers == 1 and hidden_channels):
            raise ValueError(
                f'ProjectionHead has num_layers={num_layers} and hidden_channels='
                f'{hidden_channels}: use 2 layers, or 1 and no hidden_channels'
            )
        width = hidden_channels or in_channels
        first = [nn.Linear(in_channels, width), nn.ReLU(inplace=True)] if num_layers == 2 else []
        super().__init__(*first, nn.Linear(width, out_channels))
        self.out_channels = out_channels

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels) to unit vectors (N, out_channels), float32 at least."""
        # In the weights' own precision: under autocast large features would overflow float16.
        with torch.autocast(features.device.type, enabled=False):
            projected = super().forward(features.to(next(self.parameters())))
        return F.normalize(at_least_float32(projected), dim=1)

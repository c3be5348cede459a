"""A classifier of directions, for the place of a network's last 1x1 convolution."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .precision import at_least_float32
from .state_dict_hooks import before_load

logger = logging.getLogger(__name__)


class CosineClassifier(nn.Conv2d):
    """Scores ``scale * cos(w_c, z)``, with ``scale = 1 / T_s`` (30 in the paper's code).

    Its only parameter is ``weight``, of which the length does not matter. A linear 1x1 classifier's
    state loads into it: the directions are kept, the bias is left out.

    Args:
        in_channels: D, channels of the pixel feature.
        out_channels: C.
        scale: factor of the cosine, > 0.

    Shape:
        (B, D, H, W) to (B, C, H, W); weight (C, D, 1, 1).

    Raises:
        ValueError: ``scale`` is not positive.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: float = 30.0) -> None:
        if not scale > 0:
            raise ValueError(f'the scale of a cosine classifier must be positive, but is {scale}')
        super().__init__(in_channels, out_channels, kernel_size=1, bias=False)
        self.scale = scale
        before_load(self, _leave_out_bias)

    def forward(self, features: Tensor) -> Tensor:
        """Scores, float32 at least, also under autocast."""
        # A sum of squares overflows half precision, which rounds scores up to the scale besides.
        with torch.autocast(features.device.type, enabled=False):
            features = F.normalize(at_least_float32(features), dim=1)
            weight = F.normalize(at_least_float32(self.weight), dim=1)
            return F.conv2d(features, self.scale * weight)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, scale={self.scale}'


def _leave_out_bias(_: CosineClassifier, state_dict: dict[str, Tensor], prefix: str) -> None:
    bias = state_dict.pop(f'{prefix}bias', None)
    if bias is not None and bias.any():
        logger.warning('%sbias is left out: a cosine classifier keeps the directions alone', prefix)

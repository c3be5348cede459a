"""A classifier of directions, for the place of a head's ``conv_seg``."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from mmseg_ltmi.models.losses.functional import at_least_float32


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

    def forward(self, features: Tensor) -> Tensor:
        # Norms in float32 at least: a sum of squares overflows half precision.
        features = F.normalize(at_least_float32(features), dim=1)
        return F.conv2d(features, self.scale * F.normalize(at_least_float32(self.weight), dim=1))

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, scale={self.scale}'

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        bias = state_dict.pop(f'{prefix}bias', None)
        if bias is not None and bias.any():
            print_log(f'{prefix}bias is left out: a cosine classifier keeps the directions alone')
        super()._load_from_state_dict(state_dict, prefix, *rest)


def replaced_classifier(conv_seg: nn.Conv2d, config: dict) -> nn.Conv2d:
    """The classifier that a head's ``classifier`` argument asks for.

    Args:
        conv_seg: the head's linear classifier.
        config: ``dict(type='linear')`` or ``dict(type='cosine', scale=30)``.

    Raises:
        ValueError: another type.
    """
    options = dict(config)
    kind = options.pop('type', None)
    if kind == 'cosine':
        return CosineClassifier(conv_seg.in_channels, conv_seg.out_channels, **options)
    if kind != 'linear' or options:
        raise ValueError(
            f"classifier={config}: use dict(type='linear') or dict(type='cosine', scale=30)"
        )
    return conv_seg

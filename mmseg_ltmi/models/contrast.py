"""The core's terms on features, contrastive and of regions, by mmsegmentation's registry."""

from __future__ import annotations

from typing import Any

from mmseg.registry import MODELS

from mmseg_ltmi.core.contrast import (
    ClassBalancedPixelSampler,
    ClassQueue,
    HardPixelSampler,
    MatchedQuerySampler,
    PixelContrast,
    ProjectionHead,
    UniformPixelSampler,
)
from mmseg_ltmi.core.region_rebalance import RegionRebalance

PARTS = ('projector', 'sampler', 'queue', 'loss', 'key_projector')

for _part in (
    ClassBalancedPixelSampler,
    ClassQueue,
    HardPixelSampler,
    MatchedQuerySampler,
    ProjectionHead,
    UniformPixelSampler,
):
    MODELS.register_module(module=_part)


MODELS.register_module(module=RegionRebalance)


@MODELS.register_module(name='PixelContrast')
def build_pixel_contrast(**options: Any) -> PixelContrast:
    """A PixelContrast whose parts may be of any registered type; arguments as there."""
    for name in PARTS:
        part = options.get(name)
        if isinstance(part, dict) and isinstance(part.get('type'), str):
            kind = MODELS.get(part['type'])
            if kind is None:
                raise KeyError(
                    f'contrast.{name} is of type {part["type"]!r}, which is not in the registry of '
                    'models: check the name, or import what registers it (custom_imports)'
                )
            options[name] = {**part, 'type': kind}
    return PixelContrast(**options)

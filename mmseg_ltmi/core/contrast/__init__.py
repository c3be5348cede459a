"""The contrastive term: which pixels are queried, the keys that are kept, and what joins them."""

from .class_queue import ClassQueue
from .pixel_contrast import PixelContrast
from .pixel_sampler import (
    ClassBalancedPixelSampler,
    HardPixelSampler,
    PixelSample,
    UniformPixelSampler,
)
from .projection_head import ProjectionHead
from .query_sampler import MatchedQuerySampler

__all__ = [
    'ClassBalancedPixelSampler',
    'ClassQueue',
    'HardPixelSampler',
    'MatchedQuerySampler',
    'PixelContrast',
    'PixelSample',
    'ProjectionHead',
    'UniformPixelSampler',
]

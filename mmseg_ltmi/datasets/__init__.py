"""Data sets."""

from .camvid import CamVidDataset
from .longtail_shapes import LongTailShapesDataset

__all__ = ['CamVidDataset', 'LongTailShapesDataset']

"""Data sets, and the transform that gives a teacher a view of its own."""

from .camvid import CamVidDataset
from .longtail_shapes import LongTailShapesDataset
from .two_views import PackTwoViews

__all__ = ['CamVidDataset', 'LongTailShapesDataset', 'PackTwoViews']

"""Data sets, wrappers and transforms."""

from mmseg_ltmi.compat import require_openmmlab

require_openmmlab()

from .camvid import CamVidDataset  # noqa: E402
from .longtail_shapes import LongTailShapesDataset  # noqa: E402
from .nyuv2 import NYUv2Dataset  # noqa: E402
from .rare_class_dataset import RareClassDataset  # noqa: E402
from .rare_class_paste import RareClassPaste  # noqa: E402
from .two_views import PackTwoViews  # noqa: E402

__all__ = [
    'CamVidDataset',
    'LongTailShapesDataset',
    'NYUv2Dataset',
    'PackTwoViews',
    'RareClassDataset',
    'RareClassPaste',
]

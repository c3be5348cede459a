"""Two photometric views of an image, one for the student and one for its teacher."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmcv.transforms import Compose
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS

SECOND_VIEW = 'second_view'
"""Field of a data sample that holds the teacher's image, uint8 (3, H, W) before normalization."""


@TRANSFORMS.register_module()
class PackTwoViews(PackSegInputs):
    """Runs photometric transforms twice and packs both images; it ends a pipeline.

    It takes the place of the photometric transforms and of PackSegInputs. What moves pixels belongs
    before it: both views share one label map.

    Args:
        photometric: configs of the transforms that draw a view.
        **kwargs: as for PackSegInputs.

    Raises:
        ValueError: a view that has another size.
    """

    def __init__(
        self, photometric: Any = (dict(type='mmseg.PhotoMetricDistortion'),), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.photometric = Compose([TRANSFORMS.build(dict(step)) for step in photometric])

    def transform(self, results: dict) -> dict:
        """The packed sample, with ``second_view`` in its data sample."""
        other = self.photometric(copy.deepcopy(results))['img']
        results = self.photometric(results)
        if other.shape != results['img'].shape:
            raise ValueError(
                f'PackTwoViews drew views of {results["img"].shape} and {other.shape}: transforms '
                'that move pixels belong before it'
            )
        packed = super().transform(results)
        image = torch.from_numpy(other.transpose(2, 0, 1).copy())
        packed['data_samples'].set_data({SECOND_VIEW: PixelData(data=image)})
        return packed

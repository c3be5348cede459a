"""Data sets whose files a converter of this package lays out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from mmseg.datasets import BaseSegDataset

PACKAGE = Path(__file__).parents[1]


class ConvertedDataset(BaseSegDataset):
    """Says how to get the files where they are missing.

    Attributes:
        CONVERTER: file in ``tools/dataset_converters``.
        ROOT_VARIABLE: environment variable that names ``data_root`` in the shipped configs.
    """

    CONVERTER: ClassVar[str]
    ROOT_VARIABLE: ClassVar[str]

    def load_data_list(self) -> list[dict]:
        """The images, in order; FileNotFoundError where their folder is missing or empty."""
        folder = self.data_prefix['img_path']
        images = super().load_data_list() if os.path.isdir(folder) else []
        if not images:
            name = type(self).__name__.removesuffix('Dataset')
            value = os.environ.get(self.ROOT_VARIABLE)
            raise FileNotFoundError(
                f'{name} has no {self.img_suffix} image in {folder}. Lay out the files once with '
                f"python {self._converter()} SOURCE --out FOLDER, and name the folder: {name}'s "
                f'configs read the environment variable {self.ROOT_VARIABLE}, which is '
                + ('not set' if value is None else repr(value))
                + ', or set data_root'
            )
        return images

    def _converter(self) -> Path:
        # In a clone as one would write it, else where the wheel has it.
        tool = Path('tools/dataset_converters', self.CONVERTER)
        installed = PACKAGE / '.mim' / tool
        return installed if installed.is_file() and not tool.is_file() else tool

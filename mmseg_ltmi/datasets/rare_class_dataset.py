"""Draws the images, and crops, that hold rare classes more often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmseg.registry import DATASETS

from mmseg_ltmi.core.priors import RareClassDraw
from mmseg_ltmi.core.priors.as_trained import sample_labels
from mmseg_ltmi.core.priors.dataset_counts import count_each_image
from mmseg_ltmi.core.priors.rare_class_draw import check_draw


@DATASETS.register_module()
class RareClassDataset:
    """Rare class sampling (Hoyer et al., DAFormer, CVPR 2022) around a data set.

    Each item is drawn anew: a class by its rarity (see :class:`RareClassDraw`), an image that holds
    it, and what the pipeline makes of that image. Where a random crop has lost the class, the
    pipeline runs again, ``max_tries`` times at most, and the crop with most of it is taken.

    Items depend on numpy's global generator, as mmcv's transforms do: the seed of a run decides
    them, in worker processes too. Labels are counted when the data set is built.

    Training then sees classes as often as they are drawn. Count the prior behind it, with
    ``mmseg-ltmi count CONFIG --as-trained N``, and give the decode head the raw one as
    ``test_prior``.

    Args:
        dataset: a data set or its config; may be mmengine's ConcatDataset or MultiImageMixDataset.
        temperature: of the draw of the class; the paper's 0.01.
        min_pixels: pixels of the class with which an image holds it. 64 are a cell of a feature map
            of stride 8.
        min_crop_ratio: share of ``min_pixels`` that a crop should hold.
        max_tries: of the pipeline for an item.
        cache: file that keeps the counts of images, such as the ``.counts.txt`` of
            ``mmseg-ltmi count``; None counts at each start.
        num_workers: processes that count; 0 counts in the run's own.
        lazy_init: count at :meth:`full_init` only.

    Raises:
        ClassCountError: labels that cannot be counted.
        ValueError: an argument out of range, no images, no class names, or a data set that repeats
            or draws its images.
    """

    def __init__(
        self,
        dataset: Any,
        temperature: float = 0.01,
        min_pixels: int = 64,
        min_crop_ratio: float = 0.5,
        max_tries: int = 10,
        cache: str | Path | None = None,
        num_workers: int = 0,
        lazy_init: bool = False,
    ) -> None:
        check_draw(temperature, min_pixels)
        if not 0 <= min_crop_ratio <= 1 or max_tries < 1:
            raise ValueError(
                f'RareClassDataset has min_crop_ratio={min_crop_ratio}, max_tries={max_tries}: a '
                'crop holds a share from 0 to 1 of min_pixels, and is tried once or more'
            )
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.temperature = temperature
        self.min_pixels = min_pixels
        self.min_crop_ratio = min_crop_ratio
        self.max_tries = max_tries
        self.cache = cache
        self.num_workers = num_workers
        self._draw: RareClassDraw | None = None
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """That of the data set inside."""
        return self.dataset.metainfo

    @property
    def class_resampling(self) -> str:
        """What a prior that is counted behind it says of it."""
        names = 'temperature', 'min_pixels', 'min_crop_ratio', 'max_tries'
        return f'RareClassDataset({", ".join(f"{n}={getattr(self, n):g}" for n in names)})'

    @property
    def draw(self) -> RareClassDraw:
        """Which classes and images are drawn how often."""
        self.full_init()
        assert self._draw is not None
        return self._draw

    def full_init(self) -> None:
        """Load the data set inside and count its labels, once."""
        if self._draw is not None:
            return
        if hasattr(self.dataset, 'full_init'):  # a Subset of torch has none
            self.dataset.full_init()
        print_log(f'RareClassDataset counts the labels of {len(self.dataset)} images', 'current')
        counts = count_each_image(self.dataset, self.num_workers, self.cache)
        self._draw = RareClassDraw(counts, self.temperature, self.min_pixels)

    def get_data_info(self, idx: int) -> dict:
        """Of an image of the data set inside, not of what item ``idx`` will be."""
        return self.dataset.get_data_info(idx)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> dict:
        if not -len(self) <= idx < len(self):
            raise IndexError(f'item {idx} of {len(self)}')
        # With the item's number, as ranks without worker processes have one seed.
        rng = np.random.default_rng([np.random.randint(2**31), idx % len(self)])
        drawn, image = self.draw.draw(rng)
        needed = max(self.min_crop_ratio * self.draw.needed[drawn], 1)
        best, most = None, -1
        for _ in range(self.max_tries):
            data = self.dataset[image]
            found = int((sample_labels(data) == drawn).sum())
            if found > most:
                best, most = data, found
            if most >= needed:
                break
        assert best is not None
        return best

"""The few images of a validation that hold most of the rarest classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mmseg_ltmi.core.pixel_maps import rgb_picture
from mmseg_ltmi.visualization import TailImage, choose_images


class RareImages:
    """Keeps images as they come by, at most twice as many as are wanted at the end.

    Args:
        rare: the classes that are looked for, the rarest first.
        number: of images at the end, at most.
        max_side: longer images are made smaller.
        ignore_index: label that is not looked for, also where it is the number of a class.
    """

    def __init__(
        self, rare: Sequence[int], number: int, max_side: int, ignore_index: int = 255
    ) -> None:
        self.rare = [c for c in rare if c != ignore_index]
        self.number = number
        self.max_side = max_side
        self._kept: list[tuple[np.ndarray, TailImage]] = []

    def add(self, image: torch.Tensor, sample: Any) -> None:
        """Keep an image if it is among the best so far.

        Args:
            image: uint8 (3, H, W) BGR, as mmsegmentation loads it, at any size. Of other numbers
                of channels the first three or the first one are drawn.
            sample: SegDataSample with label and prediction.
        """
        label = sample.gt_sem_seg.data[0].cpu().long()
        length = max(self.rare, default=0) + 1
        counts = label[label >= 0].bincount(minlength=length)[self.rare].numpy()
        if not counts.any():
            return
        before = [kept for kept, _ in self._kept]
        room = 2 * self.number
        best = choose_images(np.stack([*before, counts]), room)
        if len(before) not in best:
            return
        small = self._drawn(image, label, sample)
        everything = [*self._kept, (counts, small)]
        self._kept = [everything[i] for i in best]

    def best(self) -> list[TailImage]:
        """In turn for each class the image that holds most of it."""
        if not self._kept:
            return []
        counts = np.stack([counts for counts, _ in self._kept])
        return [self._kept[i][1] for i in choose_images(counts, self.number)]

    def _drawn(self, image: torch.Tensor, label: torch.Tensor, sample: Any) -> TailImage:
        share = min(1.0, self.max_side / max(label.shape))
        size = [max(1, round(side * share)) for side in label.shape]
        maps = {'label': label, 'prediction': sample.pred_sem_seg.data[0].cpu()}
        small = {
            title: F.interpolate(classed[None, None].float(), size)[0, 0].int().numpy()
            for title, classed in maps.items()
        }
        name = Path(sample.metainfo.get('img_path', '')).name
        return TailImage(name, rgb_picture(image, size), small)

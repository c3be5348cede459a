"""Pastes pixels of a rare class from another image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from mmseg_ltmi.core.priors import ClassPrior, RareClassDraw
from mmseg_ltmi.core.priors.dataset_counts import count_each_image
from mmseg_ltmi.core.priors.dataset_parts import class_names, dataset_images
from mmseg_ltmi.core.priors.rare_class_draw import check_draw


@TRANSFORMS.register_module()
class RareClassPaste(BaseTransform):
    """Pastes all pixels of one rare class from another image of the data set, labels too.

    Pasting objects is Simple Copy-Paste (Ghiasi et al., CVPR 2021); pasting all pixels of classes
    is ClassMix (Olsson et al., WACV 2021), which draws them evenly. Here the class and the image
    that holds it are drawn as in rare class sampling (see :class:`RareClassDraw`). No other pixel
    is pasted, so none that is ignored.

    It is a transform of mmsegmentation's MultiImageMixDataset, which gives it the other image. That
    one comes from the pipeline of the data set inside. It is not resized again: images of one size
    lie upon each other, of others it is shifted at random, and cut where it does not fit, so that
    a pixel of the class is left. Do not crop before it, or the crop may have lost the class and
    nothing is pasted.

    Numpy's global generator decides, as in mmcv's transforms. Each worker process counts the labels
    of the data set before its first item; name a ``cache`` for a large one.

    Training then sees the classes more often. Count the prior behind it, with
    ``mmseg-ltmi count CONFIG --as-trained N``, and give the decode head the raw one as
    ``test_prior``.

    Args:
        prob: that something is pasted onto an image.
        flip_prob: that it is flipped from left to right.
        temperature: of the draw of the class.
        min_pixels: pixels of the class with which an image holds it.
        classes: names of the classes that may be pasted, or 'tail', the rarest third by pixels;
            None for all.
        cache: file that keeps the counts of images, such as the ``.counts.txt`` of
            ``mmseg-ltmi count``.

    Raises:
        ValueError: an argument out of range; at the first item, unknown classes, or a data set that
            repeats or draws its images.
    """

    def __init__(
        self,
        prob: float = 0.5,
        flip_prob: float = 0.5,
        temperature: float = 0.01,
        min_pixels: int = 64,
        classes: str | Sequence[str] | None = None,
        cache: str | Path | None = None,
    ) -> None:
        check_draw(temperature, min_pixels)
        if not (0 <= prob <= 1 and 0 <= flip_prob <= 1):
            raise ValueError(
                f'RareClassPaste has prob={prob}, flip_prob={flip_prob}: probabilities are from 0 '
                'to 1'
            )
        if isinstance(classes, str) and classes != 'tail':
            raise ValueError(
                f"RareClassPaste has classes='{classes}': give a list of names, or 'tail'"
            )
        self.prob = prob
        self.flip_prob = flip_prob
        self.temperature = temperature
        self.min_pixels = min_pixels
        self.classes = classes
        self.cache = cache
        self._dataset: Any = None
        self._draw: RareClassDraw | None = None
        self._drawn = -1

    @property
    def class_resampling(self) -> str:
        """What a prior that is counted behind it says of it."""
        return (
            f'RareClassPaste(prob={self.prob:g}, temperature={self.temperature:g}, '
            f'min_pixels={self.min_pixels}, classes={self.classes})'
        )

    def get_indices(self, dataset: Any) -> list[int]:
        """The image that is pasted from, or none."""
        if np.random.rand() >= self.prob:
            return []
        if self._draw is None or self._dataset is not dataset:
            self._draw, self._dataset = self._draw_of(dataset), dataset
        rng = np.random.default_rng(np.random.randint(2**31))
        self._drawn, image = self._draw.draw(rng)
        return [image]

    def _draw_of(self, dataset: Any) -> RareClassDraw:
        counts = count_each_image(dataset, cache=self.cache)
        names = class_names(dataset_images(dataset)[0][0])
        chosen: Sequence[int] | None = None
        if self.classes == 'tail':
            chosen = ClassPrior(counts.sum(0)).groups().tail
        elif self.classes is not None:
            unknown = [name for name in self.classes if name not in names]
            if unknown:
                raise ValueError(
                    f'RareClassPaste has classes that the data set has not: {unknown}. It has '
                    f'{list(names)}'
                )
            chosen = [names.index(name) for name in self.classes]
        return RareClassDraw(counts, self.temperature, self.min_pixels, chosen)

    def transform(self, results: dict) -> dict:
        """Paste the class that was drawn last.

        Args:
            results: with ``img`` (H, W, ...), ``gt_seg_map`` (H, W), and ``mix_results``, a list
                of one other image or none.

        Raises:
            ValueError: there are no ``mix_results``.
        """
        if 'mix_results' not in results:
            raise ValueError(
                'RareClassPaste has no other image: make it a transform of a MultiImageMixDataset, '
                'whose dataset has the transforms that come before it'
            )
        for other in results['mix_results']:
            mask = other['gt_seg_map'] == self._drawn
            if np.random.rand() < self.flip_prob:
                mask = mask[:, ::-1]
                flip = slice(None, None, -1)
            else:
                flip = slice(None)
            places = np.argwhere(mask)
            if not len(places):
                continue
            kept = places[np.random.randint(len(places))]
            sizes = zip(results['gt_seg_map'].shape, mask.shape, kept, strict=True)
            (top, down), (left, right) = (_overlap(*size) for size in sizes)
            chosen = mask[down, right]
            for key in {'img', 'gt_seg_map', *results.get('seg_fields', ())}:
                whole = results[key] = results[key].copy()
                whole[top, left][chosen] = other[key][:, flip][down, right][chosen]
        return results


def _overlap(target: int, source: int, kept: int) -> tuple[slice, slice]:
    # Where a line of `source` pixels lies upon one of `target` pixels, in each of them; at random,
    # but so that its pixel `kept` does.
    length = min(target, source)
    spare = max(target - source, 0)
    start = np.random.randint(spare + 1)
    first, last = max(kept - length + 1, 0), min(source - length, kept)
    begin = np.random.randint(first, last + 1)
    return slice(start, start + length), slice(begin, begin + length)

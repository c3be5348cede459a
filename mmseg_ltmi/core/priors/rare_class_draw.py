"""Drawing an image by a rare class that it holds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class RareClassDraw:
    """Draws a class, rare ones more often, and then an image that holds it.

    This is rare class sampling (Hoyer et al., DAFormer, CVPR 2022, eq. 8): class c, which has the
    share f_c of all pixels, is drawn with ``P(c)`` in proportion to ``exp((1 - f_c) / T)``, and an
    image is drawn evenly from those that hold c. A class without any pixel is never drawn.

    Args:
        counts: (N, C) pixels of each class in each image.
        temperature: T. Large values draw the classes evenly; at 0.01 a class with 1 % of the pixels
            is drawn 1 / e times as often as one with hardly any.
        min_pixels: an image holds a class if it has so many pixels of it, or, where no image has,
            as many as any image.
        classes: numbers of the classes that may be drawn; None for all.

    Attributes:
        probs: float64 (C,), P(c).
        needed: int64 (C,), pixels of each class with which an image holds it.

    Raises:
        ValueError: a temperature or ``min_pixels`` that is not positive, unknown classes, or none
            that has a pixel.
    """

    def __init__(
        self,
        counts: np.ndarray,
        temperature: float = 0.01,
        min_pixels: int = 64,
        classes: Iterable[int] | None = None,
    ) -> None:
        check_draw(temperature, min_pixels)
        num_classes = counts.shape[1]
        allowed = np.ones(num_classes, bool)
        if classes is not None:
            chosen = list(classes)
            if not set(chosen) <= set(range(num_classes)):
                raise ValueError(f'classes={chosen}: give numbers from 0 to {num_classes - 1}')
            allowed[:] = False
            allowed[chosen] = True
        total = counts.sum(0)
        drawn = allowed & (total > 0)
        if not drawn.any():
            raise ValueError(
                f'no image has a pixel of the classes {np.flatnonzero(allowed).tolist()}, so there '
                'is nothing to draw: check the labels of the data set'
            )
        share = total / total.sum()
        odds = np.exp((share[drawn].min() - share[drawn]) / temperature)
        self.probs = np.zeros(num_classes)
        self.probs[drawn] = odds / odds.sum()
        self.needed = np.minimum(min_pixels, counts.max(0))
        self._counts = counts
        self._images = [
            np.flatnonzero(counts[:, c] >= max(n, 1)) for c, n in enumerate(self.needed)
        ]

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """A class and the number of an image that holds it."""
        drawn = int(rng.choice(len(self.probs), p=self.probs))
        return drawn, int(rng.choice(self._images[drawn]))

    def image_shares(self) -> np.ndarray:
        """Shares of the classes among the pixels of images that are drawn whole, float64 (C,)."""
        weight = np.zeros(len(self._counts))
        for prob, images in zip(self.probs, self._images, strict=True):
            weight[images] += prob / max(len(images), 1)
        pixels = weight @ self._counts
        return pixels / pixels.sum()


def check_draw(temperature: float, min_pixels: int) -> None:
    """Raise ValueError where an argument of RareClassDraw is not positive."""
    if not temperature > 0 or min_pixels < 1:
        raise ValueError(
            f'temperature={temperature}, min_pixels={min_pixels}: rare classes are drawn with a '
            'temperature above 0, such as 0.01, and from images with 1 pixel of them or more'
        )

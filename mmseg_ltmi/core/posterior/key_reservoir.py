"""Draws the pixels of a data set that a memory stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..distributed import gather_objects
from .class_memory import sort_by_class


class DrawnPixels(NamedTuple):
    """Pixels that were drawn, and what draws among them.

    Attributes:
        samples: float32 (K, D), embedded.
        labels: int64 (K,).
        image: int64 (K,), number of the image.
        position: float32 (K, 2), row and column as shares of the image's height and width.
        priority: float64 (K,), 0..1; the highest of a class stay.
    """

    samples: Tensor
    labels: Tensor
    image: Tensor
    position: Tensor
    priority: Tensor


class KeyReservoir:
    """Up to ``per_class`` pixels of each class, of an image up to ``per_image`` of each.

    Each class is drawn alike, and so is each image that holds it. What is drawn of an image depends
    on the seed and its number alone: neither the order of the images nor the ranks that they are
    spread over change anything, and a run that was stopped goes on.

    Args:
        num_classes: C.
        per_class: pixels of each class.
        per_image: pixels of each class of an image.
        seed: of the draw.

    Attributes:
        drawn: what stays so far, None at the beginning.
        paths: of the images, by number.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(
        self, num_classes: int, per_class: int = 256, per_image: int = 8, seed: int = 0
    ) -> None:
        for name, value in (('per_class', per_class), ('per_image', per_image)):
            if value < 1:
                raise ValueError(f'{name}={value}: draw at least 1')
        self.num_classes = num_classes
        self.per_class = per_class
        self.per_image = per_image
        self.seed = seed
        self.drawn: DrawnPixels | None = None
        self.paths: dict[int, str] = {}

    def add_image(
        self,
        features: Tensor,
        labels: Tensor,
        position: Tensor,
        embed: Callable[[Tensor], Tensor],
        image: int,
        path: str = '',
    ) -> None:
        """Draw from the pixels of an image.

        Args:
            features: (P, channels).
            labels: int64 (P,); what is outside 0..C-1 is not drawn.
            position: float32 (P, 2), as in DrawnPixels.
            embed: (M, channels) to (M, D), called with what is drawn.
            image: its number in the data set.
            path: its file.
        """
        labels = labels.cpu()
        random = np.random.default_rng([self.seed, image])
        order = torch.from_numpy(random.permutation(len(labels)))
        of = labels[order]
        pixel = order[(of >= 0) & (of < self.num_classes)]
        pixel = pixel[self._first_of_class(labels[pixel], self.per_image)]
        if not len(pixel):
            return
        self.paths[image] = path
        samples = embed(features[pixel.to(features.device)]).float().cpu()
        priority = torch.from_numpy(random.random(len(pixel)))
        numbers = torch.full_like(pixel, image)
        self._keep(DrawnPixels(samples, labels[pixel], numbers, position[pixel], priority))

    def _keep(self, *more: DrawnPixels) -> None:
        # What is not finite would spoil the sum of its class.
        parts = [*([self.drawn] if self.drawn is not None else []), *more]
        drawn = DrawnPixels(*map(torch.cat, zip(*parts, strict=True)))
        best = drawn.priority.argsort(descending=True, stable=True)
        best = best[drawn.samples[best].isfinite().all(1)]
        best = best[self._first_of_class(drawn.labels[best], self.per_class)]
        self.drawn = DrawnPixels(*(column[best] for column in drawn))

    def _first_of_class(self, labels: Tensor, count: int) -> Tensor:
        """Places of the first ones of each class, sorted by class."""
        order, rank = sort_by_class(labels, self.num_classes)
        return order[rank < count]

    def gather(self) -> None:
        """Keep the best of all ranks; an image that several ranks have seen counts once."""
        every = gather_objects(self.state_dict())
        self.drawn, seen = None, set()
        for state in every:
            if state['drawn'] is None:
                continue
            drawn = DrawnPixels(*state['drawn'])
            new = torch.tensor([int(i) not in seen for i in drawn.image], dtype=torch.bool)
            self._keep(DrawnPixels(*(column[new] for column in drawn)))
            self.paths |= state['paths']
            seen |= set(state['paths'])

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` goes on from: tensors and plain values."""
        drawn = None if self.drawn is None else list(self.drawn)
        return {'drawn': drawn, 'paths': self.paths}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.drawn = None if state['drawn'] is None else DrawnPixels(*state['drawn'])
        self.paths = dict(state['paths'])

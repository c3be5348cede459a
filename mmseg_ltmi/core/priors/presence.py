"""How often a class is present in an image, as a mask classifier's queries and regions see it."""

from __future__ import annotations

import logging
from typing import Any

import torch

from .class_prior import ClassPrior
from .prior_buffer import PriorBuffer

logger = logging.getLogger(__name__)


class PresencePrior(PriorBuffer):
    """A PriorBuffer whose ``log_prior`` is that of the presence of classes.

    A prior with image counts is read by them. Of any other the pixel shares are taken for it, with
    a warning. ``class_prior`` stays what :meth:`set` was given.

    Args:
        num_classes: C.
        name: what messages call it.
    """

    def __init__(self, num_classes: int, name: str) -> None:
        super().__init__(None, num_classes, name)

    def set(self, class_prior: Any) -> None:
        """Set the prior, in any form that PriorBuffer takes."""
        before = self.log_prior
        super().set(class_prior)
        prior: Any = self.class_prior
        pixels = _imbalance(prior)
        if prior.image_counts is None:
            if not torch.equal(before, self.log_prior):
                logger.warning(
                    '%s has no image counts: its pixel shares (most to least frequent %s) stand '
                    'for the share of images that hold a class, which is mostly far more even '
                    "(ADE20K: 827:1 by pixels, 283:1 by images). 'mmseg-ltmi count' counts both, "
                    'with --as-trained those of crops',
                    self.describe(),
                    pixels,
                )
            return
        presence = prior.presence()
        self.log_prior = presence.log_probs().to(before.device)
        if not torch.equal(before, self.log_prior):
            logger.info(
                '%s: taken as the prior of presence, image counts of %s (most to least frequent '
                '%s; %s by pixels)',
                self.name,
                prior.source or 'the given prior',
                _imbalance(presence),
                pixels,
            )


def _imbalance(prior: ClassPrior) -> str:
    counts = prior.pixel_counts[prior.pixel_counts > 0]
    return f'{counts.max() / counts.min():.4g}:1'

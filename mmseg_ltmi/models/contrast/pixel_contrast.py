"""The contrastive term of a decode head: sampler, projection, queue and loss, joined."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ltmi.models.losses.prior_buffer import PriorHolder


@MODELS.register_module()
class PixelContrast(PriorHolder):
    """Label-aware contrast between the pixels of a batch and a class-wise queue.

    Args:
        in_channels: channels of the pixel feature (the head fills it in).
        num_classes: C (the head fills it in).
        class_prior: as for LogitAdjustedLoss; it sizes the queue, and it is the queries'
            distribution where the sampler draws uniformly. With 'online' every class gets the
            same share of the queue, which is laid out before anything is counted.
        projector: config of the projection head.
        sampler: config of the pixel sampler.
        queue: config of the queue.
        loss: config of the loss.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        class_prior: Any = None,
        projector: dict | None = None,
        sampler: dict | None = None,
        queue: dict | None = None,
        loss: dict | None = None,
    ) -> None:
        super().__init__(None, num_classes)
        self.projector = MODELS.build(
            {'type': 'ProjectionHead', 'in_channels': in_channels, **(projector or {})}
        )
        self.sampler = MODELS.build({'type': 'ClassBalancedPixelSampler', **(sampler or {})})
        self.queue = MODELS.build(
            {
                'type': 'ClassQueue',
                'num_classes': num_classes,
                'channels': self.projector.out_channels,
                **(queue or {}),
            }
        )
        self.loss = MODELS.build({'type': 'GMLLoss', 'num_classes': num_classes, **(loss or {})})
        self.hold(class_prior)  # now that there is a queue to share out

    def set_class_prior(self, prior: Any) -> None:
        super().set_class_prior(prior)
        self.queue.allot(self.log_prior.exp())

    @property
    def needs_logits(self) -> bool:
        """Whether :meth:`forward` wants the head's scores."""
        return self.sampler.needs_logits

    def forward(
        self, features: Tensor, labels: Tensor, logits: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The term and what there is to know about it.

        Args:
            features: pixel features (B, in_channels, h, w).
            labels: int64 (B, H, W); they are brought to (h, w) by the nearest pixel.
            logits: raw scores (B, C, h, w), where the sampler wants them.

        Returns:
            ``loss_contrast``, and the diagnostics ``acc_contrast`` (% of the queries whose class
            has the highest posterior under the mixture), ``contrast_temperature`` and
            ``queue_fill`` (share of the slots in use).
        """
        self.observe(labels, self.queue.num_classes)
        log_prior = self.required_log_prior()
        small = F.interpolate(labels[:, None].float(), features.shape[2:], mode='nearest')
        sample = self.sampler(small[:, 0].long(), log_prior, logits)
        # Pixels are picked before they are projected: the rest of the map costs nothing.
        picked = features.movedim(1, -1).reshape(-1, features.shape[1])[sample.pixel]
        query = self.projector(picked)

        ids = sample.pixel + get_rank() * small.numel()
        self.queue.enqueue(query, _first_of_each(sample.pixel, sample.labels), ids)
        key, key_labels, key_ids = self.queue.read()
        loss, log_likelihood = self.loss.terms(
            query,
            sample.labels,
            key,
            key_labels,
            sample.log_prior,
            query_ids=ids,
            key_ids=key_ids,
        )
        return {
            'loss_contrast': loss,
            'acc_contrast': _accuracy(log_likelihood + sample.log_prior, sample.labels),
            'contrast_temperature': self.loss.temperature,
            'queue_fill': self.queue.fill(),
        }


def _first_of_each(index: Tensor, labels: Tensor) -> Tensor:
    """Labels with -1 for every repetition of a pixel: a ring should not fill with one pixel."""
    order = index.argsort(stable=True)
    repeated = torch.zeros_like(index, dtype=torch.bool)
    repeated[order[1:]] = index[order[1:]] == index[order[:-1]]
    return labels.masked_fill(repeated, -1)


def _accuracy(log_joint: Tensor, labels: Tensor) -> Tensor:
    known = labels >= 0
    correct = (log_joint.argmax(1) == labels) & known
    return 100 * correct.sum() / known.sum().clamp(min=1)

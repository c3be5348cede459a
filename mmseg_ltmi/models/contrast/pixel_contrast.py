"""The contrastive term of a decode head: sampler, projection, queue and loss, joined."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ltmi.models.grid import features_on_grid, labels_on_grid, pick
from mmseg_ltmi.models.losses.prior_buffer import PriorHolder


@MODELS.register_module()
class PixelContrast(PriorHolder):
    """Label-aware contrast between the pixels of a batch and a class-wise queue.

    By itself it stores the queries' embeddings. With ``key_channels`` the contrast samples are a
    teacher's pixel features: the queue stores them as they are, and ``key_projector`` embeds all of
    it anew in every step, so that gradient reaches that projection.

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
        key_channels: channels of the teacher's pixel feature (the segmentor fills it in); None
            stores the queries' embeddings.
        key_projector: config of the projection of a teacher's features; None takes ``projector``.

    Raises:
        ValueError: ``key_projector`` gives another width than ``projector``.
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
        key_channels: int | None = None,
        key_projector: dict | None = None,
    ) -> None:
        super().__init__(None, num_classes)
        projector = {'type': 'ProjectionHead', **(projector or {})}
        self.projector = MODELS.build({'in_channels': in_channels, **projector})
        self.key_projector = None
        if key_channels is not None:
            key_projector = {**projector, **(key_projector or {})}
            self.key_projector = MODELS.build({'in_channels': key_channels, **key_projector})
            widths = (self.projector.out_channels, self.key_projector.out_channels)
            if widths[0] != widths[1]:
                raise ValueError(
                    f'PixelContrast.projector embeds into {widths[0]} channels and key_projector '
                    f'into {widths[1]}: give both the same out_channels'
                )
        self.sampler = MODELS.build({'type': 'ClassBalancedPixelSampler', **(sampler or {})})
        self.queue = MODELS.build(
            {
                'type': 'ClassQueue',
                'num_classes': num_classes,
                'channels': key_channels or self.projector.out_channels,
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

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        has_queue = f'{prefix}queue.samples' in state_dict
        projects_keys = any(key.startswith(f'{prefix}key_projector.') for key in state_dict)
        if has_queue and projects_keys != (self.key_projector is not None):
            reason = "the checkpoint's keys are embeddings, a teacher's are features, or vice versa"
            self.queue.keep_own(state_dict, f'{prefix}queue.', reason)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        logits: Tensor | None = None,
        key_features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The term and what there is to know about it.

        Args:
            features: pixel features (B, in_channels, h, w).
            labels: int64 (B, H, W); they are brought to (h, w) by the nearest pixel.
            logits: raw scores (B, C, h, w), where the sampler wants them.
            key_features: the teacher's pixel features (B, key_channels, *, *) of the same images;
                they are brought to (h, w) bilinearly.

        Returns:
            ``loss_contrast``, and the diagnostics ``acc_contrast`` (% of the queries whose class
            has the highest posterior under the mixture), ``contrast_temperature`` and
            ``queue_fill`` (share of the slots in use).

        Raises:
            ValueError: ``key_features`` without ``key_channels`` or the other way round.
        """
        if (key_features is None) != (self.key_projector is None):
            raise ValueError(
                'PixelContrast takes key_features if it was built with key_channels, and only '
                'then: DistilledEncoderDecoder gives it both'
            )
        self.observe(labels, self.queue.num_classes)
        log_prior = self.required_log_prior()
        size = features.shape[2:]
        small = labels_on_grid(labels, size)
        sample = self.sampler(small, log_prior, logits)
        # Pixels are picked before they are projected: the rest of the map costs nothing.
        query = self.projector(pick(features, sample.pixel))
        if key_features is None:
            stored = query
        else:
            stored = pick(features_on_grid(key_features, size), sample.pixel)

        rank, world_size = get_dist_info()
        ids = sample.pixel * world_size + rank  # unique also where ranks' batches differ in size
        self.queue.enqueue(stored, _first_of_each(sample.pixel, sample.labels), ids)
        key, key_labels, key_ids = self.queue.read()
        if self.key_projector is not None:
            key = self.key_projector(key)
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

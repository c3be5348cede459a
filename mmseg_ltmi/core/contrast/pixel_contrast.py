"""The contrastive term: sampler, projection, queue and loss, joined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..distributed import rank_and_world_size
from ..losses import GMLLoss
from ..pixel_maps import class_means, gather_pixels, resize_features, resize_labels
from ..priors import PriorBuffer, PriorUser
from ..rank_check import RankCheck
from ..state_dict_hooks import before_load, rename_keys
from ..training_step import is_training_step
from .class_queue import ClassQueue
from .pixel_sampler import ClassBalancedPixelSampler
from .projection_head import ProjectionHead

Part = nn.Module | dict | None
"""A module, or the arguments of one; ``type`` in them is a class, the default's if left out."""


class PixelContrast(PriorUser):
    """Label-aware contrast between the pixels of a batch and a class-wise queue.

    By itself it stores the queries' embeddings. With ``key_channels`` the contrast samples are a
    teacher's pixel features: the queue stores them as they are, and ``key_projector`` embeds all of
    it anew in every step, so that gradient reaches that projection.

    Args:
        in_channels: channels of the pixel feature (a decode head fills it in).
        num_classes: C (a decode head fills it in).
        class_prior: as for LogitAdjustedLoss; it sizes the queue, and it is the queries'
            distribution where the sampler draws uniformly. With 'online' every class gets the
            same share of the queue, which is laid out before anything is counted. In a decode
            head, None takes the prior of the head's loss.
        projector: the projection head, or its arguments.
        sampler: the pixel sampler, or its arguments; ClassBalancedPixelSampler by default.
        queue: the queue, or its arguments.
        loss: the loss, or its arguments.
        key_channels: channels of the teacher's pixel feature (the segmentor fills it in); None
            stores the queries' embeddings.
        key_projector: the projection of a teacher's features, or its arguments; None takes those
            of ``projector``.
        region_keys: store the mean feature of each class in each image, too, so that a rare class
            gets keys from every image that holds it, however few of its pixels are drawn. Each rank
            must have as many images. A mean holds the queries of its class in part; it is no
            query's own key.

    Raises:
        ValueError: ``key_projector`` gives another width than ``projector``.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        class_prior: Any = None,
        projector: Part = None,
        sampler: Part = None,
        queue: Part = None,
        loss: Part = None,
        key_channels: int | None = None,
        key_projector: Part = None,
        region_keys: bool = False,
    ) -> None:
        super().__init__()
        self.prior = PriorBuffer(class_prior, num_classes, 'PixelContrast.class_prior')
        self.projector: Any = _built(projector, ProjectionHead, in_channels=in_channels)
        self.key_projector: Any = None
        if key_channels is not None:
            if key_projector is None or isinstance(key_projector, dict):
                own = projector if isinstance(projector, dict) else {}
                key_projector = {**own, **(key_projector or {})}
            self.key_projector = _built(key_projector, ProjectionHead, in_channels=key_channels)
            widths = (self.projector.out_channels, self.key_projector.out_channels)
            if widths[0] != widths[1]:
                raise ValueError(
                    f'PixelContrast.projector embeds into {widths[0]} channels and key_projector '
                    f'into {widths[1]}: give both the same out_channels'
                )
        self.sampler: Any = _built(sampler, ClassBalancedPixelSampler)
        channels = key_channels or self.projector.out_channels
        self.queue: Any = _built(queue, ClassQueue, num_classes=num_classes, channels=channels)
        self.region_keys = region_keys
        self.loss: Any = _built(loss, GMLLoss, num_classes=num_classes)
        self._check_ranks = RankCheck()
        self._on_new_prior()
        before_load(self, _adapt_to_own_keys)

    def _on_new_prior(self) -> None:
        # The queue is shared out by it.
        if self.log_prior.numel():  # not open, nor online and without a batch yet
            self.queue.allocate(self.log_prior.exp())

    @property
    def needs_logits(self) -> bool:
        """Whether :meth:`forward` wants the network's scores."""
        return self.sampler.needs_logits

    @property
    def takes_teacher(self) -> bool:
        """Whether the keys are a teacher's features."""
        return self.key_projector is not None

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        logits: Tensor | None = None,
        key_features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The term and what there is to know about it.

        Only a step of training (training mode, gradients computed) stores keys and counts labels.
        Elsewhere, as in a validation loss, the keys are those of the queue as it stands; no query
        has its own among them.

        Args:
            features: pixel features (B, in_channels, h, w).
            labels: int64 (B, H, W); they are brought to (h, w) by a cell's first pixel. What is
                outside 0..C-1 takes no part.
            logits: raw scores (B, C, h, w), where the sampler wants them.
            key_features: the teacher's pixel features (B, key_channels, *, *) of the same images;
                they are brought to (h, w) bilinearly.

        Returns:
            ``loss_contrast``, and the diagnostics ``acc_contrast`` (% of the queries whose class
            has the highest posterior under the mixture of all other keys),
            ``contrast_temperature`` and ``queue_fill`` (share of the slots in use).

        Raises:
            ValueError: ``key_features`` without ``key_channels`` or the other way round.
            RuntimeError: the class prior is still open; in training, the parameters differ between
                ranks.
        """
        if (key_features is None) == self.takes_teacher:
            raise ValueError(
                'PixelContrast takes key_features if it was built with key_channels, and only then '
                '(DistilledEncoderDecoder gives it both)'
            )
        is_step = is_training_step(self)
        if is_step:
            self._check_ranks(self)
        if is_step and self.counts_labels:
            self.prior.count(labels, self.queue.num_classes)
        log_prior = self.prior.required()
        size = features.shape[2:]
        small = resize_labels(labels, size)
        sample = self.sampler(small, log_prior, logits)
        source = features if key_features is None else resize_features(key_features, size)
        # Before the queries, so that these are the last that a hook on the projector sees.
        regions = self._regions(source, small) if is_step and self.region_keys else None
        # Pixels are picked before they are projected: the rest of the map costs nothing.
        query = self.projector(gather_pixels(features, sample.pixel))

        rank, world_size = rank_and_world_size()
        ids = sample.pixel * world_size + rank  # unique also where ranks' batches differ in size
        if is_step:
            stored = query if key_features is None else gather_pixels(source, sample.pixel)
            rows = [stored.detach(), _first_of_each(sample.pixel, sample.labels), ids]
            if regions is not None:
                rows = [torch.cat(pair) for pair in zip(rows, regions, strict=True)]
            self.queue.enqueue(*rows)
        key, key_labels, key_ids = self.queue.read()
        if not is_step:  # identities are of the last step
            key_ids.fill_(-1)
        if self.takes_teacher:
            key = self.key_projector(key)
        loss, log_likelihood = self.loss.with_likelihood(
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

    @torch.no_grad()
    def _regions(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class means as they are stored (B*C, D), their classes, and identities of no query."""
        means, classes = class_means(features, labels, self.queue.num_classes)
        stored = means if self.takes_teacher else self.projector(means)
        return stored, classes, torch.full_like(classes, -1)


def _built(part: Part, default: type[nn.Module], **filled: Any) -> nn.Module:
    if isinstance(part, nn.Module):
        return part
    arguments = {**filled, **(part or {})}
    kind = arguments.pop('type', default)
    return kind(**arguments)


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


def _adapt_to_own_keys(contrast: PixelContrast, state_dict: dict[str, Tensor], prefix: str) -> None:
    rename_keys(state_dict, prefix, {'online_counts': 'prior.online_counts'})
    room = state_dict.get(f'{prefix}queue.room')
    if room is None:
        return
    projects_keys = any(key.startswith(f'{prefix}key_projector.') for key in state_dict)
    own = contrast.queue.room.to(room)
    reason = ''
    if projects_keys != contrast.takes_teacher:
        reason = "the checkpoint's keys are embeddings, a teacher's are features, or vice versa"
    elif not contrast.prior.is_open and room.shape == own.shape and not torch.equal(room, own):
        reason = "the checkpoint's queue is shared out by another class prior"
    if reason:
        contrast.queue.reject(state_dict, f'{prefix}queue.', reason)

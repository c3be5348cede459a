"""An auxiliary classifier of regions, which are the class means of an image: RR and CeCo."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .losses.functional import logit_adjusted_cross_entropy
from .pixel_maps import class_means, resize_labels
from .priors import PresencePrior, PriorBuffer, PriorUser
from .rank_check import RankCheck
from .training_step import is_training_step


class RegionRebalance(PriorUser):
    """Cross-entropy of the mean feature of each class in each image, for training alone.

    A region is the pixels of one class in one image, and its feature their mean ``z``. A class with
    few pixels counts here like any other, so regions are less imbalanced than pixels. The loss is
    ``CE(W z + b + tau log pi, c)``, the mean over the regions of the batch, where pi is the prior
    of the *presence* of classes in images. The network's scores are not touched, so it has no
    natural shift; ``W`` and ``b`` are not used in testing.

    The presence is that of the class prior's image counts; of a prior without them the pixel shares
    are taken, with a warning. Beside an online prior the regions are counted as they come, in
    training mode, where gradients are computed.

    Sources: with ``centers='learned'`` Cui et al., "Region Rebalance for Long-Tailed Semantic
    Segmentation", arXiv 2204.01969; with ``'simplex'`` the centre collapse of Zhong et al.,
    "Understanding Imbalanced Semantic Segmentation Through Neural Collapse", CVPR 2023, where W is
    a simplex equiangular tight frame of unit vectors that stays as it is, and b is 0.

    Args:
        in_channels: D, channels of the pixel feature (a decode head fills it in).
        num_classes: C (a decode head fills it in).
        class_prior: as for LogitAdjustedLoss. In a decode head, None takes the prior of the head's
            loss.
        centers: 'learned' or 'simplex'.
        tau: strength of the adjustment; None is 1 for learned centres and 0 for the simplex, as in
            the papers. With 0 no prior is needed.
        loss_weight: factor of the loss; the default is that of mmsegmentation's auxiliary heads.

    Raises:
        ValueError: unknown ``centers``, or a simplex of C centres in fewer than C - 1 channels.
    """

    centers: Tensor | None

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        class_prior: Any = None,
        centers: str = 'learned',
        tau: float | None = None,
        loss_weight: float = 0.4,
    ) -> None:
        super().__init__()
        if centers not in ('learned', 'simplex'):
            raise ValueError(f"RegionRebalance.centers is {centers!r}: use 'learned' or 'simplex'")
        is_learned = centers == 'learned'
        self.num_classes = num_classes
        self.tau = float(is_learned) if tau is None else tau
        self.loss_weight = loss_weight
        self.classifier = nn.Linear(in_channels, num_classes) if is_learned else None
        # No layer, which a head's own initialization would fill with random numbers.
        fixed = None if is_learned else simplex(num_classes, in_channels)
        self.register_buffer('centers', fixed, persistent=False)
        self.prior = PriorBuffer(class_prior, num_classes, 'RegionRebalance.class_prior')
        self.presence: PriorBuffer = PresencePrior(num_classes, 'RegionRebalance.class_prior')
        self._check_ranks = RankCheck()
        self._on_new_prior()

    def _on_new_prior(self) -> None:
        if not self.tau:
            return
        if self.prior.is_online:
            how = dict(type='online', decay=self.prior.decay)
            self.presence = PriorBuffer(how, self.num_classes, 'RegionRebalance.presence')
        elif self.prior.class_prior is not None:
            self.presence.set(self.prior.class_prior)

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The term and what there is to know about it.

        Args:
            features: pixel features (B, D, h, w).
            labels: int64 (B, H, W); they are brought to (h, w) by a cell's first pixel. What is
                outside 0..C-1 takes no part.

        Returns:
            ``loss_region``, a float32 scalar, zero with a graph where no pixel has a class, and
            ``acc_region``, % of the regions whose class has the highest adjusted score.

        Raises:
            RuntimeError: the class prior is still open, and ``tau`` is not 0; in training, the
                parameters differ between ranks.
        """
        is_step = is_training_step(self)
        if is_step:
            self._check_ranks(self)
        if is_step and self.counts_labels:
            self.prior.count(labels, self.num_classes)
        with torch.autocast(features.device.type, enabled=False):
            small = resize_labels(labels, features.shape[2:])
            means, region = class_means(features, small, self.num_classes)
            scores = self._scores(means)
            log_prior = self._log_presence(region).to(scores)
            loss = logit_adjusted_cross_entropy(
                scores, region, log_prior, self.tau, ignore_index=-1
            )
        correct = (scores + self.tau * log_prior).argmax(1) == region
        accuracy = 100 * correct.sum() / (region >= 0).sum().clamp(min=1)
        return {'loss_region': self.loss_weight * loss, 'acc_region': accuracy}

    def _scores(self, means: Tensor) -> Tensor:
        if self.centers is not None:
            return F.linear(means, self.centers.to(means))
        classifier: Any = self.classifier
        return classifier(means.to(classifier.weight))

    def _log_presence(self, region: Tensor) -> Tensor:
        if not self.tau:
            return torch.zeros(self.num_classes, device=region.device)
        self.prior.required()  # its error says what to do
        if is_training_step(self):
            self.presence.count(region, self.num_classes)
        return self.presence.required()


def simplex(num_classes: int, channels: int) -> Tensor:
    """C unit vectors (C, D) of which any two have the product ``-1 / (C - 1)``, float32.

    ``sqrt(C / (C - 1)) (I - 1/C) U``, with a U of orthonormal rows; always the same ones.

    Raises:
        ValueError: fewer than C - 1 channels, in which there are none.
    """
    if channels < num_classes - 1:
        raise ValueError(
            f"RegionRebalance.centers='simplex' needs {num_classes - 1} channels for {num_classes} "
            f"classes, and the pixel features have {channels}: use centers='learned', or a head "
            'with more channels'
        )
    centred = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    # Its own C - 1 dimensions, turned at random so that each centre uses all channels.
    basis = torch.linalg.svd(centred).U[:, : num_classes - 1]
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(channels, num_classes - 1, dtype=torch.float64, generator=generator)
    turned = basis @ torch.linalg.qr(random).Q.T
    return F.normalize(turned, dim=1).float()

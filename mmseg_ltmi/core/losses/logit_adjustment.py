"""Logit-adjusted cross-entropy as a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..priors import PriorBuffer, PriorUser
from ..priors.class_prior import occurs
from ..state_dict_hooks import before_load, rename_keys
from ..training_step import is_training_step
from .functional import logit_adjusted_cross_entropy


class LogitAdjustedLoss(PriorUser):
    """``CE(s + tau * log pi, y)``, for any network, and for any decode and auxiliary head.

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 10; Suh &
    Seo, ICML 2023 (arXiv 2305.01160), the parametric model of p(z|y).

    Args:
        class_prior: a published name ('ade20k', 'cityscapes', 'camvid', 'nyuv2'), a path, counts or
            probabilities, a dict or a ClassPrior; None leaves it open until
            :meth:`set_class_prior`, which ClassPriorHook calls; 'online' or
            ``dict(type='online', decay=0.999)`` counts the labels as they come.
        tau: strength of the adjustment; 0 is plain cross-entropy.
        class_weight: None, C numbers, or by name from the prior: 'inverse' (``1 / (C pi_c)``),
            'inverse_sqrt' (its square root) or 'median_frequency' (``median(pi) / pi_c``, the
            median over the classes that occur). Weights make another class distribution of the
            pixels, ``w_c pi_c``; the ``tau`` that matches it is 0 for 'inverse' and
            'median_frequency', 0.5 for 'inverse_sqrt', 1 for None.
        loss_weight: factor of the loss.
        avg_non_ignore: let the mean divide by the valid pixels only. False divides by all pixels,
            as mmsegmentation's CrossEntropyLoss does by default.
        loss_name: name in the log; it must start with ``loss_`` to take part in the backward pass.
        ignore_index: label that takes no part where the caller names none (DDRHead, PIDHead). None
            takes that of an LTMI head, and is 255 elsewhere.
        use_sigmoid: accepted only as False, since base configs leave it behind.
        use_mask: likewise.
        num_classes: C; only an online prior under EMAHook, which copies buffers of a fixed size,
            needs to know it before the first batch. An LTMI head tells it.

    Raises:
        ValueError: ``use_sigmoid`` or ``use_mask`` is set, ``class_weight`` is no known name, not
            C long or not positive, or ``loss_name`` does not start with ``loss_``.
    """

    listed_weight: Tensor | None

    def __init__(
        self,
        class_prior: Any = None,
        tau: float = 1.0,
        class_weight: str | Sequence[float] | None = None,
        loss_weight: float = 1.0,
        avg_non_ignore: bool = True,
        loss_name: str = 'loss_ltmi',
        ignore_index: int | None = None,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if use_sigmoid or use_mask:
            raise ValueError(
                f'{name} is a softmax loss over classes: leave use_sigmoid and use_mask '
                'False. For num_classes=2 with out_channels=1, drop out_channels=1'
            )
        check_loss_name(loss_name, name)
        _check_class_weight(class_weight, name)
        self.class_weight = class_weight
        self.prior = PriorBuffer(class_prior, num_classes, f'{name}.class_prior')
        listed = None
        if class_weight is not None and not isinstance(class_weight, str):
            listed = torch.as_tensor(class_weight, dtype=torch.float32)
        # On the device already: to send a list there in every step would wait for it.
        self.register_buffer('listed_weight', listed, persistent=False)
        self._on_new_prior()
        self.tau = tau
        self.loss_weight = loss_weight
        self.avg_non_ignore = avg_non_ignore
        self.ignore_index = ignore_index
        self._loss_name = loss_name
        before_load(self, _rename_counts)

    @property
    def loss_name(self) -> str:
        return self._loss_name

    @property
    def online_counts(self) -> Tensor:
        """float64 (C,), the running counts of an online prior."""
        return self.prior.online_counts

    def _on_new_prior(self) -> None:
        self._check_weight_length()

    def _check_weight_length(self) -> None:
        weight, known = self.listed_weight, self.log_prior.numel()
        if weight is not None and known not in (0, len(weight)):
            raise ValueError(
                f'{type(self).__name__}.class_weight has {len(weight)} entries, but the class '
                f'prior has {known} classes: give one weight per class'
            )

    def class_weights(self) -> Tensor | None:
        """float32 (C,), or None."""
        if not isinstance(self.class_weight, str):
            self._check_weight_length()  # an online prior learns the number of classes late
            return self.listed_weight
        log_prior = self.prior.required()
        # A class that never occurs has the smoothing's share. Its weight would be a thousand, and a
        # stray label of it would be the whole loss: it takes that of the rarest class that occurs.
        share = log_prior.exp()
        occurring = share.where(occurs(log_prior), torch.nan)
        share = torch.maximum(share, occurring.nan_to_num(nan=torch.inf).min())
        if self.class_weight.startswith('inverse'):
            inverse = 1 / (share * share.numel())
            return inverse.sqrt() if self.class_weight == 'inverse_sqrt' else inverse
        # Over the classes that occur. And torch's median of an even count is the lower one; the
        # usual one is between the two.
        return occurring.nanquantile(0.5) / share

    def natural_shift(self) -> Tensor | None:
        """``tau * log pi - log w`` (C,): raw scores plus this are the natural log-posterior.

        None while the class prior is open or, online, nothing is counted.
        """
        if not self.log_prior.numel():
            return None
        shift, weight = self.trained_shift(), self.class_weights()
        return shift if weight is None else shift - weight.log()

    def trained_shift(self) -> Tensor:
        """``tau * log pi`` (C,): raw scores plus this are what the softmax of training sees."""
        return self.tau * self.prior.required()

    def adjust(self, scores: Tensor) -> Tensor:
        """Scores (N, C, *) plus ``tau * log pi``."""
        shift = self.tau * self.prior.required()
        return scores + shift.view(1, -1, *[1] * (scores.ndim - 2))

    def forward(
        self,
        pred: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss, called as mmsegmentation's heads and its OHEM sampler call theirs.

        An online prior counts the labels in training mode, where gradients are computed.

        Args:
            pred: scores (N, C, H, W).
            label: (N, H, W), int64.
            weight: (N, H, W) weight of each pixel.
            ignore_index: label that takes no part.
            reduction_override: 'none' gives the loss of each pixel, 'sum' their sum.

        Returns:
            a float32 scalar, or (N, H, W).

        Raises:
            TypeError: another argument, which would have no effect.
        """
        ignore_index = named_ignore_index(self, ignore_index)
        if self.counts_labels and is_training_step(self):
            self.prior.count(label, pred.shape[1], ignore_index)
        elif self.prior.is_online:
            self.prior.expect_classes(pred.shape[1], label.device)
        reduction = reduction_override or 'mean'
        return self._weighted(pred, label, self.tau, weight, ignore_index, reduction)

    def of_adjusted(
        self,
        pred: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
    ) -> Tensor:
        """As :meth:`forward`, of scores that :meth:`adjust` has adjusted."""
        ignore_index = named_ignore_index(self, ignore_index)
        return self._weighted(pred, label, 0.0, weight, ignore_index)

    def _weighted(
        self,
        pred: Tensor,
        label: Tensor,
        tau: float,
        weight: Tensor | None,
        ignore_index: int,
        reduction: str = 'mean',
    ) -> Tensor:
        log_prior = self.prior.required()
        self.prior.check_ignore_index(ignore_index)
        if pred.shape[1] != log_prior.numel():
            hint = (
                'a head with out_channels=1 has no class to adjust; drop out_channels=1 so that '
                'it gives num_classes=2 scores'
                if pred.shape[1] == 1
                else 'they must be as many'
            )
            raise ValueError(
                f'the head gives {pred.shape[1]} channels, but the class prior of '
                f'{type(self).__name__} has {log_prior.numel()} classes: {hint}'
            )
        return self.loss_weight * logit_adjusted_cross_entropy(
            self._vary(pred),
            label,
            log_prior,
            tau,
            class_weight=self.class_weights(),
            ignore_index=ignore_index,
            reduction=reduction,
            weight=weight,
            avg_non_ignore=self.avg_non_ignore,
        )

    def _vary(self, pred: Tensor) -> Tensor:
        """The scores as the cross-entropy sees them, for a subclass that adds noise."""
        return pred


class LTMILoss(LogitAdjustedLoss):
    """LogitAdjustedLoss with the recommended defaults.

    Half of the correction is added to the scores (``tau=0.5``), half weighs the pixels
    (``class_weight='inverse_sqrt'``). That did best on CamVid
    (docs/experiments/camvid.md), and better than whole weights on NYUv2.

    Args:
        class_prior: as for LogitAdjustedLoss.
        tau: as for LogitAdjustedLoss.
        class_weight: as for LogitAdjustedLoss.
        kwargs: the other arguments of LogitAdjustedLoss.
    """

    def __init__(
        self,
        class_prior: Any = None,
        tau: float = 0.5,
        class_weight: str | Sequence[float] | None = 'inverse_sqrt',
        **kwargs: Any,
    ) -> None:
        super().__init__(class_prior, tau, class_weight, **kwargs)


def named_ignore_index(loss: Any, told: int | None) -> int:
    """The label that takes no part: what the caller tells, else the loss's own, else 255."""
    own = 255 if loss.ignore_index is None else loss.ignore_index
    return own if told is None else told


def check_loss_name(loss_name: str, where: str) -> None:
    """Raise ValueError for a name that training loops do not take for a loss."""
    if not loss_name.startswith('loss_'):
        raise ValueError(
            f"{where}.loss_name is {loss_name!r}: it must start with 'loss_', or mmengine does not "
            'add it to the total loss and nothing is trained'
        )


def _check_class_weight(class_weight: str | Sequence[float] | None, name: str) -> None:
    if isinstance(class_weight, str):
        if class_weight not in ('inverse', 'inverse_sqrt', 'median_frequency'):
            raise ValueError(
                f"{name}.class_weight is {class_weight!r}: use 'inverse', "
                "'inverse_sqrt', 'median_frequency', a list of numbers or None"
            )
    elif class_weight is not None:
        values = torch.as_tensor(class_weight, dtype=torch.float32)  # as it is used
        if values.ndim != 1 or not bool((values.isfinite() & (values > 0)).all()):
            raise ValueError(
                f'{name}.class_weight must be positive finite numbers, one per class, '
                f'but is {class_weight!r}'
            )


def _rename_counts(_: LogitAdjustedLoss, state_dict: dict[str, Tensor], prefix: str) -> None:
    rename_keys(state_dict, prefix, {'online_counts': 'prior.online_counts'})

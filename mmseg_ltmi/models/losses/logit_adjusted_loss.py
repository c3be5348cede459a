"""Logit-adjusted cross-entropy as a ``loss_decode``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ltmi.priors import ClassPrior

from .functional import logit_adjusted_cross_entropy
from .prior_buffer import PriorHolder


@MODELS.register_module()
class LogitAdjustedLoss(PriorHolder):
    """``CE(s + tau * log pi, y)``, for any decode head and auxiliary head.

    Args:
        class_prior: a published name ('ade20k', 'cityscapes', 'camvid'), a path, counts or
            probabilities, a dict or a ClassPrior; None leaves it to ClassPriorHook; 'online' or
            ``dict(type='online', decay=0.999)`` counts the labels as they come.
        tau: strength of the adjustment; 0 is plain cross-entropy.
        class_weight: None, C numbers, or by name from the prior: 'inverse' (``1 / (C pi_c)``),
            'inverse_sqrt' (its square root) or 'median_frequency' (``median(pi) / pi_c``). Weights
            make another class distribution of the pixels, ``w_c pi_c``; the ``tau`` that matches
            it is 0 for 'inverse' and 'median_frequency', 0.5 for 'inverse_sqrt', 1 for None.
        loss_weight: factor of the loss.
        avg_non_ignore: let the mean divide by the valid pixels only. False divides by all pixels,
            as mmsegmentation's CrossEntropyLoss does by default.
        loss_name: name in the log; it must start with ``loss_`` to take part in the backward pass.
        ignore_index: label that takes no part where the caller names none (DDRHead, PIDHead).
        use_sigmoid: accepted only as False, since base configs leave it behind.
        use_mask: likewise.
        num_classes: C; only an online prior under EMAHook, which copies buffers of a fixed size,
            needs to know it before the first batch.

    Raises:
        ValueError: ``use_sigmoid`` or ``use_mask`` is set, ``class_weight`` is no known name, not
            C long or not positive.
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
        ignore_index: int = 255,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        num_classes: int | None = None,
    ) -> None:
        if use_sigmoid or use_mask:
            raise ValueError(
                'LogitAdjustedLoss is a softmax loss over classes: leave use_sigmoid and use_mask '
                'False. For num_classes=2 with out_channels=1, drop out_channels=1'
            )
        _check_class_weight(class_weight)
        self.class_weight = class_weight
        super().__init__(class_prior, num_classes)
        listed = None
        if class_weight is not None and not isinstance(class_weight, str):
            listed = torch.as_tensor(class_weight, dtype=torch.float32)
        # On the device already: to send a list there in every step would wait for it.
        self.register_buffer('listed_weight', listed, persistent=False)
        self.tau = tau
        self.loss_weight = loss_weight
        self.avg_non_ignore = avg_non_ignore
        self.ignore_index = ignore_index
        self._loss_name = loss_name
        self._prior_is_in_scores = False

    @property
    def loss_name(self) -> str:
        return self._loss_name

    def set_class_prior(self, prior: ClassPrior) -> None:
        weight = self.class_weight
        if weight is not None and not isinstance(weight, str) and len(weight) != prior.num_classes:
            raise ValueError(
                f'LogitAdjustedLoss.class_weight has {len(weight)} entries, but the class prior '
                f'has {prior.num_classes} classes: give one weight per class'
            )
        super().set_class_prior(prior)

    def class_weights(self) -> Tensor | None:
        """float32 (C,), or None."""
        if not isinstance(self.class_weight, str):
            return self.listed_weight
        log_prior = self.required_log_prior()
        inverse = (-log_prior).exp() / log_prior.numel()
        if self.class_weight.startswith('inverse'):
            return inverse.sqrt() if self.class_weight == 'inverse_sqrt' else inverse
        # torch's median of an even count is the lower one; the usual one is between the two.
        return log_prior.exp().quantile(0.5) / log_prior.exp()

    def natural_shift(self) -> Tensor | None:
        """``tau * log pi - log w`` (C,): raw scores plus this are the natural log-posterior.

        None while the class prior is open or, online, nothing is counted.
        """
        if not self.log_prior.numel():
            return None
        shift = self.tau * self.log_prior
        weight = self.class_weights()
        return shift if weight is None else shift - weight.log()

    @contextmanager
    def prior_in_scores(self) -> Iterator[None]:
        """Within this, the scores that :meth:`forward` takes hold ``tau * log pi`` already."""
        self._prior_is_in_scores = True
        try:
            yield
        finally:
            self._prior_is_in_scores = False

    def forward(
        self,
        pred: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        **_: Any,
    ) -> Tensor:
        """The loss, called as mmsegmentation's heads call theirs.

        Args:
            pred: scores (N, C, H, W).
            label: (N, H, W), int64.
            weight: (N, H, W) weight of each pixel.
            ignore_index: label that takes no part.

        Returns:
            a float32 scalar.
        """
        if self.training or not self.log_prior.numel():
            self.observe(label, pred.shape[1])
        log_prior = self.required_log_prior()
        if pred.shape[1] != log_prior.numel():
            hint = (
                'a head with out_channels=1 has no class to adjust; drop out_channels=1 so that '
                'it gives num_classes=2 scores'
                if pred.shape[1] == 1
                else 'they must be as many'
            )
            raise ValueError(
                f'the head gives {pred.shape[1]} channels, but the class prior of '
                f'LogitAdjustedLoss has {log_prior.numel()} classes: {hint}'
            )
        return self.loss_weight * logit_adjusted_cross_entropy(
            pred,
            label,
            log_prior,
            0.0 if self._prior_is_in_scores else self.tau,
            class_weight=self.class_weights(),
            ignore_index=self.ignore_index if ignore_index is None else ignore_index,
            weight=weight,
            avg_non_ignore=self.avg_non_ignore,
        )


def _check_class_weight(class_weight: str | Sequence[float] | None) -> None:
    if isinstance(class_weight, str):
        if class_weight not in ('inverse', 'inverse_sqrt', 'median_frequency'):
            raise ValueError(
                f"LogitAdjustedLoss.class_weight is {class_weight!r}: use 'inverse', "
                "'inverse_sqrt', 'median_frequency', a list of numbers or None"
            )
    elif class_weight is not None:
        values = torch.as_tensor(class_weight, dtype=torch.float64)
        if values.ndim != 1 or not bool((values.isfinite() & (values > 0)).all()):
            raise ValueError(
                f'LogitAdjustedLoss.class_weight must be positive finite numbers, one per class, '
                f'but is {class_weight!r}'
            )

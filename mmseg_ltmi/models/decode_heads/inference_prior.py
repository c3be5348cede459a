"""How a head's raw scores are read at inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmseg_ltmi.models.losses.natural_shift import first_stated
from mmseg_ltmi.models.optional_state import OptionalState
from mmseg_ltmi.priors import build_class_prior


class InferencePrior(OptionalState):
    """Shift of raw scores to ``log p_nat(c|x) - tau_test * log pi_c``.

    Both parts are buffers, so that a checkpoint carries its own meaning. A stock checkpoint has
    neither; what the config says then stays.

    Args:
        num_classes: C.
        class_prior: as for LogitAdjustedLoss; None takes the one of the loss.
        tau_test: 0 reads the natural posterior, 1 the balanced classifier.

    Attributes:
        natural_shift: float32 (C,), what the loss trained into the scores; NaN while unknown.
        log_prior: float32 (C,), NaN while unknown.
    """

    natural_shift: Tensor
    log_prior: Tensor

    def __init__(self, num_classes: int, class_prior: Any = None, tau_test: float = 0.0) -> None:
        super().__init__()
        self.tau_test = tau_test
        self.register_buffer('natural_shift', torch.full((num_classes,), torch.nan))
        self.register_buffer('log_prior', torch.full((num_classes,), torch.nan))
        self.has_own_prior = class_prior is not None
        if self.has_own_prior:
            prior = build_class_prior(class_prior, num_classes, "the head's class_prior")
            self.log_prior.copy_(prior.log_probs())

    @torch.no_grad()
    def follow(self, losses: list[nn.Module]) -> None:
        """Take the natural shift, and the prior if the head has none of its own, from the losses.

        The first loss that states a shift speaks for the head.
        """
        stated = first_stated(losses, self.natural_shift.numel())
        if stated is not None:
            loss, shift = stated
            self.natural_shift.copy_(shift)
            log_prior = getattr(loss, 'log_prior', None)
            if log_prior is not None and not self.has_own_prior:
                self.log_prior.copy_(log_prior)

    def shift(self) -> Tensor:
        """What is added to raw scores, float32 (C,).

        Raises:
            RuntimeError: ``tau_test`` is not zero and the class prior is unknown.
        """
        # Unknown means that no loss gave these scores another meaning: they are read as they are.
        shift = self.natural_shift.nan_to_num(nan=0.0)
        if self.tau_test:
            if self.log_prior.isnan().any():
                raise RuntimeError(
                    f'tau_test={self.tau_test} needs the class prior, which neither the config '
                    'nor the checkpoint gives: set decode_head.class_prior (a name such as '
                    "'ade20k', a path or counts)"
                )
            shift = shift - self.tau_test * self.log_prior
        return shift

    def forward(self, logits: Tensor) -> Tensor:
        """Raw scores (B, C, ...) to the scores that argmax reads; errors as :meth:`shift`."""
        return logits + self.shift().to(logits).view(1, -1, *[1] * (logits.ndim - 2))

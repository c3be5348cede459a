"""A class prior that a module holds, given now or filled in before the run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmseg_ltmi.priors import ClassPrior, build_class_prior


class PriorHolder(nn.Module):
    """Base of the modules with a ``class_prior`` argument.

    ``class_prior=None`` leaves the prior open: ``needs_class_prior`` is then True and
    :class:`ClassPriorHook` calls :meth:`set_class_prior` before the run.

    Attributes:
        log_prior: float32 (C,), or (0,) while the prior is open. It is not saved: the config or
            the hook gives it again, and the head keeps what a checkpoint needs.
    """

    log_prior: Tensor

    def __init__(self, class_prior: Any = None, num_classes: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer('log_prior', torch.empty(0), persistent=False)
        if class_prior is not None:
            self.set_class_prior(build_class_prior(class_prior, num_classes, self._where))

    @property
    def _where(self) -> str:
        return f'{type(self).__name__}.class_prior'

    @property
    def needs_class_prior(self) -> bool:
        return self.log_prior.numel() == 0

    def set_class_prior(self, prior: ClassPrior) -> None:
        """Take the prior; its length must be ``num_classes`` where that is known."""
        if self.num_classes is not None:
            prior = build_class_prior(prior, self.num_classes, self._where)
        self.log_prior = prior.log_probs().to(self.log_prior.device)

    def required_log_prior(self) -> Tensor:
        """The log-prior.

        Raises:
            RuntimeError: it is still open.
        """
        if self.needs_class_prior:
            raise RuntimeError(
                f'{self._where} is None and nothing has filled it in: name a prior '
                "(class_prior='ade20k', a path, a list of counts), or add "
                "custom_hooks=[dict(type='ClassPriorHook')] to count the train set before the run"
            )
        return self.log_prior

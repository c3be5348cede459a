"""A module that has a class prior, of its own or shared with others of the head."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..buffer_dtype import KeepBufferDtype
from .prior_buffer import PriorBuffer


class PriorUser(KeepBufferDtype):
    """What has a prior: it is set now, later, or by another module that has the same one.

    Attributes:
        prior: to be set by ``__init__``.
        counts_labels: False where another module that shares the prior counts the labels already.
    """

    prior: PriorBuffer
    counts_labels = True

    @property
    def log_prior(self) -> Tensor:
        """float32 (C,), or (0,) while the prior is open."""
        return self.prior.log_prior

    @property
    def needs_class_prior(self) -> bool:
        """Whether it waits for :meth:`set_class_prior`."""
        return self.prior.is_waiting

    def set_class_prior(self, class_prior: Any) -> None:
        """Set the prior, in any form that the argument takes."""
        self.prior.set(class_prior)
        self._on_new_prior()

    def share_prior(self, prior: PriorBuffer) -> None:
        """Use another module's prior as its own; that module counts the labels."""
        self.prior, self.counts_labels = prior, False
        self._on_new_prior()

    def _on_new_prior(self) -> None:
        """Called where the prior has become another one."""

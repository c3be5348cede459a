"""Tells metrics the prior of the model that they judge, by mmengine's MessageHub."""

from __future__ import annotations

from mmengine.logging import MessageHub
from torch import Tensor

from mmseg_ltmi.core.priors import ClassPrior

ENTRY = 'class_prior'


def announce_prior(prior: ClassPrior | Tensor) -> None:
    """Called by an LTMI head that predicts.

    Args:
        prior: its prior; or of one that only its checkpoint knows, log pi (C,), NaN if unknown.
    """
    MessageHub.get_current_instance().update_info(ENTRY, prior, resumed=False)


def announced_prior(num_classes: int) -> ClassPrior | None:
    """The prior of the LTMI head that predicted last in this run; None if there is none."""
    found = MessageHub.get_current_instance().runtime_info.get(ENTRY)
    if isinstance(found, Tensor):
        if found.isnan().any():
            return None
        found = ClassPrior(found.double().exp(), source="the checkpoint's")
    if not isinstance(found, ClassPrior) or found.num_classes != num_classes:
        return None
    return found

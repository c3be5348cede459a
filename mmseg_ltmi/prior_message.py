"""Tells metrics the prior and the reading of the model that predicts, by mmengine's MessageHub."""

from __future__ import annotations

from mmengine.logging import MessageHub
from torch import Tensor

from mmseg_ltmi.core.priors import ClassPrior

ENTRY = 'class_prior'
MOVES = 'class_prior_is_online'
READING = 'reading_shift'
OPINIONS = 'opinions'


def announce_prior(prior: ClassPrior | Tensor, is_online: bool = False) -> None:
    """Called by an LTMI head that predicts.

    Args:
        prior: its prior; or of one that only its checkpoint knows, log pi (C,), NaN if unknown.
        is_online: whether it still moves, so that another one may be named beside it.
    """
    hub = MessageHub.get_current_instance()
    hub.update_info(ENTRY, prior, resumed=False)
    hub.update_info(MOVES, is_online, resumed=False)


def announced_prior(num_classes: int) -> ClassPrior | None:
    """The prior of the LTMI head that predicted last in this run; None if there is none."""
    found = MessageHub.get_current_instance().runtime_info.get(ENTRY)
    if isinstance(found, Tensor):
        if found.isnan().any():
            return None
        found = ClassPrior.from_log_probs(found, source="the checkpoint's")
    if not isinstance(found, ClassPrior) or found.num_classes != num_classes:
        return None
    return found


def announce_reading(shift: Tensor, opinions: float = 1.0) -> None:
    """Called by what reads scores.

    Args:
        shift: float32 (C,), what is added to the natural log-posterior; NaN where the scores do not
            tell the natural one.
        opinions: the sum of the weights whose mean the log-posterior is, 1 + lambda with a memory.
            A tau comes off the sum (docs/method.md).
    """
    hub = MessageHub.get_current_instance()
    hub.update_info(READING, shift, resumed=False)
    hub.update_info(OPINIONS, opinions, resumed=False)


def announced_reading(num_classes: int) -> Tensor | None:
    """What was added to the scores of the model that predicted last; None if nobody said so."""
    found = MessageHub.get_current_instance().runtime_info.get(READING)
    return found if isinstance(found, Tensor) and found.shape == (num_classes,) else None


def announced_opinions() -> float:
    """The sum of the weights whose mean the scores are, of the model that predicted last."""
    return float(MessageHub.get_current_instance().runtime_info.get(OPINIONS, 1.0))


def forget_reading() -> None:
    """Called when an evaluation ends: the next one may be of a model that says nothing."""
    for entry in (READING, OPINIONS):
        MessageHub.get_current_instance().runtime_info.pop(entry, None)


def forget_announcements() -> None:
    """Called when another evaluation begins, which may be of another model."""
    forget_reading()
    for entry in (ENTRY, MOVES):
        MessageHub.get_current_instance().runtime_info.pop(entry, None)


def announced_prior_moves() -> bool:
    """Whether the announced prior is online."""
    return bool(MessageHub.get_current_instance().runtime_info.get(MOVES))

"""Whether a head that refines another's scores can be read with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads import PointHead

from mmseg_ltmi.core.posterior import losses_of, predicting_losses_of, stated_shift
from mmseg_ltmi.core.priors import PriorUser, is_same_log_prior


def check_refinement(heads: Sequence[Any]) -> bool:
    """Refuse a PointHead that trains other scores than the coarse head before it.

    PointHead starts from the coarse head's raw scores and replaces those of some points. The result
    is read by one shift, so that both must have it.

    Args:
        heads: the decode heads of a segmentor, in their order.

    Returns:
        False while a shift is unknown, as that of an open prior: ask again.

    Raises:
        ValueError: the shifts differ, or will as soon as an online prior counts.
    """
    if len(heads) < 2 or not isinstance(heads[-1], PointHead):
        return True
    pair = heads[-2:]
    remedy = (
        'PointHead replaces some of the coarse scores, and all are read by one shift: give both '
        'the same loss_decode'
    )
    for head in pair:
        if any(isinstance(loss, PriorUser) and loss.prior.is_online for loss in losses_of(head)):
            raise ValueError(
                f'{type(head).__name__} has an online prior, which is counted over other pixels in '
                f'a coarse head than in a PointHead. {remedy}, with a prior that is no online one '
                '(a file of mmseg-ltmi count)'
            )
    shifts = [stated_shift(predicting_losses_of(head), head.num_classes) for head in pair]
    # A constant changes nothing.
    known = [shift - shift.mean() for shift in shifts if shift is not None]
    if len(known) < 2:
        return False
    if not is_same_log_prior(*known):
        names = [
            f'{type(head).__name__} ({", ".join(type(x).__name__ for x in losses_of(head))})'
            for head in pair
        ]
        raise ValueError(f'{names[0]} and {names[1]} shift the scores of classes apart. {remedy}')
    return True

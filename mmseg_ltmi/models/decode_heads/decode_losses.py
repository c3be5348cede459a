"""Which losses have another place than ``loss_decode``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

ELSEWHERE = {
    'GMLLoss': 'it is a loss of features: give contrast=dict(loss=dict(...)) to the LTMI head',
    'DistillationLoss': 'it compares with a teacher: give alpha=1.0 to DistilledEncoderDecoder',
}


def check_decode_losses(losses: Any, name: str) -> None:
    """Refuse losses that take no scores and labels.

    Args:
        losses: one or several, configs or modules.
        name: of the head.

    Raises:
        ValueError: it names the place of the loss.
    """
    several = losses if isinstance(losses, (list, tuple, nn.ModuleList)) else [losses]
    for loss in several:
        kind = loss.get('type') if isinstance(loss, Mapping) else type(loss)
        kind = getattr(kind, '__name__', str(kind)).split('.')[-1]
        if kind in ELSEWHERE:
            raise ValueError(f'{kind} cannot be loss_decode of {name}: {ELSEWHERE[kind]}')

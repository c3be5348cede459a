"""Of which weights a network's memory or operating point was made."""

from __future__ import annotations

import hashlib

from torch import nn

from mmseg_ltmi.core.posterior import (
    ClassMemory,
)
from mmseg_ltmi.models.decode_heads.classifiers import CLASSIFIERS
from mmseg_ltmi.models.decode_heads.ltmi_head import OWN_LOSSES

from .heads import last_head


def classifier_fingerprint(model: nn.Module) -> str:
    """16 hex digits of the last head's classifier, or of the whole head where there is none.

    Weights that were trained on, if only for a step, have another one.
    """
    state = last_head(model).state_dict()
    parts = {key.split('.')[0] for key in state}
    part = next((name for name in CLASSIFIERS if name in parts), None)
    digest = hashlib.sha256()
    for key, value in state.items():
        own = key.split('.')[0]
        if own == part or (part is None and own not in ('score_reader', *OWN_LOSSES)):
            digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_memory(model: nn.Module, memory: ClassMemory, where: str) -> None:
    """Raise ValueError where a memory does not fit a segmentor.

    Args:
        model: whose weights need not be loaded yet.
        memory: to check; of which weights its keys are is checked by :func:`check_memory_weights`.
        where: names the memory.
    """
    head = last_head(model)
    classifier = getattr(head, 'conv_seg', None)
    if classifier is None:
        raise ValueError(
            f'{type(head).__name__} has no conv_seg over a feature map, so there are no pixel '
            'features that a memory could read'
        )
    own = (head.num_classes, classifier.in_channels)
    if (memory.num_classes, memory.in_channels) != own:
        raise ValueError(
            f'{where} is of another model: it reads {memory.in_channels} channels and has '
            f'{memory.num_classes} classes, the model has {own[1]} and {own[0]}'
        )


def check_memory_weights(model: nn.Module, memory: ClassMemory, where: str) -> None:
    """Raise ValueError where a memory was made of other weights than the model has."""
    found = classifier_fingerprint(model)
    if memory.fingerprint and memory.fingerprint != found:
        raise ValueError(
            f'{where} is of another checkpoint: it was made for a classifier with fingerprint '
            f'{memory.fingerprint}, this one has {found}. Make it again with mmseg-ltmi memory'
        )

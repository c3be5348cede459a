"""Of which weights a network's memory or operating point was made."""

from __future__ import annotations

import hashlib

from torch import nn

from mmseg_ltmi.core.posterior import ClassMemory
from mmseg_ltmi.models.checkpoint_file import is_needed_to_predict
from mmseg_ltmi.models.decode_heads.classifiers import CLASSIFIERS
from mmseg_ltmi.models.decode_heads.ltmi_head import OWN_LOSSES

from .heads import last_head


def network_fingerprint(model: nn.Module) -> str:
    """Hex digits of the last head's classifier and, behind a dash, of all that predicts.

    Weights that were trained on, if only for a step, have another one.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if is_needed_to_predict(name):
            digest.update(value.detach().float().cpu().numpy().tobytes())
    return f'{_classifier_fingerprint(model)}-{digest.hexdigest()[:16]}'


def has_fingerprint(model: nn.Module, stated: str) -> bool:
    """Whether a fingerprint is a model's. Those of earlier versions are of the classifier alone."""
    found = network_fingerprint(model)
    return stated in (found, found.partition('-')[0])


def _classifier_fingerprint(model: nn.Module) -> str:
    # Of the whole head where there is none.
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
    if memory.fingerprint and not has_fingerprint(model, memory.fingerprint):
        raise ValueError(
            f'{where} is of another checkpoint: it was made for a network with fingerprint '
            f'{memory.fingerprint}, this one has {network_fingerprint(model)}. Make it again with '
            'mmseg-ltmi memory'
        )

"""Which classifier takes the place of a head's ``conv_seg``."""

from __future__ import annotations

from mmseg.registry import MODELS
from torch import nn

from mmseg_ltmi.core.cosine_classifier import CosineClassifier

MODELS.register_module(module=CosineClassifier)
CLASSIFIERS = ('conv_seg', 'cls_embed', 'cls_emb', 'fc_seg', 'kernel_generate_head')
"""What mmsegmentation's heads call theirs."""
SHORT_NAMES = {'cosine': 'CosineClassifier'}


def build_classifier(config: dict, conv_seg: nn.Conv2d) -> nn.Module:
    """The classifier that a head's ``classifier`` argument asks for.

    Args:
        config: ``dict(type='linear')`` keeps ``conv_seg``; ``dict(type='cosine', scale=30)``; or a
            registered module, which gets ``in_channels`` and ``out_channels``.
        conv_seg: the head's linear classifier.

    Raises:
        ValueError: another type.
    """
    kind = config.get('type')
    kind = SHORT_NAMES.get(kind, kind) if isinstance(kind, str) else kind
    if kind == 'linear' and set(config) == {'type'}:
        return conv_seg
    if kind is None or kind == 'linear' or (isinstance(kind, str) and MODELS.get(kind) is None):
        raise ValueError(
            f"classifier={config}: use dict(type='linear') or dict(type='cosine', scale=30), or a "
            'type that is registered in MODELS'
        )
    channels = dict(in_channels=conv_seg.in_channels, out_channels=conv_seg.out_channels)
    return MODELS.build({**channels, **config, 'type': kind})

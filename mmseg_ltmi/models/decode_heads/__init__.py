"""``LTMI<Head>`` for every mmsegmentation head that classifies with ``cls_seg``."""

from . import registered_heads
from .ltmi_head import LTMIHeadMixin
from .mask_head import MASK_HEADS, LTMIMask2FormerHead, LTMIMaskFormerHead, LTMIMaskHeadMixin
from .record import HeadRecord
from .register_head import ltmi_head
from .registered_heads import SUPPORTED_HEADS, UNSUPPORTED_HEADS

_LTMI_HEADS = [f'LTMI{name}' for name in SUPPORTED_HEADS]
globals().update({name: getattr(registered_heads, name) for name in _LTMI_HEADS})

__all__ = [
    'MASK_HEADS',
    'SUPPORTED_HEADS',
    'UNSUPPORTED_HEADS',
    'HeadRecord',
    'LTMIHeadMixin',
    'LTMIMask2FormerHead',
    'LTMIMaskFormerHead',
    'LTMIMaskHeadMixin',
    'ltmi_head',
    *_LTMI_HEADS,
]

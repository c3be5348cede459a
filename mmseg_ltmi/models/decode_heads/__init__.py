"""``LTMI<Head>`` for every mmsegmentation head that classifies with ``cls_seg``."""

from . import registered_heads
from .knet_head import LTMIIterativeDecodeHead
from .ltmi_head import LTMIHeadMixin
from .mask_head import LTMIMask2FormerHead, LTMIMaskFormerHead, LTMIMaskHeadMixin
from .record import HeadRecord
from .register_head import ltmi_head
from .registered_heads import OWN_FORMS, SUPPORTED_HEADS, UNSUPPORTED_HEADS
from .segmenter_head import LTMISegmenterMaskTransformerHead

_LTMI_HEADS = [f'LTMI{name}' for name in SUPPORTED_HEADS]
globals().update({name: getattr(registered_heads, name) for name in _LTMI_HEADS})

__all__ = [
    'OWN_FORMS',
    'SUPPORTED_HEADS',
    'UNSUPPORTED_HEADS',
    'HeadRecord',
    'LTMIHeadMixin',
    'LTMIIterativeDecodeHead',
    'LTMIMask2FormerHead',
    'LTMIMaskFormerHead',
    'LTMIMaskHeadMixin',
    'LTMISegmenterMaskTransformerHead',
    'ltmi_head',
    *_LTMI_HEADS,
]

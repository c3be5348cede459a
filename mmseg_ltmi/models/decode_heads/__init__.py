"""``LTMI<Head>`` for every mmsegmentation head that classifies with ``cls_seg``."""

from .ltmi_head import LTMIHeadMixin, ltmi_head
from .registered_heads import SUPPORTED_HEADS, UNSUPPORTED_HEADS

__all__ = ['SUPPORTED_HEADS', 'UNSUPPORTED_HEADS', 'LTMIHeadMixin', 'ltmi_head']

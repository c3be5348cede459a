"""Registers the LTMI form of a decode head."""

from __future__ import annotations

import sys

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS

from .ltmi_head import LTMIHeadMixin


def ltmi_head(head: type[BaseDecodeHead]) -> type[BaseDecodeHead]:
    """Register ``LTMI<Head>`` for a head that classifies with ``cls_seg``.

    Args:
        head: a subclass of mmsegmentation's BaseDecodeHead.

    Returns:
        the head itself, unchanged, so that this works as a decorator beside ``register_module``.

    Raises:
        TypeError: not a BaseDecodeHead.

    Examples:
        >>> @ltmi_head
        ... @MODELS.register_module()
        ... class MyHead(BaseDecodeHead): ...
        >>> MODELS.build(dict(type='LTMIMyHead', contrast=dict(), ...))
    """
    make_ltmi_head(head, getattr(head, '__module__', ''))
    return head


def make_ltmi_head(head: type[BaseDecodeHead], module: str) -> type[BaseDecodeHead]:
    """As :func:`ltmi_head`; the LTMI form, which gets a name in ``module``, where pickle looks."""
    if not (isinstance(head, type) and issubclass(head, BaseDecodeHead)):
        raise TypeError(
            f'ltmi_head takes a subclass of mmseg.models.decode_heads.BaseDecodeHead, got {head!r}'
        )
    name = f'LTMI{head.__name__}'
    doc = f'{head.__name__} with the contrastive term and the score reader of LTMIHeadMixin.'
    ltmi = type(name, (LTMIHeadMixin, head), {'__doc__': doc, '__module__': module})
    setattr(sys.modules[module], name, ltmi)
    MODELS.register_module(name=name, module=ltmi)
    return ltmi

"""The decode heads of a segmentor."""

from __future__ import annotations

from typing import Any

from mmseg.models.decode_heads import Mask2FormerHead, MaskFormerHead, SideAdapterCLIPHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn


def heads_of(model: nn.Module) -> list[BaseDecodeHead]:
    """The decode heads of a segmentor, several in a cascade."""
    heads: Any = model.decode_head
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


def last_head(model: nn.Module) -> BaseDecodeHead:
    """The head that predicts, also of a cascade."""
    return heads_of(model)[-1]


def sums_masks(head: nn.Module) -> bool:
    """Whether a head predicts ``sum_q p_q(c) m_q``, which is no log-posterior but a posterior."""
    return isinstance(head, (MaskFormerHead, Mask2FormerHead, SideAdapterCLIPHead))

"""Backbones, losses, the contrastive term, the heads that carry it, and segmentors."""

from . import backbones, contrast, decode_heads, losses, segmentors

__all__ = ['backbones', 'contrast', 'decode_heads', 'losses', 'segmentors']

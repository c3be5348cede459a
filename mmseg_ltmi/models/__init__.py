"""Losses, the contrastive term, the heads that carry it, and segmentors."""

from . import contrast, decode_heads, losses, segmentors

__all__ = ['contrast', 'decode_heads', 'losses', 'segmentors']

"""Losses, the contrastive term and the heads that carry it."""

from . import contrast, decode_heads, losses

__all__ = ['contrast', 'decode_heads', 'losses']

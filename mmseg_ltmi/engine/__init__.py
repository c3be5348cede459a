"""Hooks."""

from .hooks import ClassPriorHook

__all__ = ['ClassPriorHook']

"""Hooks."""

from .class_prior_hook import ClassPriorHook

__all__ = ['ClassPriorHook']

"""Hooks."""

from .class_prior_hook import ClassPriorHook
from .step_seed_hook import StepSeedHook

__all__ = ['ClassPriorHook', 'StepSeedHook']

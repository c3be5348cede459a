"""Hooks."""

from .class_prior_hook import ClassPriorHook
from .contrast_warmup_hook import ContrastWarmupHook
from .step_seed_hook import StepSeedHook

__all__ = ['ClassPriorHook', 'ContrastWarmupHook', 'StepSeedHook']

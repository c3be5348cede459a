"""Hooks."""

from .class_prior_hook import ClassPriorHook
from .contrast_warmup_hook import ContrastWarmupHook
from .long_tail_visualization_hook import LongTailVisualizationHook
from .step_seed_hook import StepSeedHook

__all__ = ['ClassPriorHook', 'ContrastWarmupHook', 'LongTailVisualizationHook', 'StepSeedHook']

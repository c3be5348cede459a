"""Hooks."""

from .class_prior_hook import ClassPriorHook
from .contrast_warmup_hook import ContrastWarmupHook
from .long_tail_visualization_hook import LongTailVisualizationHook
from .runtime_info_hook import LTMIRuntimeInfoHook
from .step_seed_hook import StepSeedHook

__all__ = [
    'ClassPriorHook',
    'ContrastWarmupHook',
    'LTMIRuntimeInfoHook',
    'LongTailVisualizationHook',
    'StepSeedHook',
]

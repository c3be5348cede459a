"""What a run needs beside the model."""

from .cpu_runner import CPURunner
from .hooks import ClassPriorHook, ContrastWarmupHook, StepSeedHook

__all__ = ['CPURunner', 'ClassPriorHook', 'ContrastWarmupHook', 'StepSeedHook']

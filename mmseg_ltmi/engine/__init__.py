"""What a run needs beside the model."""

from .cpu_runner import CPURunner
from .hooks import ClassPriorHook

__all__ = ['CPURunner', 'ClassPriorHook']

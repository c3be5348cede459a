"""What a run needs beside the model."""

from mmseg_ltmi.compat import require_openmmlab

require_openmmlab()

from .cpu_runner import CPURunner  # noqa: E402
from .hooks import (  # noqa: E402
    ClassPriorHook,
    ContrastWarmupHook,
    LongTailVisualizationHook,
    LTMIRuntimeInfoHook,
    StepSeedHook,
)

__all__ = [
    'CPURunner',
    'ClassPriorHook',
    'ContrastWarmupHook',
    'LTMIRuntimeInfoHook',
    'LongTailVisualizationHook',
    'StepSeedHook',
]

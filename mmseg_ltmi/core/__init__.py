"""The method on torch and numpy alone, for any training loop. Nothing here imports OpenMMLab."""

from .contrast import PixelContrast
from .losses import DistillationLoss, GMLLoss, LogitAdjustedLoss, LTMILoss, SoftmaxFocalLoss
from .posterior import OperatingPoint, ScoreReader
from .priors import ClassPrior
from .recorder import FeatureRecorder

__all__ = [
    'ClassPrior',
    'DistillationLoss',
    'FeatureRecorder',
    'GMLLoss',
    'LTMILoss',
    'LogitAdjustedLoss',
    'OperatingPoint',
    'PixelContrast',
    'ScoreReader',
    'SoftmaxFocalLoss',
]

"""The method on torch and numpy alone, for any training loop. Nothing here imports OpenMMLab."""

from typing import TYPE_CHECKING

from .on_demand import import_on_demand

if TYPE_CHECKING:
    from .contrast import PixelContrast
    from .losses import DistillationLoss, GMLLoss, LogitAdjustedLoss, LTMILoss, SoftmaxFocalLoss
    from .posterior import OperatingPoint, ScoreReader
    from .priors import ClassPrior
    from .recorder import FeatureRecorder
else:
    # What needs no torch, such as reading a JSON file, does not wait for it.
    __getattr__, __dir__ = import_on_demand(
        __name__,
        {
            'contrast': ['PixelContrast'],
            'losses': [
                'DistillationLoss',
                'GMLLoss',
                'LTMILoss',
                'LogitAdjustedLoss',
                'SoftmaxFocalLoss',
            ],
            'posterior': ['OperatingPoint', 'ScoreReader'],
            'priors': ['ClassPrior'],
            'recorder': ['FeatureRecorder'],
        },
    )

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

"""The method on torch and numpy alone, for any training loop. Nothing here imports OpenMMLab."""

from typing import TYPE_CHECKING

from .on_demand import import_on_demand

if TYPE_CHECKING:
    from .contrast import PixelContrast
    from .losses import (
        BLVLoss,
        DistillationLoss,
        GMLLoss,
        LogitAdjustedLoss,
        LTMILoss,
        SoftmaxFocalLoss,
    )
    from .posterior import OperatingPoint, ScoreReader
    from .priors import ClassPrior
    from .recorder import FeatureRecorder
    from .region_rebalance import RegionRebalance
else:
    # What needs no torch, such as reading a JSON file, does not wait for it.
    __getattr__, __dir__ = import_on_demand(
        __name__,
        {
            'contrast': ['PixelContrast'],
            'losses': [
                'BLVLoss',
                'DistillationLoss',
                'GMLLoss',
                'LTMILoss',
                'LogitAdjustedLoss',
                'SoftmaxFocalLoss',
            ],
            'posterior': ['OperatingPoint', 'ScoreReader'],
            'priors': ['ClassPrior'],
            'recorder': ['FeatureRecorder'],
            'region_rebalance': ['RegionRebalance'],
        },
    )

__all__ = [
    'BLVLoss',
    'ClassPrior',
    'DistillationLoss',
    'FeatureRecorder',
    'GMLLoss',
    'LTMILoss',
    'LogitAdjustedLoss',
    'OperatingPoint',
    'PixelContrast',
    'RegionRebalance',
    'ScoreReader',
    'SoftmaxFocalLoss',
]

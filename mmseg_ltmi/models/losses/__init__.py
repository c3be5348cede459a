"""The losses of the mutual information bound, distillation and a baseline, and their functions."""

from .distillation_loss import DistillationLoss
from .focal_loss import SoftmaxFocalLoss
from .gml_loss import GMLLoss
from .logit_adjusted_loss import LogitAdjustedLoss
from .natural_shift import natural_shift_of

__all__ = [
    'DistillationLoss',
    'GMLLoss',
    'LogitAdjustedLoss',
    'SoftmaxFocalLoss',
    'natural_shift_of',
]

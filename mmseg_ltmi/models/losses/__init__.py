"""The two losses of the mutual information bound, distillation, focal loss, and the functions below them."""

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

"""The two losses of the mutual information bound, distillation, and the functions below them."""

from .distillation_loss import DistillationLoss
from .gml_loss import GMLLoss
from .logit_adjusted_loss import LogitAdjustedLoss
from .natural_shift import natural_shift_of

__all__ = ['DistillationLoss', 'GMLLoss', 'LogitAdjustedLoss', 'natural_shift_of']

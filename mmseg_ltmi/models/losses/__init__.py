"""The two losses of the mutual information bound, and the pure functions below them."""

from .gml_loss import GMLLoss
from .logit_adjusted_loss import LogitAdjustedLoss
from .natural_shift import natural_shift_of

__all__ = ['GMLLoss', 'LogitAdjustedLoss', 'natural_shift_of']

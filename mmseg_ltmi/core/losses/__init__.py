"""The losses of the mutual information bound, distillation and baselines, and their functions."""

from .distillation import DistillationLoss
from .focal import SoftmaxFocalLoss
from .functional import (
    GMLTerms,
    LabelOutOfRangeError,
    class_log_likelihood,
    gml_loss,
    gml_terms,
    logit_adjusted_cross_entropy,
)
from .gml import GMLLoss
from .logit_adjustment import LogitAdjustedLoss, LTMILoss
from .logit_variation import BLVLoss

__all__ = [
    'BLVLoss',
    'DistillationLoss',
    'GMLLoss',
    'GMLTerms',
    'LTMILoss',
    'LabelOutOfRangeError',
    'LogitAdjustedLoss',
    'SoftmaxFocalLoss',
    'class_log_likelihood',
    'gml_loss',
    'gml_terms',
    'logit_adjusted_cross_entropy',
]

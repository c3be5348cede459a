"""The core's losses as ``loss_decode`` of mmsegmentation's heads."""

from mmseg.registry import MODELS

from mmseg_ltmi.core.losses import (
    BLVLoss,
    DistillationLoss,
    GMLLoss,
    LogitAdjustedLoss,
    LTMILoss,
    SoftmaxFocalLoss,
    class_log_likelihood,
    gml_loss,
    logit_adjusted_cross_entropy,
)

for _loss in (BLVLoss, DistillationLoss, GMLLoss, LTMILoss, LogitAdjustedLoss, SoftmaxFocalLoss):
    MODELS.register_module(module=_loss)

__all__ = [
    'BLVLoss',
    'DistillationLoss',
    'GMLLoss',
    'LTMILoss',
    'LogitAdjustedLoss',
    'SoftmaxFocalLoss',
    'class_log_likelihood',
    'gml_loss',
    'logit_adjusted_cross_entropy',
]

"""From raw scores to a decision: the natural shift, operating points and what they are worth."""

from .areas import class_scores, decision_areas, expected_areas, image_miou, labels_or_spare
from .calibration import calibrating_temperature
from .class_memory import ClassMemory, KeyOrigins, embed_pixels
from .fitted_temperature import fit_temperature
from .iou_rule import IoURule, decide_by_iou, fit_iou_rule, iou_scores
from .key_reservoir import DrawnPixels, KeyReservoir
from .natural_shift import (
    losses_of,
    natural_shift_of,
    natural_shift_of_head,
    predicting_losses_of,
    stated_shift,
)
from .operating_point import OperatingPoint
from .score_reader import ScoreReader
from .tau_sweep import areas_over_taus

__all__ = [
    'ClassMemory',
    'DrawnPixels',
    'IoURule',
    'KeyOrigins',
    'KeyReservoir',
    'OperatingPoint',
    'ScoreReader',
    'areas_over_taus',
    'calibrating_temperature',
    'class_scores',
    'decide_by_iou',
    'decision_areas',
    'embed_pixels',
    'expected_areas',
    'fit_iou_rule',
    'fit_temperature',
    'image_miou',
    'iou_scores',
    'labels_or_spare',
    'losses_of',
    'natural_shift_of',
    'natural_shift_of_head',
    'predicting_losses_of',
    'stated_shift',
]

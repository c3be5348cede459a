"""How often each class occurs. Knows no model."""

from .as_trained import count_as_trained
from .class_prior import ClassGroups, ClassPrior, build_class_prior
from .count_report import CountReport, count_dataset
from .counting import ClassCountError, list_failures
from .fingerprint import describe
from .presence import PresencePrior
from .prior_buffer import PriorBuffer, check_priors_found, check_same_prior, is_same_log_prior
from .prior_user import PriorUser
from .rare_class_draw import RareClassDraw

__all__ = [
    'ClassCountError',
    'ClassGroups',
    'ClassPrior',
    'CountReport',
    'PresencePrior',
    'PriorBuffer',
    'PriorUser',
    'RareClassDraw',
    'build_class_prior',
    'check_priors_found',
    'check_same_prior',
    'count_as_trained',
    'count_dataset',
    'describe',
    'is_same_log_prior',
    'list_failures',
]

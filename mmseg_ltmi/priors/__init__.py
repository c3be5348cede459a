"""How often each class occurs. Knows no model."""

from .as_trained import count_as_trained
from .class_prior import ClassGroups, ClassPrior, build_class_prior
from .counting import ClassCountError, CountReport, count_dataset
from .fingerprint import describe

__all__ = [
    'ClassCountError',
    'ClassGroups',
    'ClassPrior',
    'CountReport',
    'build_class_prior',
    'count_as_trained',
    'count_dataset',
    'describe',
]

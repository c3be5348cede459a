"""How often each class occurs. Knows no model."""

from .class_prior import ClassGroups, ClassPrior, build_class_prior
from .counting import ClassCountError, CountReport, count_dataset, describe

__all__ = [
    'ClassCountError',
    'ClassGroups',
    'ClassPrior',
    'CountReport',
    'build_class_prior',
    'count_dataset',
    'describe',
]

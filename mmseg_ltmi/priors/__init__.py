"""How often each class occurs. Knows no model."""

from .class_prior import ClassGroups, ClassPrior, build_class_prior

__all__ = ['ClassGroups', 'ClassPrior', 'build_class_prior']

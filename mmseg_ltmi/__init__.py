"""Rare classes for mmsegmentation. Importing this package registers everything in it."""

from . import compat

compat.apply()

from . import datasets, engine, evaluation, models, visualization  # noqa: E402
from .priors import ClassPrior  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = [
    'ClassPrior',
    '__version__',
    'datasets',
    'engine',
    'evaluation',
    'models',
    'visualization',
]

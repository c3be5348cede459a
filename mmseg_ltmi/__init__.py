"""Rare classes for semantic segmentation: class priors, logit adjustment and contrast.

:mod:`mmseg_ltmi.core` is the method on torch and numpy. Where mmsegmentation is installed,
importing this package also registers its data sets, models, hooks and metrics there, as soon as
mmsegmentation is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core.on_demand import import_on_demand
from .registration import register_with_mmseg
from .version import __version__

if TYPE_CHECKING:
    from .core.priors import ClassPrior as ClassPrior
else:
    # Neither the core nor the command line's help waits for what it does not need.
    PARTS = ('apis', 'datasets', 'engine', 'evaluation', 'models', 'visualization')
    __getattr__, __dir__ = import_on_demand(
        __name__, {'core': ['ClassPrior'], **{part: [] for part in PARTS}}
    )

__all__ = ['ClassPrior', '__version__']

register_with_mmseg()

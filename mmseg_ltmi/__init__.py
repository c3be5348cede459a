"""Rare classes for semantic segmentation: class priors, logit adjustment and contrast.

:mod:`mmseg_ltmi.core` is the method on torch and numpy. Where mmsegmentation is installed,
importing this package also registers its data sets, models, hooks and metrics there, as soon as
mmsegmentation is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registration import register_with_mmseg
from .version import __version__

if TYPE_CHECKING:
    from .core.priors import ClassPrior as ClassPrior

__all__ = ['ClassPrior', '__version__']
PARTS = ('apis', 'core', 'datasets', 'engine', 'evaluation', 'models', 'visualization')

register_with_mmseg()


def __getattr__(name: str) -> Any:
    # On demand: neither the core nor the command line's help waits for what it does not need.
    if name == 'ClassPrior':
        return import_module('.core.priors', __name__).ClassPrior
    if name in PARTS:
        return import_module(f'.{name}', __name__)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

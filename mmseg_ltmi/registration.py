"""Tells mmsegmentation's registries where this package's classes are.

The registries import a location when a type is first looked up, as they do with mmsegmentation's
own. ``import mmseg_ltmi`` therefore costs nothing of OpenMMLab, and works before and after it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

CONFIGS = 'mmengine.config'
REGISTRIES = 'mmseg.registry'
LOCATIONS = (
    ('DATASETS', 'mmseg_ltmi.datasets'),
    ('HOOKS', 'mmseg_ltmi.engine'),
    ('METRICS', 'mmseg_ltmi.evaluation.logit_adjustment_sweep'),
    ('METRICS', 'mmseg_ltmi.evaluation.long_tail_iou_metric'),
    ('MODELS', 'mmseg_ltmi.models'),
    ('TRANSFORMS', 'mmseg_ltmi.datasets'),
)


def register_with_mmseg() -> None:
    """Add the locations now, or as soon as mmsegmentation's registries are imported.

    So with the search for ``PACKAGE::`` configs and for the priors that configs name, which waits
    for mmengine's. Does nothing where
    mmsegmentation is not installed. Calling it again changes nothing.
    """
    if REGISTRIES not in sys.modules and find_spec('mmseg') is None:
        return
    from .compat import stand_in_for_compiled_ops

    stand_in_for_compiled_ops()
    _when_imported(CONFIGS, _adapt_configs)
    _when_imported(REGISTRIES, _add_locations)


def _when_imported(name: str, act: Callable[[], None]) -> None:
    if name in sys.modules:
        act()
    elif not any(isinstance(f, _AfterImport) and f.name == name for f in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(name, act))


class _AfterImport(MetaPathFinder):
    """Acts right after a module has been imported; then it is gone."""

    def __init__(self, name: str, act: Callable[[], None]) -> None:
        self.name, self.act = name, act

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)  # the others are asked
        try:
            spec = find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:  # not before: somebody may only look for the module
                sys.meta_path.remove(self)
                self.act()

        loader.exec_module = execute_and_act
        return spec


def _adapt_configs() -> None:
    from .config_priors import look_beside_configs
    from .package_configs import find_configs

    find_configs()
    look_beside_configs()


def _add_locations() -> None:
    from . import compat

    compat.apply()
    registries = sys.modules[REGISTRIES]
    for name, location in LOCATIONS:
        registry = getattr(registries, name)
        if location in registry._locations:
            continue
        registry._locations.append(location)
        if registry._imported:  # it has looked at its locations already
            import_module(location)

"""Tells mmsegmentation's registries where this package's classes are.

The registries import a location when a type is first looked up, as they do with mmsegmentation's
own. ``import mmseg_ltmi`` therefore costs nothing of OpenMMLab, and works before and after it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

REGISTRIES = 'mmseg.registry'
LOCATIONS = {
    'DATASETS': 'mmseg_ltmi.datasets',
    'HOOKS': 'mmseg_ltmi.engine',
    'METRICS': 'mmseg_ltmi.evaluation',
    'MODELS': 'mmseg_ltmi.models',
    'TRANSFORMS': 'mmseg_ltmi.datasets',
}


def register_with_mmseg() -> None:
    """Add the locations now, or as soon as mmsegmentation's registries are imported.

    Does nothing where mmsegmentation is not installed. Calling it again changes nothing.
    """
    if REGISTRIES in sys.modules:
        _add_locations(sys.modules[REGISTRIES])
    elif find_spec('mmseg') is not None and not any(
        isinstance(finder, _WaitForRegistries) for finder in sys.meta_path
    ):
        from .compat import stand_in_for_compiled_ops

        stand_in_for_compiled_ops()
        sys.meta_path.insert(0, _WaitForRegistries())


class _WaitForRegistries(MetaPathFinder):
    """Adds the locations right after mmsegmentation's registries are made; then it is gone."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != REGISTRIES:
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

        def execute_and_add(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:  # not before: somebody may only look for the module
                sys.meta_path.remove(self)
            _add_locations(module)

        loader.exec_module = execute_and_add
        return spec


def _add_locations(registries: ModuleType) -> None:
    from . import compat

    compat.apply()
    for name, location in LOCATIONS.items():
        registry = getattr(registries, name)
        if location in registry._locations:
            continue
        registry._locations.append(location)
        if registry._imported:  # it has looked at its locations already
            import_module(location)

"""Lets the released OpenMMLab packages run on today's torch; no step acts where none is needed."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import torch


def apply() -> None:
    """Run every step; calling it again changes nothing."""
    stand_in_for_compiled_ops()
    allow_checkpoint_classes()
    name_fork_package()


class _MissingOps(ModuleType):
    """``mmcv._ext`` without compiled ops: it imports, and a call says what is missing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> NoReturn:
            raise RuntimeError(
                f'the compiled op {name!r} is not part of mmcv-lite: install full mmcv '
                "(pip install 'setuptools<81' && pip install --no-build-isolation 'mmcv>=2.1,<2.2')"
            )

        return missing


def stand_in_for_compiled_ops() -> None:
    """mmsegmentation imports ``mmcv._ext``, which mmcv-lite does not have."""
    if 'mmcv._ext' in sys.modules or importlib.util.find_spec('mmcv._ext') is not None:
        return
    module = _MissingOps('mmcv._ext', 'Stand-in for the compiled ops of full mmcv.')
    module.__file__ = __file__
    module.__spec__ = ModuleSpec('mmcv._ext', None, origin=__file__)
    sys.modules['mmcv._ext'] = module


def allow_checkpoint_classes() -> None:
    """mmengine's checkpoints hold a few harmless classes that ``weights_only=True`` refuses."""
    if not hasattr(torch.serialization, 'add_safe_globals'):
        return
    from mmengine.logging.history_buffer import HistoryBuffer

    multiarray = getattr(np, '_core', None) or np.core
    reconstruct = multiarray.multiarray._reconstruct
    scalar = multiarray.multiarray.scalar
    statistics = {'current', 'mean', 'max', 'min'}

    def statistic(owner: Any, name: str) -> Any:
        # HistoryBuffer pickles its statistics as getattr(HistoryBuffer, 'mean'). The real getattr
        # would let a crafted checkpoint reach anything, so the name stands for this one alone.
        if owner is not HistoryBuffer or name not in statistics:
            raise ValueError(f'a checkpoint may not ask for {owner!r}.{name}')
        return getattr(owner, name)

    allowed: list[Any] = [HistoryBuffer, np.ndarray, np.dtype, (statistic, 'builtins.getattr')]
    # A checkpoint written under the other major version of numpy names the old or new module.
    for root in ('numpy.core', 'numpy._core'):
        allowed.append((reconstruct, f'{root}.multiarray._reconstruct'))
        allowed.append((scalar, f'{root}.multiarray.scalar'))
    allowed += [type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8', 'u1', '?')]
    torch.serialization.add_safe_globals(allowed)


def name_fork_package() -> None:
    """``mmseg::`` bases are looked up by distribution, and the fork's has another name."""
    from mmengine.config.utils import MODULE2PACKAGE

    for name in ('mmsegmentation', 'onedl-mmsegmentation'):
        try:
            distribution(name)
        except PackageNotFoundError:
            continue
        if name != 'mmsegmentation':
            MODULE2PACKAGE['mmseg'] = 'mmseg'
        return

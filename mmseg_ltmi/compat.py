"""Lets the released OpenMMLab packages run on today's torch; no step acts where none is needed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NoReturn

MMSEG_MIN, MMSEG_BELOW = '1.2.2', '2'


def apply() -> None:
    """Run every step; calling it again changes nothing."""
    check_version()
    stand_in_for_compiled_ops()
    allow_checkpoint_classes()
    keep_checkpoints_data()
    take_stand_in_to_workers()
    plain_param_groups()
    leave_out_warnings_of_themselves()


def require_openmmlab() -> None:
    """Called by every part that needs OpenMMLab's packages.

    Raises:
        ImportError: what is missing, and what installs it.
    """
    for name in ('mmengine', 'mmcv', 'mmseg'):
        if importlib.util.find_spec(name) is None:
            raise ImportError(
                f'this part of mmseg_ltmi needs {name}, which is not installed: '
                "pip install 'mmseg_ltmi[lite]' (mmcv without compiled ops), or its extra "
                "'full' or 'onedl'. mmseg_ltmi.core works without"
            )


def check_version() -> None:
    """mmsegmentation is one that we know.

    Only ``mmseg.__version__`` is asked: the distribution's name differs between forks.

    Raises:
        ImportError: it is too old or too new.
    """
    import mmseg
    from packaging.version import Version

    if not Version(MMSEG_MIN) <= Version(mmseg.__version__) < Version(MMSEG_BELOW):
        raise ImportError(
            f'mmseg_ltmi needs mmsegmentation>={MMSEG_MIN},<{MMSEG_BELOW}, '
            f'but mmseg.__version__ is {mmseg.__version__}'
        )


class _MissingOps(ModuleType):
    """``mmcv._ext`` without compiled ops: it imports, and a call says what is missing."""

    def __getattr__(self, name: str) -> Any:
        # inspect and copy probe for dunders; a made-up answer would lead them astray.
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> NoReturn:
            raise RuntimeError(
                f'the compiled op {name!r} is not part of mmcv-lite: install full mmcv (pip '
                "uninstall mmcv-lite; pip install 'setuptools>=77.0.3,<81'; "
                'pip install --no-build-isolation mmcv==2.1.0)'
            )

        return missing


def stand_in_for_compiled_ops() -> None:
    """mmsegmentation imports ``mmcv._ext``, which mmcv-lite does not have."""
    mmcv = importlib.util.find_spec('mmcv')
    if mmcv is None or 'mmcv._ext' in sys.modules:
        return
    # Not find_spec('mmcv._ext'), which would import mmcv.
    if PathFinder.find_spec('mmcv._ext', mmcv.submodule_search_locations) is not None:
        return
    module = _MissingOps('mmcv._ext', 'Stand-in for the compiled ops of full mmcv.')
    module.__file__ = __file__
    # No loader: that is how mmcv.utils.check_ops_exist still finds that there are no ops.
    module.__spec__ = ModuleSpec('mmcv._ext', None, origin=__file__)
    sys.modules['mmcv._ext'] = module


def torch_deformable_attention() -> None:
    """On a GPU mmcv-lite would call a compiled op for deformable attention: take torch's form.

    That is what a CPU takes anyway. It needs more memory and time than the op (docs/masks.md).
    """
    if not isinstance(sys.modules.get('mmcv._ext'), _MissingOps):
        return
    attention: Any = importlib.import_module('mmcv.ops.multi_scale_deform_attn')

    class TorchForm:
        @staticmethod
        def apply(
            value: Any, shapes: Any, _start: Any, locations: Any, weights: Any, _step: Any
        ) -> Any:
            return attention.multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)

    attention.MultiScaleDeformableAttnFunction = TorchForm


def require_mmdet(head: type) -> None:
    """Called where a head of mmsegmentation that is mmdet's is built.

    mmsegmentation swallows the error of an import and makes another class the head's base.

    Raises:
        ImportError: mmdet or what it imports is missing; or it came after mmsegmentation.
    """
    remedy = "pip install 'mmseg_ltmi[mask]', then pip install --no-deps mmdet==3.3.0"
    try:
        importlib.import_module('mmdet.models')
    except (ImportError, AssertionError) as error:
        raise ImportError(
            f'{head.__name__} needs mmdet 3.x and what it imports, but {error}: {remedy}'
        ) from error
    if not any(base.__module__.startswith('mmdet.') for base in head.__mro__):
        raise ImportError(
            'mmsegmentation was imported while a part of mmdet was missing, so that '
            f'{head.__name__} is without its base class: start Python again'
        )


def take_stand_in_to_workers() -> None:
    """A spawned worker of a data loader, as on Windows, imports what its data set's pickle names.

    Mostly that is mmseg.datasets, which needs the stand-in: a pickle names this module first.
    """
    from mmengine.dataset import BaseDataset

    if not isinstance(sys.modules.get('mmcv._ext'), _MissingOps):
        return

    def reduce(self: BaseDataset, protocol: Any) -> tuple:
        reduced: Any = object.__reduce_ex__(self, protocol)
        function, arguments, *state = reduced
        return _call, (function, *arguments), *state

    BaseDataset.__reduce_ex__ = reduce


def _call(function: Callable, *arguments: Any) -> Any:
    return function(*arguments)


def _history_statistic(owner: Any, name: str) -> Any:
    """What ``getattr`` means inside a checkpoint.

    HistoryBuffer pickles its statistics as ``getattr(HistoryBuffer, 'mean')``. The real getattr
    would let a crafted checkpoint reach anything, so the name stands for these four alone.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('current', 'mean', 'max', 'min'):
        raise ValueError(f'a checkpoint may not ask for {owner!r}.{name}')
    return getattr(owner, name)


def allow_checkpoint_classes() -> None:
    """mmengine's checkpoints hold a few harmless classes that ``weights_only=True`` refuses.

    They are its log history, kept in numpy arrays. torch 2.6 made ``weights_only`` the default.
    """
    import numpy as np
    import torch

    if torch.__version__ < '2.6':
        return
    from mmengine.logging import HistoryBuffer

    # numpy 2 moved the module; a checkpoint written under the other numpy has the other name.
    core = 'numpy._core' if hasattr(np, '_core') else 'numpy.core'
    multiarray = importlib.import_module(f'{core}.multiarray')
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_history_statistic, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            slice,
            *(type(np.dtype(kind)) for kind in 'efdbhilqBHILQ?'),
            *(
                (getattr(multiarray, name), f'{root}.multiarray.{name}')
                for root in ('numpy.core', 'numpy._core')
                for name in ('_reconstruct', 'scalar')
            ),
        ]
    )


def keep_checkpoints_data() -> None:
    """What ``weights_only=True`` refuses stays refused.

    The fork's mmengine would load it again with ``weights_only=False``, which runs whatever the
    file asks for, and allows the real getattr while it loads.
    """
    import torch
    from mmengine.runner import checkpoint

    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = torch.load


def plain_param_groups() -> None:
    """``compile=True`` traces the optimizer's step, and torch's Dynamo stumbles over ConfigDicts.

    That is what ``paramwise_cfg`` makes of an optimizer's parameter groups.
    """
    from mmengine.optim import OptimWrapper

    initialize = OptimWrapper.__init__
    if hasattr(initialize, 'gives_plain_groups'):
        return

    @functools.wraps(initialize)
    def with_plain_groups(self: Any, optimizer: Any, *args: Any, **kw: Any) -> None:
        initialize(self, optimizer, *args, **kw)
        optimizer.param_groups = [dict(group) for group in optimizer.param_groups]

    with_plain_groups.gives_plain_groups = True  # type: ignore[attr-defined]
    OptimWrapper.__init__ = with_plain_groups


def leave_out_warnings_of_themselves() -> None:
    """OpenMMLab's packages call what is deprecated, which no user can mend."""
    from mmengine.fileio import file_client

    for message, where in (
        ('``build_loss`` would be deprecated', r'mmseg\.models\.builder'),
        ('`broadcast_buffers` is deprecated', r'mmengine\.model\.wrappers'),
    ):
        warnings.filterwarnings('ignore', message, module=where)
    # Every CheckpointHook makes a FileClient, whose module logs that it is deprecated, no more.
    file_client.print_log = lambda *_, **__: None

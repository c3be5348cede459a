"""What runs a model: config file, train set, checkpoint. mmengine tells a model nothing of them.

mmengine builds a model from its part of the config and trains it with batches. Whoever did so is
among the callers, under every entry point: a Runner, ``init_model``, an inferencer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from mmengine.config import Config
from mmengine.runner import BaseLoop

from mmseg_ltmi.core.priors import PriorBuffer
from mmseg_ltmi.core.priors.dataset_parts import first_part
from mmseg_ltmi.core.priors.label_space import check_same_classes, check_same_reading, labels_of
from mmseg_ltmi.core.priors.prior_buffer import CHECKS
from mmseg_ltmi.core.priors.prior_file import MORE_FOLDERS
from mmseg_ltmi.core.state_dict_hooks import OTHER_CLASSES

PACKAGES = ('mmengine', 'mmseg', 'mmseg_ltmi')
REMEDY = (
    'count the prior of the train set with mmseg-ltmi count, or put its classes and counts in the '
    "train set's order"
)
SAME_REMEDY = (
    'count the prior of the train set with mmseg-ltmi count; if other files were counted, which '
    'are numbered otherwise and mean the same, take "labels" out of the prior file'
)


def config_folders() -> list[Path]:
    """The folder of the config that is being run, if it comes from a file."""
    for variables in _callers():
        for name in ('cfg', 'config', 'self'):
            cfg = variables.get(name)
            cfg = getattr(cfg, 'cfg', None) if name == 'self' else cfg
            if isinstance(cfg, Config) and cfg.filename:
                return [Path(cfg.filename).parent]
    return []


def check_with_train_set(prior: PriorBuffer) -> None:
    """Refuse a prior that is missing, or of other classes than the Runner's that trains.

    Raises:
        FileNotFoundError: its file is missing.
        ValueError: its classes or labels mean others.
    """
    dataset = _train_set()
    if dataset is None:
        return
    prior.check_found()
    known = prior.class_prior
    if known is None:
        return
    who = (prior.describe(), 'the train set')
    classes = _classes_of(dataset)
    if classes and len(classes) == known.num_classes:  # else mmsegmentation has a say
        check_same_classes(known.classes, classes, who, REMEDY, strict=False)
    if known.labels and hasattr(dataset, 'get_data_info'):
        check_same_reading(known.labels, labels_of(dataset.get_data_info(0)), who, SAME_REMEDY)


def loads_other_classes() -> bool:
    """Whether a Runner that trains is loading a checkpoint of other classes than its train set's.

    As far as both name them.
    """
    dataset = _train_set()
    loaded = (variables.get('checkpoint') for variables in _callers())
    checkpoint = next((found for found in loaded if isinstance(found, dict)), None)
    if dataset is None or checkpoint is None:
        return False
    meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    try:
        check_same_classes(meta.get('classes'), _classes_of(dataset), ('', ''), '')
    except ValueError:
        return True
    return False


def _train_set() -> Any:
    # That of the Runner that trains; None if none does.
    loops = (getattr(variables.get('self'), '_train_loop', None) for variables in _callers())
    loop: Any = next((loop for loop in loops if isinstance(loop, BaseLoop)), None)
    return None if loop is None else first_part(loop.dataloader.dataset)


def _classes_of(dataset: Any) -> Any:
    return getattr(dataset, 'metainfo', {}).get('classes')


def _callers() -> Iterator[dict[str, Any]]:
    # The variables of the functions of OpenMMLab and of this package, the nearest first.
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        is_known = frame.f_globals.get('__name__', '').split('.')[0] in PACKAGES
        # Reading a loop's variables would keep the batch that it is at for as long as it runs.
        if is_known and 'data_batch' not in frame.f_code.co_varnames:
            yield frame.f_locals
        frame = frame.f_back


CHECKS.append(check_with_train_set)
MORE_FOLDERS.append(config_folders)
OTHER_CLASSES.append(loads_other_classes)

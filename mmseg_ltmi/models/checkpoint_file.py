"""Reads a checkpoint as data."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

NEEDED = 'it must be a state dict of tensors, or what training has written'


def read_file(path: str | Path, where: str = '') -> Any:
    """What a checkpoint file holds, on the CPU; arguments and errors of :func:`read_checkpoint`."""
    try:
        return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{where}{path} does not exist') from error
    except Exception as error:  # whatever a broken file makes torch raise, OSError too
        if isinstance(error, PermissionError) or (
            isinstance(error, OSError) and not os.path.isfile(path)
        ):
            raise OSError(f'{where}{path} cannot be reached: {error}') from error
        reason = f'{type(error).__name__}: {error}'
        raise ValueError(
            f'{where}{path} cannot be read as a checkpoint. It is truncated, is none, or asks for '
            f'more than data, which is refused: write or download it again ({reason:.500})'
        ) from error


def read_checkpoint(path: str | Path, where: str = '') -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checkpoint file holds, and its state dict, on the CPU.

    Tensors, plain values and mmengine's log history are read, and never code (torch >= 2.6).

    Args:
        path: a file, or whatever else mmengine's CheckpointLoader takes.
        where: what names the file, for the message, such as 'teacher.checkpoint='.

    Raises:
        FileNotFoundError: no such file.
        OSError: it cannot be reached.
        ValueError: it is truncated, is no checkpoint, or asks for more than data.
    """
    content = read_file(path, where)
    state = content.get('state_dict', content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state:
        what = f'a {type(state).__name__}' if state else 'nothing'
        raise ValueError(f'{where}{path} holds {what}: {NEEDED}')
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ValueError(f'{where}{path} holds a {kind} as {name!r:.80}: {NEEDED}')
    # DistributedDataParallel puts it before the names of what it wraps.
    named: Any = OrderedDict((name.removeprefix('module.'), v) for name, v in state.items())
    if hasattr(state, '_metadata'):
        named._metadata = state._metadata
    return content, named


def check_is_another(out: str | Path, checkpoint: str | Path) -> None:
    """Raise ValueError where a file to write is the checkpoint that is read."""
    if Path(checkpoint).resolve() == Path(out).resolve():
        raise ValueError(f'{out} is the checkpoint itself: name another file to write')


def is_needed_to_predict(name: str) -> bool:
    """Whether a tensor of a segmentor's state dict is, by its name.

    A stock checkpoint has none of this package's parts, and testing uses no auxiliary head.
    """
    optional = {'contrast', 'region', 'score_reader', 'teacher', 'auxiliary_head', 'online_counts'}
    return not optional & set(name.split('.')) and not name.endswith('num_batches_tracked')


def trained_labels(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint, as :func:`read_checkpoint` reads it, says of the labels of its training.

    Some of ``classes`` and ``reduce_zero_label``, as in the metainfo of a data set.
    """
    meta = content.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    data = meta.get('dataset_meta')
    # mmsegmentation 0.x wrote CLASSES.
    found = data if isinstance(data, Mapping) else {'classes': meta.get('CLASSES')}
    known = {key: found.get(key) for key in ('classes', 'reduce_zero_label')}
    if not isinstance(known['classes'], (list, tuple)):
        del known['classes']
    return known

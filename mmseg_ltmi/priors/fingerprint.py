"""What decides the counts of a data set: its label files and how its pipeline reads them."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from typing import Any


def underlying(dataset: Any) -> Iterator[Any]:
    """The data sets inside ConcatDataset, RepeatDataset and ClassBalancedDataset, loaded."""
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from underlying(part)
    elif hasattr(dataset, 'dataset'):
        yield from underlying(dataset.dataset)
    else:
        dataset.full_init()
        yield dataset


def label_loader(dataset: Any) -> Any:
    """The LoadAnnotations of a data set's pipeline.

    Raises:
        ValueError: it has none.
    """
    # By name, subclasses included: this package does not import mmsegmentation.
    for transform in dataset.pipeline.transforms:
        if any('LoadAnnotations' in base.__name__ for base in type(transform).__mro__):
            return transform
    raise ValueError(
        f'the pipeline of {type(dataset).__name__} has no LoadAnnotations, so its labels '
        'cannot be read as in training: name a split whose pipeline loads them'
    )


def describe(dataset: Any) -> str:
    """Type, place and number of images of a data set, and a digest of what decides its counts.

    The digest covers the names, sizes and times of the label files, the classes and how labels
    are read.
    """
    texts = []
    for part in underlying(dataset):
        keys = image_keys(part, _ignore_index(part))
        texts.append(describe_part(part, keys))
    return '; '.join(texts)


def describe_part(part: Any, keys: list[str]) -> str:
    """As :func:`describe`, of one underlying data set whose :func:`image_keys` are known."""
    digest = _digest(part.metainfo.get('classes'), keys)[:8]
    place = getattr(part, 'data_prefix', {}).get('seg_map_path', '')
    return f'{type(part).__name__}, {place}, {len(part)} images [{digest}]'


def image_keys(part: Any, ignore_index: int) -> list[str]:
    """A key per image that changes when its counts may have.

    It covers the data info (path, label_map, reduce_zero_label), the label file's size and time,
    the number of classes, ignore_index, and type and arguments of LoadAnnotations. It ends in '?'
    where no local file tells whether it changed. What else a custom loader reads is not seen.
    """
    load = label_loader(part)
    arguments = vars(load).copy()
    # mmsegmentation's sets its own to the data info's at the first image.
    arguments.pop('reduce_zero_label', None)
    kind = type(load)
    settings = _digest(
        kind.__module__,
        kind.__qualname__,
        arguments,
        len(part.metainfo.get('classes') or ()),
        ignore_index,
    )
    remote = arguments.get('file_client_args') or arguments.get('backend_args') or {}
    local = remote.get('backend', 'local') in ('local', 'disk') and not set(remote) - {'backend'}
    return [_image_key(part.get_data_info(i), settings, local) for i in range(len(part))]


def _image_key(info: dict, settings: str, local: bool) -> str:
    info.pop('sample_idx', None)  # the place in the list, which other images change
    try:
        stat = os.stat(info['seg_map_path']) if local else None
    except (KeyError, TypeError, ValueError, OSError):
        stat = None
    if stat is None:
        return f'{_digest(settings, info)}?'
    return _digest(settings, info, stat.st_size, stat.st_mtime_ns)


def _ignore_index(part: Any) -> int:
    return getattr(part, 'ignore_index', 255)


def _digest(*facts: Any) -> str:
    try:  # all of an array, of which repr shows a part
        data = pickle.dumps(facts, protocol=4)
    except Exception:  # pickling runs anyone's code
        data = repr(facts).encode(errors='surrogateescape')
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()

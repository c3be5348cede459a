"""What decides the counts of a data set: its label files and how its pipeline reads them."""

from __future__ import annotations

import hashlib
import os
import pickle
from typing import Any

from .annotation_loader import find_label_loader
from .dataset_parts import Part, dataset_parts, own_ignore_index
from .dataset_wrappers import pipeline_steps, wrapped


def describe(dataset: Any) -> str:
    """Type, place and number of images of a data set, and a digest of what decides its counts.

    The digest covers the names, sizes and times of the label files, the classes and how labels
    are read.
    """
    parts = dataset_parts(dataset)
    return '; '.join(
        describe_part(part, image_keys(part, own_ignore_index(part.dataset))) for part in parts
    )


def describe_part(part: Part, keys: list[str]) -> str:
    """As :func:`describe`, of one underlying data set whose :func:`image_keys` are known."""
    dataset = part.dataset
    code = digest(dataset.metainfo.get('classes'), keys)[:8]
    place = getattr(dataset, 'data_prefix', {}).get('seg_map_path', '')
    return f'{type(dataset).__name__}, {place}, {len(keys)} images [{code}]'


def image_keys(part: Part, ignore_index: int) -> list[str]:
    """A key per image that changes when its counts may have.

    It covers the data info (path, label_map, reduce_zero_label), the label file's size and time,
    the number of classes, ignore_index, and type and arguments of LoadAnnotations, or of every
    transform where there is none. It ends in '?' where no local file tells whether it changed.
    What else a custom loader reads is not seen.
    """
    dataset = part.dataset
    load = find_label_loader(dataset)
    loaders = dataset.pipeline.transforms if load is None else [load]
    settings = digest(
        [_settings(loader) for loader in loaders],
        len(dataset.metainfo.get('classes') or ()),
        ignore_index,
    )
    remote = getattr(load, 'file_client_args', None) or getattr(load, 'backend_args', None) or {}
    local = remote.get('backend', 'local') in ('local', 'disk') and not set(remote) - {'backend'}
    return [_image_key(dataset.get_data_info(i), settings, local) for i in part.indices]


def pipeline_digest(dataset: Any) -> str:
    """8 digits that stand for the transforms of a data set and of what wraps it."""
    return digest(str([_plain(transform) for transform in _transforms(dataset)]))[:8]


def _transforms(dataset: Any) -> list[Any]:
    own = list(pipeline_steps(dataset))
    return own + [step for part in wrapped(dataset) for step in _transforms(part)]


def _plain(value: Any) -> Any:
    """What is the same in every process, and after transforms have run."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return [(str(key), _plain(each)) for key, each in sorted(value.items(), key=str)]
    if isinstance(value, (list, tuple, set)):
        return [_plain(each) for each in value]
    if hasattr(value, 'tolist'):
        return value.tolist()
    name = f'{type(value).__module__}.{type(value).__qualname__}'
    # What images change is left out: mmsegmentation's reduce_zero_label, which the label files'
    # keys cover, and objects inside, such as the Resize of a RandomResize.
    settings = {
        key: each
        for key, each in getattr(value, '__dict__', {}).items()
        if key == 'transforms' or not (key == 'reduce_zero_label' or hasattr(each, '__dict__'))
    }
    return name, _plain(settings)


def file_key(path: Any, *facts: Any) -> str:
    """A key of a label file and whatever else decides its counts.

    It ends in '?' where no local file tells whether it changed.
    """
    try:
        stat = os.stat(path)
    except (TypeError, ValueError, OSError):
        return f'{digest(*facts)}?'
    return digest(*facts, stat.st_size, stat.st_mtime_ns)


def digest(*facts: Any) -> str:
    """SHA-1 of any values, as hexadecimal digits."""
    try:  # all of an array, of which repr shows a part
        data = pickle.dumps(facts, protocol=4)
    except Exception:  # pickling runs anyone's code
        data = repr(facts).encode(errors='surrogateescape')
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _image_key(info: dict, settings: str, local: bool) -> str:
    info.pop('sample_idx', None)  # the place in the list, which other images change
    return file_key(info.get('seg_map_path') if local else None, settings, info)


def _settings(loader: Any) -> tuple[str, str, dict]:
    arguments = dict(getattr(loader, '__dict__', {}))
    # mmsegmentation's LoadAnnotations sets its own to the data info's at the first image.
    arguments.pop('reduce_zero_label', None)
    return type(loader).__module__, type(loader).__qualname__, arguments

"""The data sets and images inside wrapped mmsegmentation data sets."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from .label_space import check_same_classes, labels_of


class Part(NamedTuple):
    """Images of a data set that is not wrapped.

    Attributes:
        dataset: the data set, loaded.
        indices: its images, without repeats.
    """

    dataset: Any
    indices: list[int]


def dataset_parts(dataset: Any) -> list[Part]:
    """Every underlying image once, by data set.

    Knows mmengine's ConcatDataset, RepeatDataset and ClassBalancedDataset and torch's
    ConcatDataset and Subset.

    Raises:
        ValueError: not a data set of mmsegmentation, no images, a Subset of repeated ones, or
            another wrapper that leaves images out.
    """
    parts: dict[int, tuple[Any, dict[int, None]]] = {}
    for leaf, index in _images(dataset):
        parts.setdefault(id(leaf), (leaf, {}))[1][index] = None
    if not parts:
        raise ValueError(f'{type(dataset).__name__} has no images: check its folders and suffixes')
    return [Part(leaf, list(indices)) for leaf, indices in parts.values()]


def distinct_images(dataset: Any) -> list[tuple[Any, int]]:
    """The images of :func:`dataset_parts`, each with its data set; errors as there."""
    return [(part.dataset, index) for part in dataset_parts(dataset) for index in part.indices]


def image_file(dataset: Any, index: int) -> str:
    """The file of an image, whatever path leads to it; '' where a data set names none."""
    path = dataset.get_data_info(index).get('img_path')
    return os.path.realpath(path) if path else ''


def dataset_images(dataset: Any) -> list[tuple[Any, int]]:
    """Of each item of a data set, the data set that is not wrapped and the image in it.

    Raises:
        ValueError: as :func:`dataset_parts`, or item i is not image i.
    """
    drawn = resampling_of(dataset, of_items=True)
    images = _images(dataset)
    if drawn or len(images) != len(dataset):
        raise ValueError(
            f'{drawn or type(dataset).__name__} repeats or draws images, so item i is not image i: '
            'put it around what draws by classes, not inside'
        )
    return images


def resampling_of(dataset: Any, of_items: bool = False) -> str:
    """What in a data set changes how often its classes occur, as texts; '' if nothing does.

    That is a wrapper or a transform with an attribute ``class_resampling``, mmengine's
    ClassBalancedDataset, and one that repeats some of its images more often than others. A text
    differs where the draw does.

    Args:
        dataset: wrapped or not.
        of_items: leave out transforms and repeats, which keep the images that items are of.
    """
    found = _drawing(dataset, of_items)
    return ', '.join(filter(None, found if of_items else [_uneven(dataset), *found]))


def _drawing(dataset: Any, of_items: bool) -> list[str]:
    found = [str(getattr(dataset, 'class_resampling', ''))]
    # By name, subclasses included: the core does not import mmengine.
    if any(base.__name__ == 'ClassBalancedDataset' for base in type(dataset).__mro__):
        threshold = getattr(dataset, 'oversample_thr', None)
        found.append(f'{type(dataset).__name__}(oversample_thr={threshold})')
    if not of_items:
        found += [str(getattr(step, 'class_resampling', '')) for step in pipeline_steps(dataset)]
    return found + [text for part in wrapped(dataset) for text in _drawing(part, of_items)]


def _uneven(dataset: Any) -> str:
    # What repeats some images more often than others, and how often those of each data set inside.
    times = _uneven_times(dataset)
    if not times:
        return ''
    texts = [str(n) if isinstance(n, int) else f'[{zlib.crc32(n.tobytes()):08x}]' for n in times]
    return f'{", ".join(_uneven_wrappers(dataset))}(times={", ".join(texts)})'


def _uneven_wrappers(dataset: Any) -> list[str]:
    # The innermost ones.
    inner = [name for part in wrapped(dataset) for name in _uneven_wrappers(part)]
    return inner or [type(dataset).__name__] * bool(_uneven_times(dataset))


def _uneven_times(dataset: Any) -> list[Any]:
    # Of each data set that is not wrapped, as _repeats has it, less what all have in common; []
    # where all images occur alike.
    sums: dict[int, Any] = {}
    for leaf, times in _repeats(dataset):
        sums[id(leaf)] = sums.get(id(leaf), 0) + times
    numbers = {int(n) for times in sums.values() for n in np.unique(times) if n}
    return [times // math.gcd(*numbers) for times in sums.values()] if len(numbers) > 1 else []


def _repeats(dataset: Any, times: Any = 1) -> Iterator[tuple[Any, Any]]:
    # Data sets that are not wrapped, and how often their images occur where each item of
    # ``dataset`` occurs ``times``: one number for all images, or an array.
    parts = wrapped(dataset)
    if not parts:
        yield dataset, times
    elif _is_subset(dataset):
        size = len(dataset.dataset)
        images = np.asarray(dataset.indices, np.int64) % size
        number = np.broadcast_to(times, len(images))
        yield from _repeats(dataset.dataset, _summed(images, number, size))
    elif np.ndim(times) == 0:
        for part in parts:
            yield from _repeats(part, times * getattr(dataset, 'times', 1))  # of a RepeatDataset
    else:
        # What is repeated, and each part of what is concatenated, has items of its own.
        sizes = [len(part) for part in parts]
        images = np.arange(len(times)) % sum(sizes)
        each = np.split(_summed(images, times, sum(sizes)), np.cumsum(sizes)[:-1])
        for part, own in zip(parts, each, strict=True):
            yield from _repeats(part, own)


def _summed(images: np.ndarray, times: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(images, times, size).astype(np.int64)


def pipeline_steps(dataset: Any) -> Any:
    """The transforms of a data set, or of a wrapper's own; none where it has no pipeline."""
    pipeline = getattr(dataset, 'pipeline', None) or ()
    return getattr(pipeline, 'transforms', pipeline)


def class_names(dataset: Any) -> tuple[str, ...]:
    """The classes in the metainfo of a data set that is not wrapped, numbers as texts.

    Raises:
        ValueError: it names none, or a text in place of a list.
    """
    name, classes = type(dataset).__name__, dataset.metainfo.get('classes')
    if not classes:
        raise ValueError(
            f'{name} names no classes, so nothing says which labels are valid: '
            'give it metainfo=dict(classes=[...])'
        )
    if isinstance(classes, str):
        raise ValueError(
            f"the metainfo classes of {name} are the text '{classes:.80}', which would be read as "
            f"{len(classes)} classes of one letter: give a list, classes=['{classes:.80}']"
        )
    return tuple(map(str, classes))


def common_classes(parts: list[Part]) -> tuple[str, ...]:
    """The classes of all parts; errors as :func:`class_names` and :func:`check_same_classes`."""
    names = [class_names(part.dataset) for part in parts]
    kinds = [f'part {i} ({type(part.dataset).__name__})' for i, part in enumerate(parts)]
    remedy = 'give the parts of the data set the same metainfo=dict(classes=[...])'
    for other, kind in zip(names[1:], kinds[1:], strict=True):
        check_same_classes(names[0], other, (kinds[0], kind), remedy)
    return names[0]


def common_labels(parts: list[Part], ignore_index: int | None = None) -> dict[str, Any]:
    """How labels are read, in so far as all parts do it alike.

    Args:
        parts: one or more.
        ignore_index: None takes the parts' own.
    """
    found = []
    for part in parts:
        index = own_ignore_index(part.dataset) if ignore_index is None else ignore_index
        info = part.dataset.get_data_info(part.indices[0])
        found.append({**labels_of(info), 'ignore_index': index})
    return {k: v for k, v in found[0].items() if all(other.get(k) == v for other in found)}


def common_ignore_index(parts: list[Part], num_classes: int) -> int:
    """The ignore_index of the first part, which is that of the head in training.

    Raises:
        ValueError: another part has another one, and one of the two is a class.
    """
    first = own_ignore_index(parts[0].dataset)
    for i, part in enumerate(parts):
        other = own_ignore_index(part.dataset)
        if other != first and (first in range(num_classes) or other in range(num_classes)):
            raise ValueError(
                f'part 0 ({type(parts[0].dataset).__name__}) has ignore_index={first}, part {i} '
                f'({type(part.dataset).__name__}) has ignore_index={other}, and one of them is a '
                'class, though a decode head has one ignore_index: give the parts of the data set '
                'and the decode heads the same'
            )
    return first


def unwrapped(dataset: Any) -> list[Any]:
    """The data sets inside a wrapped one, of any kind; one that is not wrapped itself."""
    return [leaf for part in wrapped(dataset) for leaf in unwrapped(part)] or [dataset]


def metainfo_of(dataset: Any) -> dict[str, Any]:
    """That of a data set, or of the first one in a wrapper that has none; {} if it has none."""
    own = getattr(dataset, 'metainfo', None) or getattr(unwrapped(dataset)[0], 'metainfo', None)
    return own or {}


def wrapped(dataset: Any) -> list[Any]:
    """What a wrapper of any kind holds, wrapped or not; [] of a data set that wraps none."""
    # A BaseDataset loads its own images, whatever a subclass calls its attributes.
    if not hasattr(dataset, 'load_data_list'):
        for parts in (getattr(dataset, 'datasets', None), [getattr(dataset, 'dataset', None)]):
            if parts and isinstance(parts, (list, tuple)) and all(map(_is_dataset, parts)):
                return list(parts)
    return []


def _is_dataset(value: Any) -> bool:
    # And not, say, the name of one. A wrapper need not have metainfo of its own.
    known = isinstance(value, Dataset) or hasattr(value, 'metainfo')
    return known or (value is not None and bool(wrapped(value)))


def own_ignore_index(dataset: Any) -> int:
    """The ignore_index of a data set, or 255."""
    return getattr(dataset, 'ignore_index', 255)


def data_info(dataset: Any, index: int) -> dict:
    """The data info of an image, or what names it in a wrapper of torch, which has none."""
    if hasattr(dataset, 'get_data_info'):
        return dataset.get_data_info(index)
    if _is_subset(dataset):
        return data_info(dataset.dataset, int(dataset.indices[index]))
    return {'img_path': f'image {index}'}


def _images(dataset: Any) -> list[tuple[Any, int]]:
    # (underlying data set, image) of each image; once where a wrapper repeats it.
    parts = wrapped(dataset)
    if not parts:
        if not hasattr(dataset, 'get_data_info'):
            raise ValueError(
                f'{type(dataset).__name__} is no data set of mmsegmentation (it has no '
                'get_data_info): count its label maps with ClassPrior.from_label_files'
            )
        dataset.full_init()
        return [(dataset, i) for i in range(len(dataset))]
    images = [image for part in parts for image in _images(part)]
    items = sum(map(len, parts))
    if not _is_subset(dataset):
        _check_leaves_none_out(dataset, items)
        return images
    if len(images) != items:
        raise ValueError(
            f'a {type(dataset).__name__} of a {type(dataset.dataset).__name__}, which repeats '
            'images, cannot be counted: take the Subset first and repeat it'
        )
    return [images[int(i)] for i in dataset.indices]


def _check_leaves_none_out(dataset: Any, images: int) -> None:
    if len(dataset) < images:
        raise ValueError(
            f'{type(dataset).__name__} has {len(dataset)} of the {images} images that it wraps, '
            "and nothing says which: take torch's Subset, or give it their numbers as indices"
        )


def _is_subset(dataset: Any) -> bool:
    # torch.utils.data.Subset and what looks like it; mmengine's wrappers have no indices.
    return hasattr(dataset, 'dataset') and hasattr(dataset, 'indices')

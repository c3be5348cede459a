"""The data sets and images inside wrapped mmsegmentation data sets."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from .dataset_wrappers import is_subset, wrapped
from .label_space import check_same_classes, labels_of
from .resampling import resampling_of


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


def own_ignore_index(dataset: Any) -> int:
    """The ignore_index of a data set, or 255."""
    return getattr(dataset, 'ignore_index', 255)


def data_info(dataset: Any, index: int) -> dict:
    """The data info of an image, or what names it in a wrapper of torch, which has none."""
    if hasattr(dataset, 'get_data_info'):
        return dataset.get_data_info(index)
    if is_subset(dataset):
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
    if not is_subset(dataset):
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

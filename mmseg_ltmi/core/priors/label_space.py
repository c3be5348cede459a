"""Whether labels stand for the same classes in two places, such as a class prior and a data set."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from .prior_fields import check_labels

logger = logging.getLogger(__name__)
READING = ('reduce_zero_label', 'label_map')
SHOWN = 5
"""Classes that differ, in a message."""


def labels_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """How labels are read, as far as the metainfo of a data set or the info of an image says."""
    return check_labels({k: v for k, v in info.items() if k in READING})


def zero_label_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """Of :func:`labels_of` the ``reduce_zero_label`` alone.

    Label maps may differ, where files are numbered otherwise and lead to the same classes.
    """
    return labels_of({READING[0]: info.get(READING[0])})


def check_same_classes(
    first: Sequence[str] | None,
    second: Sequence[str] | None,
    who: tuple[str, str],
    remedy: str,
    strict: bool = True,
) -> None:
    """Class names in two places name the same classes in the same order.

    Case, spaces and punctuation do not count. What is no text, such as a number, is taken as one.

    Args:
        first: names, or None where they are not known; nothing is compared then.
        second: likewise.
        who: what has them, for the message.
        remedy: what to do, for the message.
        strict: whether each name must be the same. Otherwise up to half of them may be other words,
            which a warning lists.

    Raises:
        ValueError: other names, another order, or another number of classes.
    """
    if not first or not second:
        return
    first, second = ([str(name) for name in names] for names in (first, second))
    if len(first) != len(second):
        raise ValueError(f'{who[0]} has {len(first)} classes, {who[1]} has {len(second)}: {remedy}')
    keys = [_plain(names) for names in (first, second)]
    if any(len(set(key)) < len(key) for key in keys):  # names that differ in punctuation alone
        keys = [list(first), list(second)]
    differ = [i for i, (a, b) in enumerate(zip(*keys, strict=True)) if a != b]
    if not differ:
        return
    listed = ', '.join(f'{i} is {first[i]!r} and {second[i]!r}' for i in differ[:SHOWN])
    more = f' and {len(differ) - SHOWN} more' if len(differ) > SHOWN else ''
    moved = {keys[0][i] for i in differ} & {keys[1][i] for i in differ}
    if not strict and not moved and 2 * len(differ) <= len(first):
        logger.warning(
            '%s and %s have other names for some classes (%s%s), which are taken for the same: if '
            'they are not, %s',
            *who, listed, more, remedy,
        )  # fmt: skip
        return
    what = 'their classes in another order' if moved else 'other classes'
    raise ValueError(f'{who[0]} and {who[1]} have {what}: {listed}{more}; {remedy}')


def check_same_reading(
    first: Mapping[str, Any], second: Mapping[str, Any], who: tuple[str, str], remedy: str
) -> None:
    """Labels are read alike in two places, where both say how; ValueError otherwise."""
    for key in READING:
        if key in first and key in second and first[key] != second[key]:
            raise ValueError(
                f'{who[0]} has {key}={first[key]}, {who[1]} has {key}={second[key]}: the same '
                f'labels mean other classes; {remedy}'
            )


def check_ignored_is_free(ignore_index: int, num_classes: int, who: str) -> None:
    """Raise ValueError where the usual ignore_index, 255, is one of more than 255 classes."""
    if ignore_index == 255 < num_classes:
        raise ValueError(
            f'{who} has {num_classes} classes and ignore_index=255, which is one of them and would '
            'be left out: give the decode heads, the data sets and the metrics ignore_index=65535, '
            'and model.data_preprocessor seg_pad_val=65535'
        )


def check_trained_on(
    trained: Mapping[str, Any],
    evaluated: Mapping[str, Any],
    who: tuple[str, str],
    unless: str = '',
) -> None:
    """What a network is judged on has the classes that it was trained on, under the same labels.

    Label maps may differ, where files are numbered otherwise and lead to the same classes.

    Args:
        trained: ``classes`` and ``reduce_zero_label`` as in the metainfo of a data set; what one of
            the two does not say is not compared.
        evaluated: likewise.
        who: what has them, for the message.
        unless: how to go on with another ``reduce_zero_label``, for the message; without it there
            is a warning and no error.

    Raises:
        ValueError: other classes, another order, or another ``reduce_zero_label``.
    """
    first, second = (meta.get('classes') for meta in (trained, evaluated))
    remedy = (
        f'give {who[1]} the classes of {who[0]} in its order (metainfo=dict(classes=...)), or take '
        f'a checkpoint that was trained on those of {who[1]}'
    )
    check_same_classes(first, second, who, remedy, strict=False)
    zero = READING[0]
    read, other = zero_label_of(trained), zero_label_of(evaluated)
    try:
        check_same_reading(read, other, who, f'give both the same {zero}{unless}')
    except ValueError as error:
        if unless:
            raise
        logger.warning('%s, unless their files are numbered otherwise', error)


def _plain(names: Sequence[str]) -> list[str]:
    letters = (''.join(c for c in name.casefold() if c.isalnum()) for name in names)
    return [plain or name for plain, name in zip(letters, names, strict=True)]

"""The pixel-level class prior and its file format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..json_file import read_json, write_json
from .counting import LabelCounts
from .dataset_counts import count_dataset_labels
from .label_files import count_label_files
from .prior_fields import check_counts, check_labels, check_names, check_whole
from .prior_file import find_prior_file

FORMAT = 'mmseg_ltmi.class_prior'
SMOOTHING = 1e-6


class ClassGroups(NamedTuple):
    """Class indices, each group from frequent to rare."""

    head: tuple[int, ...]
    medium: tuple[int, ...]
    tail: tuple[int, ...]

    def by_class(self) -> dict[int, str]:
        """The name of each class's group."""
        return {c: name for name, members in self._asdict().items() for c in members}


class ClassPrior:
    """How often each class occurs, by pixels and by images.

    Args:
        pixel_counts: (C,) counts or probabilities, finite, not negative, not all zero.
        classes: C names.
        image_counts: (C,) number of images in which a class occurs.
        num_images: number of images counted.
        num_ignored: number of ignored pixels; 0 also where the source does not say.
        source: where the numbers come from.
        labels: how the labels were read that were counted, where it is known: a dict with some of
            ``reduce_zero_label``, ``label_map`` (labels to labels) and ``ignore_index``.

    Raises:
        ValueError: naming the entry that is wrong.
    """

    def __init__(
        self,
        pixel_counts: Any,
        classes: Sequence[str] | None = None,
        image_counts: Any = None,
        num_images: int | None = None,
        num_ignored: int = 0,
        source: str = '',
        labels: Mapping[str, Any] | None = None,
    ) -> None:
        self.pixel_counts = check_counts(pixel_counts, 'pixel_counts')
        if not self.pixel_counts.any():
            raise ValueError('pixel_counts are all zero: count at least one labelled pixel')
        self.classes = None if classes is None else check_names(classes)
        self.image_counts = (
            None if image_counts is None else check_counts(image_counts, 'image_counts')
        )
        for name in ('classes', 'image_counts'):
            value = getattr(self, name)
            if value is not None and len(value) != self.num_classes:
                raise ValueError(
                    f'{name} has {len(value)} entries, but pixel_counts has {self.num_classes}: '
                    'give one per class'
                )
        if not isinstance(source, str):
            raise ValueError(f'source must be a text, but is {source!r:.80}')
        self.num_images = None if num_images is None else check_whole(num_images, 'num_images')
        self.num_ignored = check_whole(num_ignored, 'num_ignored')
        self.source = source
        self.labels = check_labels(labels or {})

    @property
    def num_classes(self) -> int:
        return len(self.pixel_counts)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, or their indices as texts where they have no names."""
        return self.classes or tuple(str(c) for c in range(self.num_classes))

    def probs(self, smoothing: float = SMOOTHING) -> Tensor:
        """Class probabilities, float32 (C,).

        Args:
            smoothing: weight of the uniform distribution that is mixed in, so that a class that
                never occurs keeps a finite log-prior; 0 gives it probability zero.
        """
        return torch.from_numpy(self._smoothed(smoothing)).float()

    def log_probs(self, smoothing: float = SMOOTHING) -> Tensor:
        """Log class probabilities, float32 (C,); ``-inf`` only with ``smoothing=0``."""
        return torch.from_numpy(self._smoothed(smoothing)).log().float()

    def _smoothed(self, smoothing: float) -> np.ndarray:
        if not 0 <= smoothing <= 1:
            raise ValueError(f'smoothing is {smoothing}: it must lie between 0 and 1')
        counts = self.pixel_counts / self.pixel_counts.max()  # the sum could overflow
        return (1 - smoothing) * counts / counts.sum() + smoothing / self.num_classes

    def groups(self, head: float = 1 / 3, tail: float = 1 / 3, by: str = 'pixels') -> ClassGroups:
        """Head, medium and tail classes.

        Classes are ranked by frequency, ties by index. The first ``round(head * C)`` are head, the
        last ``round(tail * C)`` tail, the rest medium: 4/3/4 for CamVid's 11 classes. Two classes
        are one head and one tail class; a single class is head, whatever the shares.

        Raises:
            ValueError: unknown ``by``, no image counts, shares that exceed one.
        """
        if by not in ('pixels', 'images'):
            raise ValueError(f"groups by {by!r} are unknown: use 'pixels' or 'images'")
        if head < 0 or tail < 0 or head + tail > 1:
            raise ValueError(f'head={head} and tail={tail} must be shares that sum to at most 1')
        counts = self.pixel_counts if by == 'pixels' else self.image_counts
        if counts is None:
            raise ValueError("this prior has no image counts: use by='pixels'")
        rank = np.argsort(-counts, kind='stable').tolist()
        num_head = 1 if self.num_classes == 1 else round(head * self.num_classes)
        start_tail = max(self.num_classes - round(tail * self.num_classes), num_head)
        return ClassGroups(
            tuple(rank[:num_head]), tuple(rank[num_head:start_tail]), tuple(rank[start_tail:])
        )

    def presence(self) -> ClassPrior:
        """The prior of the presence of classes in images: the image counts, as counts.

        Of a prior that was counted as trained it is the presence in crops.

        Raises:
            ValueError: no image counts, or all of them zero.
        """
        if self.image_counts is None or not self.image_counts.any():
            raise ValueError(
                f'the class prior ({self.source or "given as numbers"}) has no image counts, which '
                'the presence of classes is made of: count with mmseg-ltmi count'
            )
        images = self.image_counts
        source = f'presence in images: {self.source}'
        return ClassPrior(
            images, self.classes, images, self.num_images, source=source, labels=self.labels
        )

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`save` writes."""
        images = None if self.image_counts is None else self.image_counts.tolist()
        return {
            'format': FORMAT,
            'version': 1,
            'source': self.source,
            'num_images': self.num_images,
            'num_ignored': self.num_ignored,
            'classes': None if self.classes is None else list(self.classes),
            'pixel_counts': self.pixel_counts.tolist(),
            'image_counts': images,
            **({'labels': self.labels} if self.labels else {}),
        }

    def save(self, path: str | Path) -> None:
        """Write JSON; a reader never sees half a file."""
        write_json(path, self.to_dict())

    @classmethod
    def from_log_probs(cls, log_probs: Tensor, source: str = '') -> ClassPrior:
        """The prior of (C,) numbers that :meth:`log_probs` has given, less their smoothing."""
        probs = log_probs.double().exp() - SMOOTHING / len(log_probs)
        return cls(probs.clamp(min=0), source=source)

    @classmethod
    def load(cls, name: str | Path) -> ClassPrior:
        """Read a published prior ('ade20k', 'cityscapes', 'camvid', 'nyuv2') or a file.

        A relative path is looked up in the working directory; in a config file, then beside it.

        Raises:
            FileNotFoundError: no such name and no such file.
            ValueError: a file that is truncated, too large or not a class prior.
        """
        path = find_prior_file(name)
        data = read_json(path, 'count it again with mmseg-ltmi count')
        if not isinstance(data, dict) or data.get('format') != FORMAT:
            raise ValueError(f'{path} is not a class prior: its "format" is not {FORMAT!r}')
        return cls._from_dict(data, str(path))

    @classmethod
    def from_counts(cls, counts: LabelCounts) -> ClassPrior:
        """The prior of summed counts, whose failures are left out."""
        c = counts
        return cls(c.pixels, c.classes, c.images, c.num_images, c.num_ignored, c.source, c.labels)

    @classmethod
    def from_dataset(
        cls, dataset: Any, num_workers: int = 0, strict: bool = False, progress: bool = False
    ) -> ClassPrior:
        """Count a built mmsegmentation data set; see :func:`count_dataset`.

        Raises:
            ClassCountError: label files that cannot be counted (all of them, or with ``strict``
                the first), or no pixel has a class. A part is never taken for the whole.
        """
        counts = count_dataset_labels(dataset, num_workers, strict, progress)
        counts.check_complete()
        return cls.from_counts(counts)

    @classmethod
    def from_label_files(
        cls,
        paths: Iterable[str | Path],
        num_classes: int,
        classes: Sequence[str] | None = None,
        ignore_index: int = 255,
        reduce_zero_label: bool = False,
        label_map: dict[int, int] | None = None,
        num_workers: int = 0,
        progress: bool = False,
    ) -> ClassPrior:
        """Count label files without OpenMMLab, with the result that its data sets give.

        Args:
            paths: images that Pillow reads, such as PNG (of a palette PNG the indices count), or
                .npy files, each an (H, W) array of class indices.
            num_classes: C.
            classes: C names.
            ignore_index: label that belongs to no class.
            reduce_zero_label: label 0 becomes 255, 255 stays, and every other is one less.
            label_map: replaces labels by others, both 0..255, after reduce_zero_label.
            num_workers: processes beside this one; 0 counts here.
            progress: show a progress bar.

        Raises:
            ClassCountError: names the files that are unreadable, have several channels or a label
                that is neither a class nor ``ignore_index``; or no pixel has a class.
            ValueError: an argument that cannot be meant.
            ImportError: Pillow is missing and there are images.
        """
        mapping = (ignore_index, reduce_zero_label, label_map)
        counts = count_label_files(paths, num_classes, classes, *mapping, num_workers, progress)
        counts.check_complete()
        return cls.from_counts(counts)

    @classmethod
    def _from_dict(cls, data: Any, where: str) -> ClassPrior:
        if not isinstance(data, dict) or 'pixel_counts' not in data:
            raise ValueError(f'{where} is not a class prior: it has no pixel_counts')
        if data.get('format', FORMAT) != FORMAT or data.get('version', 1) != 1:
            raise ValueError(f'{where} is not a class prior of format {FORMAT}, version 1')
        fields = {k: v for k, v in data.items() if k not in ('format', 'version')}
        try:
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f'{where}: {error}') from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassPrior) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f'ClassPrior(num_classes={self.num_classes}, source={self.source!r})'


def occurs(log_prior: Tensor) -> Tensor:
    """bool (C,), which classes a log-prior (C,) has seen: others have the smoothing's share."""
    return log_prior.exp() > 1.5 * SMOOTHING / log_prior.numel()


def balancing_shift(log_prior: Tensor) -> Tensor:
    """``-log pi`` (C,), which added to a natural log-posterior balances it.

    It is 0 for a class that never occurs. Such a class was never learned, and the smoothing's share
    taken off its score would let it win most pixels.
    """
    return -log_prior.where(occurs(log_prior), 0.0)


def build_class_prior(
    value: Any, num_classes: int | None = None, where: str = 'class_prior'
) -> ClassPrior:
    """A prior from a published name, a path, counts or probabilities, a dict or a ClassPrior.

    Raises:
        ValueError: not ``num_classes`` long, or not a prior at all.
        FileNotFoundError: no such name or file.
    """
    if isinstance(value, ClassPrior):
        prior = value
    elif isinstance(value, (str, Path)):
        prior = ClassPrior.load(value)
    elif isinstance(value, dict):
        prior = ClassPrior._from_dict(dict(value), where)
    else:
        prior = ClassPrior._from_dict({'pixel_counts': value}, where)
    if num_classes is not None and prior.num_classes != num_classes:
        name = value if isinstance(value, (str, Path)) else prior.source or 'given as numbers'
        raise ValueError(
            f'{where} has {prior.num_classes} classes ({name}), but the model '
            f'has num_classes={num_classes}: one of them is wrong (count again or set num_classes)'
        )
    return prior

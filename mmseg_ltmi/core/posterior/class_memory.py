"""The second model of p(z|c), kept for testing: a mixture over stored pixels of the train set."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..buffer_dtype import KeepBufferDtype
from ..contrast.projection_head import ProjectionHead
from ..precision import at_least_float32
from ..tensor_file import save_tensors

FORMAT = 'mmseg_ltmi.class_memory'
LN2 = math.log(2)
BLOCK = 2**20
"""Scores that are computed at once: few enough for a CPU's cache."""
CUDA_BLOCK = 2**24


class KeyOrigins(NamedTuple):
    """Where the keys come from, for pictures.

    Attributes:
        images: paths of the images.
        image: int64 (K,), place in ``images``.
        position: float32 (K, 2), row and column as shares of the image's height and width.
    """

    images: tuple[str, ...]
    image: Tensor
    position: Tensor


class ClassMemory(KeepBufferDtype):
    """Reads a pixel's class from embedded pixels of the train set, on the device of the keys.

    ``log p(z|c) = log sum_j w_j exp(q.k_j / T)`` over the keys of class c, whose shares ``w_j`` sum
    to one: the mixture that the contrastive term is trained with. Its posterior with all classes
    equally likely, ``log softmax_c log p(z|c)``, is pooled with the classifier's
    (docs/method.md). A class without a key gets 1/C: the memory says nothing of it.

    Args:
        keys: (K, D); they are scaled to length one.
        labels: int64 (K,), classes.
        num_classes: C.
        temperature: T > 0.
        projector: from pixel features to embeddings, a ProjectionHead; it is copied. None embeds by
            scaling the features to length one.
        shares: (K,) pixels that each key stands for; None is one.
        weight: of the memory beside the classifier, lambda.
        classes: C names; () leaves them unknown.
        fingerprint: of the network whose features are stored; '' fits every one.
        origins: where the keys come from; None if that is not known.
        report: what the memory was made of.

    Shape:
        features (B, in_channels, h, w) to (B, C, h, w), float32 at least, also under autocast.

    Raises:
        ValueError: no key, labels outside 0..C-1, shares or numbers that are not positive, keys
            that are not finite, shapes that do not fit.
        TypeError: another projector.

    Examples:
        >>> memory = ClassMemory(keys, labels, num_classes=19, temperature=0.1)
        >>> scores = (log_posterior + 0.5 * memory(features)) / 1.5
    """

    keys: Tensor
    log_share: Tensor
    temperature: Tensor
    weight: Tensor

    def __init__(
        self,
        keys: Tensor,
        labels: Tensor,
        num_classes: int,
        temperature: float,
        projector: nn.Module | None = None,
        shares: Tensor | None = None,
        weight: float = 0.0,
        classes: Sequence[str] = (),
        fingerprint: str = '',
        origins: KeyOrigins | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if projector is not None and type(projector) is not ProjectionHead:
            raise TypeError(
                f'a memory keeps a ProjectionHead, not a {type(projector).__name__}: store the '
                "network's own features instead (projector=None)"
            )
        device = keys.device
        labels = labels.to(device)
        shares = torch.ones(len(keys)) if shares is None else shares.float()
        shares = shares.to(device)
        _check(keys, labels, shares, num_classes, temperature, classes)
        self.num_classes = num_classes
        self.classes = tuple(classes)
        self.fingerprint = fingerprint
        self.report = dict(report or {})
        order, column = sort_by_class(labels, num_classes)
        self.origins = origins and KeyOrigins(
            origins.images, *(of[order.to(of.device)] for of in (origins.image, origins.position))
        )
        self.projector: Any = None if projector is None else copy.deepcopy(projector).to(device)
        # A row per class, so that its sum is over a dimension; what a class lacks weighs nothing.
        row = labels[order]
        room = int(column.max()) + 1
        empty = torch.zeros(num_classes, room, keys.shape[1], device=device)
        self.register_buffer('keys', empty)
        self.register_buffer('log_share', torch.full_like(empty[..., 0], -torch.inf))
        self.keys[row, column] = F.normalize(keys[order].float(), dim=1)
        total = torch.zeros(num_classes, device=device).index_add_(0, labels, shares)
        self.log_share[row, column] = (shares[order] / total[row]).log()
        self.register_buffer('temperature', torch.tensor(float(temperature), device=device))
        self.register_buffer('weight', torch.tensor(float(weight), device=device))
        self.requires_grad_(False).eval()

    @property
    def in_channels(self) -> int:
        """Channels of the pixel features that it reads."""
        return self.keys.shape[2] if self.projector is None else self.projector[0].in_features

    @property
    def num_keys(self) -> Tensor:
        """Keys of each class, int64 (C,)."""
        return self.log_share.isfinite().sum(1)

    @property
    def key_labels(self) -> Tensor:
        """The class of each key, int64 (K,), in the order of ``origins``."""
        return torch.arange(self.num_classes).repeat_interleave(self.num_keys.cpu())

    def train(self, mode: bool = True) -> ClassMemory:
        """It is not trained, and its projector neither."""
        return super().train(False)

    def embed(self, features: Tensor) -> Tensor:
        """Pixel features (N, in_channels) to unit vectors (N, D)."""
        return embed_pixels(features, self.projector)

    def forward(self, features: Tensor) -> Tensor:
        """The log-posterior (B, C, h, w) of equally likely classes, of (B, in_channels, h, w)."""
        # q.k / T reaches 1 / T, of which half precision keeps no more than a tenth.
        with torch.autocast(features.device.type, enabled=False):
            return self._read(features)

    def _read(self, features: Tensor) -> Tensor:
        query = features.movedim(1, -1).flatten(0, 2)
        keys = (self.keys / (self.temperature * LN2)).flatten(0, 1).T
        if torch.jit.is_tracing():  # for images of any size: neither checks nor blocks
            found = self._log_posterior(self.embed(query), keys)
        else:
            self._check_features(features)
            scores = CUDA_BLOCK if query.is_cuda else BLOCK
            step = max(scores // self.log_share.numel(), 1)
            blocks = self.embed(query).split(step)
            found = torch.cat([self._log_posterior(block, keys) for block in blocks])
        size = features.shape
        return found.view(size[0], *size[2:], self.num_classes).movedim(-1, 1)

    def _check_features(self, features: Tensor) -> None:
        if features.shape[1] != self.in_channels:
            raise ValueError(
                f'the memory reads features of {self.in_channels} channels, but these have '
                f'{features.shape[1]}: it is of another network'
            )

    def similar_keys(self, query: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The keys that are nearest to embedded pixels.

        Args:
            query: (N, D), of :meth:`embed`.
            count: keys of each.

        Returns:
            ``q.k`` (N, count) from the highest down, and int64 (N, count), places in ``origins``.
        """
        keys = self.keys[self.log_share.isfinite()]
        return (query @ keys.T).topk(min(count, len(keys)), dim=1)

    def _log_posterior(self, query: Tensor, keys: Tensor) -> Tensor:
        # To base 2, which a CPU computes three times as fast as to base e, and without a maximum
        # of each class: where it underflows, the class has no chance.
        share = self.log_share.flatten().to(query) / LN2
        score = torch.addmm(share, query, keys.to(query))
        score = at_least_float32(score)
        score = score.sub_(score.amax(1, keepdim=True)).exp2_()
        mass = score.unflatten(1, self.log_share.shape).sum(2)
        likelihood = mass.clamp_min(torch.finfo(mass.dtype).tiny).log()
        present = self.log_share.isfinite().any(1)
        known = present.sum().log() - math.log(self.num_classes)
        return (likelihood.log_softmax(1) + known).where(present, -math.log(self.num_classes))

    def save(self, path: str | Path) -> None:
        """Write a file of tensors and plain values, which :meth:`load` reads."""
        content = {
            'format': FORMAT,
            'version': 1,
            'state': self.state_dict(),
            'classes': list(self.classes),
            'fingerprint': self.fingerprint,
            'origins': None if self.origins is None else list(self.origins),
            'report': self.report,
        }
        save_tensors(content, path)

    @classmethod
    def load(cls, path: str | Path) -> ClassMemory:
        """Read a file of :meth:`save`, as data: no code in it is run.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is truncated, or no memory.
        """
        remedy = 'make it again with mmseg-ltmi memory'
        if not Path(path).exists():
            raise FileNotFoundError(f'the memory {path} does not exist: {remedy}')
        try:
            content = torch.load(path, map_location='cpu', weights_only=True)
            if (content['format'], content['version']) != (FORMAT, 1):
                raise ValueError('its format is another one')
            memory = cls.from_state(content['state'])
            memory.classes = tuple(content['classes'])
            memory.fingerprint, memory.report = content['fingerprint'], content['report']
            if content['origins'] is not None:
                images, *places = content['origins']
                memory.origins = KeyOrigins(tuple(images), *places)
        except Exception as error:  # whatever a broken file makes torch raise
            raise ValueError(f'{path} is no memory that can be read ({error}): {remedy}') from error
        return memory

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> ClassMemory:
        """The memory of a state dict, on its device; only what that holds is known.

        Raises:
            KeyError: it lacks an entry.
            ValueError: as the class.
        """
        log_share = state['log_share']
        stored = log_share.isfinite()
        projector = None
        if 'projector.0.weight' in state:
            first, last = state['projector.0.weight'], state.get('projector.2.weight')
            channels, width = first.shape[1], len(first)
            if last is None:
                projector = ProjectionHead(channels, width, num_layers=1)
            else:
                projector = ProjectionHead(channels, len(last), width)
        memory = cls(
            state['keys'][stored],
            stored.nonzero()[:, 0],
            len(log_share),
            float(state['temperature']),
            projector,
            log_share[stored].exp(),
            float(state['weight']),
        )
        memory.load_state_dict(state)
        return memory


def sort_by_class(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The order of labels by class, stable, and the rank of each of these within its class.

    Args:
        labels: int64 (K,), classes.
        num_classes: C.

    Returns:
        int64 (K,) places, and int64 (K,) ranks from 0.
    """
    order = labels.argsort(stable=True)
    count = labels.bincount(minlength=num_classes)
    place = torch.arange(len(order), device=labels.device)
    return order, place - (count.cumsum(0) - count)[labels[order]]


def embed_pixels(features: Tensor, projector: nn.Module | None) -> Tensor:
    """Pixel features (N, channels) to unit vectors (N, D), with or without a projector."""
    return (
        F.normalize(at_least_float32(features), dim=1) if projector is None else projector(features)
    )


def _check(
    keys: Tensor,
    labels: Tensor,
    shares: Tensor,
    num_classes: int,
    temperature: float,
    classes: Sequence[str],
) -> None:
    if keys.ndim != 2 or not len(keys) == len(labels) == len(shares):
        raise ValueError(
            f'a memory takes keys (K, D), labels (K,) and shares (K,), but these have shapes '
            f'{tuple(keys.shape)}, {tuple(labels.shape)} and {tuple(shares.shape)}'
        )
    if not len(keys):
        raise ValueError('a memory needs a key, but there is none: is the split labelled?')
    if not keys.isfinite().all():
        raise ValueError('keys of a memory must be finite: the network gives NaN or inf')
    if not (shares > 0).all() or not shares.isfinite().all():
        raise ValueError('shares of keys must be positive numbers')
    if not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f'labels of keys must lie in 0..{num_classes - 1}, but go from {int(labels.min())} to '
            f'{int(labels.max())}'
        )
    if not temperature > 0:
        raise ValueError(f'the temperature of a memory must be positive, but is {temperature}')
    if classes and len(classes) != num_classes:
        raise ValueError(f'{len(classes)} class names for num_classes={num_classes}')

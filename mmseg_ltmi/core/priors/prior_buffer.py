"""The class prior that a module has: given now, filled in before training, or counted in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..buffer_dtype import KeepBufferDtype
from ..distributed import sum_over_ranks
from ..state_dict_hooks import after_load, before_load
from .class_prior import SMOOTHING, ClassPrior, build_class_prior
from .label_space import check_ignored_is_free

logger = logging.getLogger(__name__)

SAME = 1e-3
"""Two log-priors that differ by no more are one prior: files round, smoothing moves a little."""


class PriorBuffer(KeepBufferDtype):
    """The log-prior of the module that has it; in a model of half precision it stays as it is.

    Args:
        class_prior: a published name, a path, counts or probabilities, a dict or a ClassPrior. A
            file that is missing is an error when training begins: a trained model is used without
            it. None leaves the prior open until :meth:`set`; ``'online'`` counts the labels that
            :meth:`count` is shown, over all ranks, and ``dict(type='online', decay=0.999)`` lets
            old counts fade by that factor each time, which is a step (see :meth:`one_step`).
        num_classes: C, where it is known.
        name: what messages call it, such as 'LogitAdjustedLoss.class_prior'.

    Attributes:
        log_prior: float32 (C,), or (0,) while the prior is open or C unknown. It is not saved: the
            config or the data give it again.
        online_counts: float64 (C,), the running counts of an online prior; saved.
        class_prior: what :meth:`set` was given; None for an online prior.
        missing: the error of a file that is missing; '' otherwise.

    Raises:
        ValueError: a prior that is none, or not C long.
    """

    log_prior: Tensor
    online_counts: Tensor
    missing = ''
    _has_warned = False
    _is_counted: bool | None = None  # None outside of one_step

    def __init__(self, class_prior: Any, num_classes: int | None, name: str) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.name = name
        self.class_prior: ClassPrior | None = None
        self.register_buffer('log_prior', torch.empty(0), persistent=False)
        self.decay = _online_decay(class_prior, name)
        if self.is_online:
            counts = torch.zeros(num_classes or 0, dtype=torch.float64)
            self.register_buffer('online_counts', counts)
            self._update_log_prior()
            before_load(self, _take_length_of_counts)
            after_load(self, PriorBuffer._update_log_prior)
        elif class_prior is not None:
            try:
                self.set(class_prior)
            except FileNotFoundError as error:
                self.missing = f'{name}: {error}'
                logger.warning('%s. Only training needs it', self.missing)

    @property
    def is_online(self) -> bool:
        """Whether it is counted in training."""
        return self.decay is not None

    @property
    def is_open(self) -> bool:
        """Whether it has no numbers yet."""
        return not self.is_online and self.log_prior.numel() == 0

    @property
    def is_waiting(self) -> bool:
        """Whether it has no numbers yet and no file was to give them."""
        return self.is_open and not self.missing

    def set(self, class_prior: Any) -> None:
        """Set the prior, in any form that the argument takes."""
        prior = build_class_prior(class_prior, self.num_classes, self.name)
        self.class_prior, self.missing = prior, ''
        self.log_prior = prior.log_probs().to(self.log_prior.device)

    def expect_classes(self, num_classes: int, device: torch.device | None = None) -> None:
        """Give the counts of an online prior their length; counts of another length are dropped.

        Args:
            num_classes: C.
            device: of counts that begin; None leaves them where they are.
        """
        if self.is_online and self.online_counts.numel() != num_classes:
            device = device or self.online_counts.device
            self.online_counts = torch.zeros(num_classes, dtype=torch.float64, device=device)
            self._update_log_prior()

    @torch.no_grad()
    def count(self, labels: Tensor, num_classes: int, ignore_index: int = -1) -> None:
        """Count the labels of a training step on every rank, if the prior is online.

        Args:
            labels: int64, any shape; what is outside 0..C-1 is passed over.
            num_classes: C.
            ignore_index: passed over as well, also where it is below C.
        """
        if self.decay is None:
            return
        self.expect_classes(num_classes, labels.device)
        if self._is_counted:
            return
        if self._is_counted is not None:
            self._is_counted = True
        known = (labels >= 0) & (labels < num_classes) & (labels != ignore_index)
        # The spare bin takes the rest; one_hot or boolean picking would wait for the device.
        place = labels.where(known, num_classes).flatten()
        counts = torch.zeros(num_classes + 1, dtype=torch.float64, device=labels.device)
        counts.index_add_(0, place, torch.ones_like(place, dtype=torch.float64))
        self.online_counts = self.decay * self.online_counts + sum_over_ranks(counts)[:-1]
        self._update_log_prior()

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """Within it labels count once, by the first call of :meth:`count`.

        A head may call its loss several times in a step, for branches or stages: old counts would
        fade with each.
        """
        self._is_counted = False
        try:
            yield
        finally:
            self._is_counted = None

    def required(self) -> Tensor:
        """The log-prior, for training.

        Raises:
            FileNotFoundError: the file that was to give it is missing.
            RuntimeError: it is still open.
        """
        self.check_found()
        if self.is_open:
            raise RuntimeError(
                f'{self.name} is None and nothing has filled it in: name a prior '
                "(class_prior='ade20k', a path, a list of counts), call set_class_prior, or in a "
                "config add custom_hooks=[dict(type='ClassPriorHook')], which counts the train set "
                'before the run'
            )
        return self.log_prior

    def check_found(self) -> None:
        """Raise FileNotFoundError where the file that was to give the prior is missing."""
        if self.missing:
            raise FileNotFoundError(self.missing)

    def check_ignore_index(self, ignore_index: int) -> None:
        """Raise ValueError where a label is a class in training and was none in counting.

        Or the other way round. Where a prior does not say what it ignored, there is a warning.
        """
        check_ignored_is_free(ignore_index, self.log_prior.numel(), self.name)
        if self.class_prior is None:
            return
        counted = self.class_prior.labels.get('ignore_index')
        counts = self.class_prior.pixel_counts
        has_ignored = 0 <= ignore_index < len(counts) and counts[ignore_index] > 0
        if counted == ignore_index or not (
            has_ignored or (counted is not None and 0 <= counted < len(counts))
        ):
            return
        if counted is None:
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    '%s has %g for class %d (%s), which training ignores: make it 0 there, or '
                    'count again with mmseg-ltmi count',
                    *(self.describe(), counts[ignore_index], ignore_index),
                    self.class_prior.names[ignore_index],
                )
            return
        raise ValueError(
            f'{self.describe()} was counted with ignore_index={counted}, training has '
            f'ignore_index={ignore_index}, and one of them is a class: give the data set and the '
            'decode heads the same ignore_index and count again with mmseg-ltmi count'
        )

    def describe(self) -> str:
        """Its name and where its numbers come from."""
        if self.class_prior is None:
            return f'{self.name} (online)' if self.is_online else f'{self.name} (None)'
        source = self.class_prior.source or f'{self.class_prior.pixel_counts.tolist()!s:.60}'
        return f'{self.name} ({source:.200})'

    def _update_log_prior(self) -> None:
        if not self.is_online:
            return
        # As ClassPrior.log_probs: mixed with a little of the uniform distribution, which alone
        # is left while no pixel has been seen.
        counts = self.online_counts
        uniform = torch.full_like(counts, 1 / max(counts.numel(), 1))
        total = counts.sum()
        share = (counts / total.clamp(min=1e-300)).where(total > 0, uniform)
        self.log_prior = ((1 - SMOOTHING) * share + SMOOTHING * uniform).log().float()


def check_priors_found(module: nn.Module) -> None:
    """Raise FileNotFoundError where the file is missing that was to give a prior in the module."""
    for part in module.modules():
        if isinstance(part, PriorBuffer):
            part.check_found()


def check_same_prior(priors: list[PriorBuffer]) -> None:
    """Priors of one head are one prior; those that are open are left out.

    Raises:
        ValueError: two differ; it names both.
    """
    known = [prior for prior in priors if not prior.is_open]
    for other in known[1:]:
        first = known[0]
        if other is first or _is_same(first, other):
            continue
        raise ValueError(
            f'{first.describe()} and {other.describe()} are different priors of one head: give '
            'the same, or only one of them, and the others take it'
        )


def is_same_log_prior(a: Tensor, b: Tensor) -> bool:
    """Whether two log-priors (C,) are one prior, up to rounding."""
    return a.shape == b.shape and bool((a - b.to(a)).abs().max() <= SAME)


def _is_same(first: PriorBuffer, other: PriorBuffer) -> bool:
    if first.is_online or other.is_online:
        return first.decay == other.decay
    return is_same_log_prior(first.log_prior, other.log_prior)


def _take_length_of_counts(prior: PriorBuffer, state_dict: dict, prefix: str) -> None:
    saved = state_dict.get(f'{prefix}online_counts')
    if saved is not None:  # its length is known from the first batch on only
        prior.online_counts = torch.zeros_like(saved, device=prior.online_counts.device)


def _online_decay(value: Any, name: str) -> float | None:
    """The factor of an online prior, None of any other."""
    if isinstance(value, str) and value == 'online':
        return 1.0
    if not isinstance(value, dict) or value.get('type') != 'online':
        return None
    decay = value.get('decay', 1.0)
    unknown = set(value) - {'type', 'decay'}
    if unknown or not 0 < decay <= 1:
        raise ValueError(
            f"{name} is {value}: an online prior is dict(type='online', decay=...) with a decay "
            'above 0 and up to 1'
        )
    return float(decay)

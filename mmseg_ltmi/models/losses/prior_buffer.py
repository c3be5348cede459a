"""A class prior that a module holds: given now, filled in before the run, or counted as it goes."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmseg_ltmi.priors import ClassPrior, build_class_prior
from mmseg_ltmi.priors.class_prior import SMOOTHING


class PriorHolder(nn.Module):
    """Base of the modules with a ``class_prior`` argument.

    ``class_prior=None`` leaves the prior open: ``needs_class_prior`` is then True and
    :class:`ClassPriorHook` calls :meth:`set_class_prior` before the run. ``'online'`` counts the
    labels that :meth:`observe` is shown, over all ranks; ``dict(type='online', decay=0.999)``
    lets old counts fade by that factor a step.

    Attributes:
        log_prior: float32 (C,), or (0,) while the prior is open or C unknown. It is not saved: the
            config or the hook gives it again, and the head keeps what a checkpoint needs.
        online_counts: float64 (C,), the running counts of an online prior; saved.
    """

    log_prior: Tensor
    online_counts: Tensor

    def __init__(self, class_prior: Any = None, num_classes: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer('log_prior', torch.empty(0), persistent=False)
        self.hold(class_prior)

    def hold(self, class_prior: Any) -> None:
        """Take what the ``class_prior`` argument says; for a subclass, when it is ready to."""
        self.decay = _online_decay(class_prior, self._where)
        if self.is_online:
            counts = torch.zeros(self.num_classes or 0, dtype=torch.float64)
            self.register_buffer('online_counts', counts)
            self._read_counts()
        elif class_prior is not None:
            self.set_class_prior(build_class_prior(class_prior, self.num_classes, self._where))

    @property
    def _where(self) -> str:
        return f'{type(self).__name__}.class_prior'

    @property
    def is_online(self) -> bool:
        return self.decay is not None

    @property
    def needs_class_prior(self) -> bool:
        return not self.is_online and self.log_prior.numel() == 0

    def set_class_prior(self, prior: ClassPrior) -> None:
        """Take the prior; its length must be ``num_classes`` where that is known."""
        if self.num_classes is not None:
            prior = build_class_prior(prior, self.num_classes, self._where)
        self.log_prior = prior.log_probs().to(self.log_prior.device)

    @torch.no_grad()
    def observe(self, labels: Tensor, num_classes: int) -> None:
        """Count the labels of a training batch on every rank, if the prior is online.

        Args:
            labels: int64, any shape; what is outside 0..C-1 is passed over.
            num_classes: C.
        """
        if self.decay is None:
            return
        if self.online_counts.numel() != num_classes:
            self.online_counts = torch.zeros(num_classes, dtype=torch.float64, device=labels.device)
        known = (labels >= 0) & (labels < num_classes)
        # The spare bin takes the rest; one_hot or boolean picking would wait for the device.
        place = labels.where(known, num_classes).flatten()
        counts = torch.zeros(num_classes + 1, dtype=torch.float64, device=labels.device)
        counts.index_add_(0, place, torch.ones_like(place, dtype=torch.float64))
        all_reduce(counts)
        self.online_counts = self.decay * self.online_counts + counts[:-1]
        self._read_counts()

    def _read_counts(self) -> None:
        # As ClassPrior.log_probs: mixed with a little of the uniform distribution, which alone
        # is left while no pixel has been seen.
        counts = self.online_counts
        uniform = torch.full_like(counts, 1 / max(counts.numel(), 1))
        total = counts.sum()
        share = (counts / total.clamp(min=1e-300)).where(total > 0, uniform)
        self.log_prior = ((1 - SMOOTHING) * share + SMOOTHING * uniform).log().float()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f'{prefix}online_counts')
        if self.is_online and saved is not None:
            # Its length is known from the first batch on only.
            self.online_counts = torch.zeros_like(saved, device=self.online_counts.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self.is_online:
            self._read_counts()

    def required_log_prior(self) -> Tensor:
        """The log-prior.

        Raises:
            RuntimeError: it is still open.
        """
        if self.needs_class_prior:
            raise RuntimeError(
                f'{self._where} is None and nothing has filled it in: name a prior '
                "(class_prior='ade20k', a path, a list of counts), or add "
                "custom_hooks=[dict(type='ClassPriorHook')] to count the train set before the run"
            )
        return self.log_prior


def _online_decay(value: Any, where: str) -> float | None:
    """The factor of an online prior, None of any other."""
    if isinstance(value, str) and value == 'online':
        return 1.0
    if not isinstance(value, dict) or value.get('type') != 'online':
        return None
    decay = value.get('decay', 1.0)
    unknown = set(value) - {'type', 'decay'}
    if unknown or not 0 < decay <= 1:
        raise ValueError(
            f"{where} is {value}: an online prior is dict(type='online', decay=...) with a decay "
            'above 0 and up to 1'
        )
    return float(decay)

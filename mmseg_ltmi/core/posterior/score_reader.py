"""How a network's raw scores are read: all of it, in one module that a checkpoint carries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..buffer_dtype import KeepBufferDtype
from ..precision import at_least_float32
from ..priors.class_prior import balancing_shift
from ..state_dict_hooks import after_load, before_load, keep_own_where_absent
from .class_memory import ClassMemory
from .iou_rule import iou_scores
from .operating_point import OperatingPoint

MEMORY = 'memory.'
"""What the keys of a memory begin with, in a reader's state dict."""
IS_READ = 'is_read'
"""In torch's metadata of a state dict, where the reader would be: the scores hold their shift.

The value is what they are more than the natural log-posterior, C numbers; True of an earlier
version is none.
"""


class ScoreReader(KeepBufferDtype):
    """Raw scores to the natural posterior, and from there to a decision.

    Raw scores plus ``natural_shift`` are the natural log-posterior. Its argmax is the decision,
    unless one of two says otherwise: ``tau_test``, which takes ``tau_test * log pi`` off again, or
    an operating point, which is a tau or the IoU rule. Both at once are an error.

    A memory, if there is one, is pooled with the classifier, in testing, before any of that: the
    mean of both log-posteriors, with weights 1 and lambda (docs/method.md).

    What is known is in buffers, so that a checkpoint carries its own meaning. Where a checkpoint
    has none of them, they stay as they are. They stay float32, also in a model of half precision:
    the union of a rare class is 0 in float16.

    Args:
        num_classes: C.
        tau_test: 0 reads the natural posterior, 1 the balanced classifier.

    Attributes:
        natural_shift: float32 (C,), what the loss trained into the scores; NaN while unknown, and
            scores are then read as they are.
        log_prior: float32 (C,), NaN while unknown.
        point_shift: float32 (C,), ``-tau * log pi`` of an operating point; with a memory it is
            divided by ``1 + lambda``, as the scores are.
        iou: float32 (C,), of the IoU rule; NaN without it.
        union: float32 (C,), likewise.
        memory: the ClassMemory, of an operating point or a checkpoint; None without one.

    Examples:
        >>> reader = ScoreReader(num_classes=19)
        >>> reader.update(loss.natural_shift(), loss.log_prior)  # of a LogitAdjustedLoss
        >>> classes = reader.classes(network(images))  # (B, H, W)
    """

    natural_shift: Tensor
    log_prior: Tensor
    point_shift: Tensor
    iou: Tensor
    union: Tensor
    is_read = False  # while whoever runs the network reads its scores
    _natural_is_raw = True

    def __init__(self, num_classes: int, tau_test: float = 0.0) -> None:
        super().__init__()
        self.tau_test = tau_test
        for name in ('natural_shift', 'log_prior', 'iou', 'union'):
            self.register_buffer(name, torch.full((num_classes,), torch.nan))
        self.register_buffer('point_shift', torch.zeros(num_classes))
        # Kept as flags, so that no step waits for the device to answer.
        self.has_iou_rule = self.has_point = self.has_shift = False
        self.has_segmentor = False  # one that decides by the IoU rule sets it
        self.memory: ClassMemory | None = None
        before_load(self, _prepare_memory)
        before_load(self, keep_own_where_absent)
        after_load(self, ScoreReader._update_flags)

    @torch.no_grad()
    def update(self, natural_shift: Tensor | None, log_prior: Tensor | None = None) -> None:
        """Take what training knows of the scores; None, or another length, leaves it as it was.

        Args:
            natural_shift: (C,), as :func:`stated_shift` of the losses gives it.
            log_prior: (C,).
        """
        for own, new in ((self.natural_shift, natural_shift), (self.log_prior, log_prior)):
            if new is not None and new.shape == own.shape:
                # That of a cross-entropy is made on the CPU, and a plain copy would wait for a GPU.
                own.copy_(new, non_blocking=not own.is_cpu)
                self.has_shift |= own is self.natural_shift

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        state_folded_reading(state_dict, prefix, local_metadata, len(self.natural_shift))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def forget_shift(self) -> None:
        """From now on it is not known what the scores mean, and they are read as they are."""
        self.natural_shift.fill_(torch.nan)
        self.has_shift = False

    def add_memory_to(self, classifier: nn.Module) -> None:
        """From now on a memory is pooled with this classifier, outside of training."""
        classifier.register_forward_hook(self._pool_memory)

    def _pool_memory(self, classifier: nn.Module, inputs: Any, logits: Tensor) -> Tensor | None:
        if self.memory is None or classifier.training:
            return None
        weight = self.memory.weight
        # Log-posteriors are pooled, and the sum is a raw score again.
        shift = self.known_natural_shift().view(-1, *[1] * (logits.ndim - 2))
        pooled = (logits + shift + weight * self.memory(inputs[0])) / (1 + weight) - shift
        return pooled.to(logits)

    @torch.no_grad()
    def set_point(self, point: OperatingPoint, memory: ClassMemory | None = None) -> None:
        """Decide by an operating point; its length must be C.

        Args:
            point: the operating point.
            memory: the one that it was chosen with. It is left out at ``memory_weight`` 0.

        Raises:
            ValueError: the point has a ``memory_weight``, but there is no memory, or one of another
                model.
        """
        self.reset_point()
        if point.memory_weight:
            if memory is None:
                raise ValueError(
                    f'the operating point ({point}) was chosen with a memory: give its file too, '
                    'which mmseg-ltmi choose has written beside it'
                )
            self.set_memory(memory, point.memory_weight)
        if point.rule == 'tau':
            tau = point.tau / (1 + point.memory_weight)
            self.point_shift.copy_(tau * balancing_shift(torch.tensor(point.log_prior)))
        else:
            self.iou.copy_(torch.tensor(point.iou))
            self.union.copy_(torch.tensor(point.union))
        self._update_flags()

    def set_memory(self, memory: ClassMemory, weight: float) -> None:
        """Let a memory, which is not copied, be pooled with the classifier.

        Args:
            memory: of C classes.
            weight: lambda.

        Raises:
            ValueError: it has another number of classes.
        """
        if memory.num_classes != len(self.log_prior):
            raise ValueError(
                f'the memory is of another model: it has {memory.num_classes} classes, this one '
                f'has {len(self.log_prior)}'
            )
        memory.weight.fill_(weight)
        self.memory = memory.to(self.log_prior.device)
        self.has_point = True

    @torch.no_grad()
    def reset_point(self) -> None:
        """Back to the argmax of the natural posterior, or to ``tau_test``."""
        self.memory = None
        self.point_shift.zero_()
        self.iou.fill_(torch.nan)
        self.union.fill_(torch.nan)
        self._update_flags()

    @property
    def opinions(self) -> float:
        """The sum of the weights whose mean the log-posterior is: 1, or 1 + lambda."""
        return 1.0 if self.memory is None else 1.0 + float(self.memory.weight)

    @property
    def changes_scores(self) -> bool:
        """Whether :meth:`forward` adds anything; current after ``eval()`` and after loading."""
        return self.has_point or bool(self.tau_test) or not self._natural_is_raw

    def train(self, mode: bool = True) -> ScoreReader:
        super().train(mode)
        if not mode and not self.iou.is_meta:
            self._update_flags()
        return self

    def check(self) -> None:
        """Raise ValueError where ``tau_test`` and an operating point contradict each other."""
        if self.has_point:
            self.check_free()

    def check_free(self) -> None:
        """Raise ValueError where ``tau_test`` leaves no room for an operating point."""
        if self.tau_test:
            raise ValueError(
                f'the head has tau_test={self.tau_test} and the segmentor an operating point, of '
                'the config or of the checkpoint: drop one of them'
            )

    def shift(self) -> Tensor:
        """What is added to raw scores, float32 (C,).

        Raises:
            RuntimeError: ``tau_test`` is not zero and the class prior is unknown.
            ValueError: as :meth:`check`.
        """
        return self.known_natural_shift() + self.reading_shift()

    def known_natural_shift(self) -> Tensor:
        """``natural_shift``, or zeros while it is unknown, float32 (C,)."""
        # Unknown means that no loss gave these scores another meaning: they are read as they are.
        return self.natural_shift.nan_to_num(nan=0.0)

    def reading_shift(self) -> Tensor:
        """What is added to the natural log-posterior, float32 (C,); errors as :meth:`shift`."""
        return self.point_shift + self.tau_shift()

    def tau_shift(self) -> Tensor:
        """The part of :meth:`reading_shift` that is of ``tau_test``; errors as there."""
        self.check()
        shift = torch.zeros_like(self.point_shift)
        if self.tau_test:
            if self.log_prior.isnan().any():
                raise RuntimeError(
                    f'tau_test={self.tau_test} needs the class prior, which neither the config '
                    'nor the checkpoint gives: give the loss or the decode head class_prior= (a '
                    "name such as 'ade20k', a path or counts)"
                )
            shift = shift + self.tau_test * balancing_shift(self.log_prior)
        return shift

    def forward(self, logits: Tensor) -> Tensor:
        """Raw scores (B, C, ...) to scores of the same shape; errors as :meth:`shift`.

        They are the natural log-posterior up to a constant per pixel, less ``tau log pi``.
        """
        return logits + self.shift().to(logits).view(1, -1, *[1] * (logits.ndim - 2))

    def read_masks(self, summed: Tensor, shift: Tensor) -> Tensor:
        """A mask classifier's ``sum_q p_q(c) m_q`` as a log-posterior; see docs/method.md.

        Args:
            summed: (..., C, H, W), not negative.
            shift: (C,), added to the logarithm.

        Returns:
            scores of the same shape, the log-posterior up to a constant per pixel.
        """
        summed = at_least_float32(summed)  # float16 has nothing below 6e-5
        tiny = torch.finfo(summed.dtype).tiny
        return summed.clamp(min=tiny).log() + shift.to(summed)[:, None, None]

    def classes(self, logits: Tensor) -> Tensor:
        """Classes, int64 (B, ...), of raw scores (B, C, ...)."""
        return self.decide(self(logits))

    def decide(self, scores: Tensor, dim: int = 1) -> Tensor:
        """Classes, int64, of scores that :meth:`forward` gave; ``dim`` is that of the classes."""
        if not self.has_iou_rule:
            return scores.max(dim).indices  # on a CPU many times as fast as argmax
        return self.decide_posterior(scores.float().softmax(dim), dim)

    def decide_posterior(self, posterior: Tensor, dim: int = 1) -> Tensor:
        """As :meth:`decide`, by the IoU rule, of probabilities."""
        return iou_scores(posterior, self.iou, self.union, dim).max(dim).indices

    def _update_flags(self) -> None:
        self.has_iou_rule = not bool(self.iou.isnan().any())
        has_memory = self.memory is not None
        self.has_point = has_memory or self.has_iou_rule or bool(self.point_shift.any())
        self.has_shift = not bool(self.natural_shift.isnan().any())
        self._natural_is_raw = not bool(self.natural_shift.nan_to_num(nan=0.0).any())


def folded_reading(metadata: dict[str, Any], num_classes: int) -> Tensor | None:
    """What a converted network's scores are more than the natural log-posterior, float32 (C,).

    Args:
        metadata: torch's, of the state dict where the reader would be.
        num_classes: C.

    Returns:
        None where the network was not converted.
    """
    found = metadata.get(IS_READ)
    if not found:
        return None
    return torch.zeros(num_classes) if found is True else torch.tensor(found)


def state_folded_reading(
    state_dict: dict[str, Tensor], prefix: str, metadata: dict[str, Any], num_classes: int
) -> bool:
    """Say in a converted network's state dict how its scores are read: as they are.

    It is known which part of them is the natural posterior, so that another point may be chosen.

    Args:
        state_dict: gets what a ScoreReader loads. A point that is there already, which the config
            names, takes the place of the one that was converted.
        prefix: of the reader.
        metadata: as for :func:`folded_reading`.
        num_classes: C.

    Returns:
        whether the network was converted, and states nothing itself.
    """
    folded = folded_reading(metadata, num_classes)
    if folded is None or f'{prefix}natural_shift' in state_dict:
        return False
    state_dict[f'{prefix}natural_shift'] = -folded
    state_dict.setdefault(f'{prefix}point_shift', folded)
    return True


def _prepare_memory(reader: ScoreReader, state_dict: dict[str, Tensor], prefix: str) -> None:
    # A module of the size that is loaded. A checkpoint that has a reader's state and no memory was
    # read without one.
    own = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    state = {k.removeprefix(MEMORY): v for k, v in own.items() if k.startswith(MEMORY)}
    if state:
        reader.memory = ClassMemory.from_state(state).to(reader.log_prior.device)
    elif own:
        reader.memory = None

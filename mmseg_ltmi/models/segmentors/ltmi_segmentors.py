"""mmsegmentation's segmentors and test-time augmentation that read scores by a ScoreReader."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import print_log
from mmengine.structures import PixelData
from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ltmi.core.posterior import (
    ClassMemory,
    OperatingPoint,
    ScoreReader,
    losses_of,
    predicting_losses_of,
    stated_shift,
)
from mmseg_ltmi.core.posterior.score_reader import MEMORY
from mmseg_ltmi.core.priors import check_priors_found
from mmseg_ltmi.core.state_dict_hooks import before_load, rename_keys
from mmseg_ltmi.core.training_step import is_training_step
from mmseg_ltmi.models.decode_heads import LTMIHeadMixin, LTMIMaskHeadMixin
from mmseg_ltmi.models.decode_heads.refined_scores import check_refinement
from mmseg_ltmi.models.raw_scores import warn_where_exported
from mmseg_ltmi.prior_message import announce_reading

from .fingerprint import check_memory, check_memory_weights, has_fingerprint, network_fingerprint
from .heads import heads_of, last_head, sums_masks

# A mixin in fact; to the type checker a segmentor, whose methods it extends.
_Segmentor: Any = EncoderDecoder if TYPE_CHECKING else object
POINT = ('point_shift', 'iou', 'union')
"""Buffers of a ScoreReader that hold an operating point."""


class ScoreReadingMixin(_Segmentor):
    """Reads the scores of the last head at an operating point, in whole and in sliding inference.

    ``seg_logits`` of a prediction are the natural log-posterior (less ``tau_test * log pi``), from
    LTMI heads and from stock heads, whose losses state their natural shift. The IoU rule decides at
    the size of the original image, after windows are joined. An LTMI head has the ScoreReader; with
    a stock head the segmentor has it, as ``score_reader.*`` in the state dict. A checkpoint without
    loads too.

    ``model(images)``, which is ``mode='tensor'``, gives raw scores at the head's resolution. So
    would a traced or exported model: docs/export.md says how to export one whose scores are read.

    Args:
        operating_point: file of ``mmseg-ltmi choose`` or its content; None reads the natural
            posterior, or what the checkpoint carries; False leaves out what the checkpoint carries.

    Raises:
        ValueError: an operating point of another model, a second one in the head's ``tau_test``,
            a head with a single sigmoid score; in training and in reading, a PointHead that trains
            another shift than the coarse head.
    """

    _has_said = False
    _is_one_reading = False  # of a cascade's heads, as far as their priors are known
    _takes_point = True  # of a checkpoint
    _point: OperatingPoint | None = None

    def __init__(self, *args: Any, operating_point: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(last_head(self), LTMIHeadMixin):
            self.score_reader = ScoreReader(self.num_classes)
            self._update_own_reader()
            if getattr(last_head(self), 'conv_seg', None) is not None:
                self.score_reader.add_memory_to(last_head(self).conv_seg)
        self.reader.has_segmentor = True
        self._takes_point = operating_point is None
        if operating_point is not None and operating_point is not False:
            self.set_operating_point(operating_point)
        before_load(self, _adapt_state_dict)

    def set_operating_point(self, source: Any) -> None:
        """Read scores at an operating point; argument and errors as those of the class."""
        point = OperatingPoint.load(source)
        self._check_classes(point)
        memory = self._memory_of(point)
        self.reader.check_free()
        self.reader.set_point(point, memory)
        self._point = point

    def drop_operating_point(self) -> None:
        """Read the natural posterior again, as training does."""
        self._point = None
        self.reader.reset_point()

    @property
    def reader(self) -> Any:
        """The ScoreReader of the last head, or the segmentor's; None in a teacher."""
        own = getattr(last_head(self), 'score_reader', None)
        return own if own is not None else getattr(self, 'score_reader', None)

    def _check_classes(self, point: OperatingPoint) -> None:
        if self.out_channels == 1:
            raise ValueError(
                'an operating point needs a score per class, but the head has out_channels=1: '
                'drop out_channels=1'
            )
        if len(point.classes) != self.num_classes:
            raise ValueError(
                f'the operating point is of another model: it has {len(point.classes)} classes, '
                f'the model has num_classes={self.num_classes}'
            )

    def _memory_of(self, point: OperatingPoint) -> ClassMemory | None:
        if not point.memory_weight:
            return None
        memory = ClassMemory.load(point.memory)
        check_memory(self, memory, point.memory)
        return memory

    def _update_own_reader(self) -> None:
        losses = losses_of(last_head(self))
        log_prior: Any = next((x.log_prior for x in losses if hasattr(x, 'log_prior')), None)
        shift = stated_shift(predicting_losses_of(last_head(self)), self.num_classes)
        self.score_reader.update(shift, log_prior)

    def loss(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The plain segmentor's losses; training ends an operating point, a validation does not."""
        is_step = is_training_step(self)
        if is_step:
            self._point = None
        self._check_heads()
        losses = super().loss(*args, **kwargs)
        if is_step and not isinstance(last_head(self), LTMIHeadMixin):
            if self.score_reader.has_point:
                self.score_reader.reset_point()
            self._update_own_reader()
        return losses

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        warn_where_exported(getattr(self, 'score_reader', None))  # an LTMI head warns by itself
        return super()._forward(*args, **kwargs)

    def encode_decode(self, *args: Any, **kwargs: Any) -> Tensor:
        """The plain segmentor's; of a stock head raw scores, which :meth:`predict` then reads."""
        warn_where_exported(getattr(self, 'score_reader', None))
        return super().encode_decode(*args, **kwargs)

    def postprocess_result(self, seg_logits: Tensor, data_samples: Any = None) -> Any:
        """Data samples with ``seg_logits`` and the decision in ``pred_sem_seg``."""
        if self.out_channels == 1:
            return super().postprocess_result(seg_logits, data_samples)
        reader = self.reader
        reader.check()
        self._check_heads()
        self._check_weights()
        head = last_head(self)
        if not isinstance(head, LTMIHeadMixin):  # which has read them
            if not reader.has_shift:  # the prior may have come since
                self._update_own_reader()
            if not reader.has_shift:  # and a prior file that would say it may be missing
                check_priors_found(head)
                self._say_unknown()
            if not sums_masks(head):
                seg_logits = reader(seg_logits)
            announce_reading(reader.reading_shift(), reader.opinions)
        samples = super().postprocess_result(seg_logits, data_samples)
        for sample in samples:
            if sums_masks(head):
                summed = sample.seg_logits.data
                sample.seg_logits = PixelData(data=_read_masks(head, reader, summed))
            if sums_masks(head) or reader.has_iou_rule:
                decided = reader.decide(sample.seg_logits.data, dim=0)
                sample.pred_sem_seg = PixelData(data=decided[None])
        return samples

    def _say_unknown(self) -> None:
        if self._has_said:
            return
        self._has_said = True
        text, level = unknown_prior(self), logging.WARNING
        if not text:
            losses = predicting_losses_of(last_head(self))
            names = ', '.join(type(loss).__name__ for loss in losses)
            text, level = f'{names} does not state how its scores are read', logging.INFO
        print_log(f'{text}: the scores are read as they are', 'current', level)

    def _check_heads(self) -> None:
        if not self._is_one_reading:  # once, since it waits for a GPU
            self._is_one_reading = check_refinement(heads_of(self))

    def _check_weights(self) -> None:
        point = self._point
        if point is None or not point.weights:
            return
        if any(p.dtype in (torch.float16, torch.bfloat16) for p in self.parameters()):
            print_log(
                f'whether the operating point ({point}) is of this model cannot be told in half '
                'precision, which has rounded the weights: predict an image in float32 first',
                'current',
                logging.WARNING,
            )
        else:
            self._check_fingerprints(point)
        self._point = replace(point, weights='')  # once is enough

    def _check_fingerprints(self, point: OperatingPoint) -> None:
        if not has_fingerprint(self, point.weights):
            raise ValueError(
                f'the operating point ({point}) is of another model: it was chosen for a network '
                f'with fingerprint {point.weights}, this one has {network_fingerprint(self)}. '
                'Choose it again with mmseg-ltmi choose; layers are fused after the first image'
            )
        if self.reader.memory is not None:
            check_memory_weights(self, self.reader.memory, point.memory)


@MODELS.register_module()
class LTMIEncoderDecoder(ScoreReadingMixin, EncoderDecoder):
    """EncoderDecoder with an operating point."""


@MODELS.register_module()
class LTMICascadeEncoderDecoder(ScoreReadingMixin, CascadeEncoderDecoder):
    """CascadeEncoderDecoder with an operating point."""


def unknown_prior(model: nn.Module) -> str:
    """That a stock head's loss shifted the scores by a prior which nothing says; '' otherwise."""
    losses = predicting_losses_of(last_head(model))
    trained = [loss for loss in losses if getattr(loss, 'loss_weight', 1) != 0]
    is_open = any(getattr(loss, 'needs_class_prior', False) for loss in trained)
    reader: Any = model.reader
    if not is_open or isinstance(last_head(model), LTMIHeadMixin) or reader.has_shift:
        return ''
    return (
        'the loss has class_prior=None, and the checkpoint does not hold what was counted: name '
        'that prior in the config (class_prior.json in the work dir of the training)'
    )


def _read_masks(head: Any, reader: ScoreReader, summed: Tensor) -> Tensor:
    # A stock head's queries have no shift, so that all of it is added to the map.
    if isinstance(head, LTMIMaskHeadMixin):
        return head.read_masks(summed)
    return reader.read_masks(summed, reader.shift())


def reader_prefix(model: nn.Module) -> str:
    """Where the keys of the ScoreReader begin in the state dict of a segmentor."""
    own, of_head = _reader_prefixes(model)
    return of_head if isinstance(last_head(model), LTMIHeadMixin) else own


def _reader_prefixes(model: nn.Module) -> tuple[str, str]:
    """Where a reader is the segmentor's, and where it is the last head's."""
    head = last_head(model)
    name = next(n for n, module in model.named_modules() if module is head)
    return 'score_reader.', f'{name}.score_reader.'


def _move_reader(state_dict: dict[str, Tensor], prefix: str, place: str, other: str) -> None:
    # A stock head's reader is the segmentor's, an LTMI head's its own: each loads the other's. That
    # of another head, as of an auxiliary one, reads other scores.
    if any(key.startswith(prefix + place) for key in state_dict):
        return
    for key in [key for key in state_dict if key.startswith(prefix + other)]:
        state_dict[f'{prefix}{place}{key.removeprefix(prefix + other)}'] = state_dict.pop(key)


def _adapt_state_dict(model: Any, state_dict: dict[str, Tensor], prefix: str) -> None:
    if model.reader is None:  # a teacher reads no scores
        return
    place = reader_prefix(model)
    other = next(name for name in _reader_prefixes(model) if name != place)
    _move_reader(state_dict, prefix, place, other)
    old = ('shift', 'iou', 'union')
    rename_keys(
        state_dict,
        prefix,
        {f'decision.{o}': f'{place}{n}' for o, n in zip(old, POINT, strict=True)},
    )
    if model._point is not None or not model._takes_point:
        # What the config names stands over what the checkpoint carries.
        for key in [key for key in state_dict if key.startswith(f'{prefix}{place}{MEMORY}')]:
            del state_dict[key]
        for name, value in model.reader.state_dict().items():
            if name.startswith((*POINT, MEMORY)):
                state_dict[f'{prefix}{place}{name}'] = value.clone()

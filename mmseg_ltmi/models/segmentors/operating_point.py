"""mmsegmentation's segmentors and test-time augmentation with an operating point."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import print_log
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder, SegTTAModel
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ltmi.evaluation.operating_point import OperatingPoint
from mmseg_ltmi.models.decode_heads import LTMIHeadMixin
from mmseg_ltmi.models.losses.natural_shift import first_stated, losses_of

from .decision import Decision

# A mixin in fact; to the type checker a segmentor, whose methods it extends.
_Segmentor: Any = EncoderDecoder if TYPE_CHECKING else object


class OperatingPointMixin(_Segmentor):
    """Reads the scores of the last head at an operating point, in whole and in sliding inference.

    ``seg_logits`` of a prediction are the natural log-posterior (less ``tau_test * log pi``), from
    LTMI heads and from stock heads, whose losses state their natural shift. The decision is made at
    the size of the original image, after windows are joined. ``decision.*`` in the state dict
    carries it; a checkpoint without loads too.

    Args:
        operating_point: file of ``tools/choose_operating_point.py`` or its content; None reads the
            natural posterior, or what the checkpoint carries.

    Raises:
        ValueError: an operating point of another model, a second one in the head's ``tau_test``,
            a head with a single sigmoid score.
    """

    decision: Decision

    def __init__(self, *args: Any, operating_point: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.decision = Decision(self.num_classes)
        self._point = None if operating_point is None else OperatingPoint.load(operating_point)
        if self._point is not None:
            self._check(self._point)
            self.decision.take(self._point)
            self._check_head()

    def _check(self, point: OperatingPoint) -> None:
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

    def _check_head(self) -> None:
        tau_test = getattr(last_head(self), 'tau_test', 0.0)
        if tau_test and not self.decision.is_plain:
            raise ValueError(
                f'the head has tau_test={tau_test} and the segmentor an operating point, of the '
                'config or of the checkpoint: drop one of them'
            )

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self._point is not None:
            # What the config names stands over what the checkpoint carries.
            for name, value in self.decision.state_dict().items():
                state_dict[f'{prefix}decision.{name}'] = value

    def loss(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The plain segmentor's losses; training ends an operating point."""
        if not self.decision.is_plain:
            print_log('training changes the model: its operating point is dropped', 'current')
            self.decision.reset()
            self._point = None
        return super().loss(*args, **kwargs)

    def postprocess_result(self, seg_logits: Tensor, data_samples: Any = None) -> Any:
        """Data samples with ``seg_logits`` and the decision in ``pred_sem_seg``."""
        if self.out_channels == 1:
            return super().postprocess_result(seg_logits, data_samples)
        self._check_head()
        self._check_weights()
        # A constant per class passes through bilinear resizing unchanged.
        shift = self.decision.shift + self._stock_shift().to(self.decision.shift)
        samples = super().postprocess_result(
            seg_logits + shift.to(seg_logits)[:, None, None], data_samples
        )
        if self.decision.has_iou_rule:
            for sample in samples:
                posterior = sample.seg_logits.data.float().softmax(0)
                decided = self.decision.iou_scores(posterior).max(0, keepdim=True).indices
                sample.pred_sem_seg = PixelData(data=decided)
        return samples

    def _stock_shift(self) -> Tensor:
        """What the head itself does not add: (C,), zero for LTMI heads."""
        head = last_head(self)
        if isinstance(head, LTMIHeadMixin):
            return torch.zeros_like(self.decision.shift)
        stated = first_stated(losses_of(head), self.num_classes)
        return torch.zeros_like(self.decision.shift) if stated is None else stated[1]

    def _check_weights(self) -> None:
        point = self._point
        if point is None or not point.weights:
            return
        found = classifier_fingerprint(self)
        if found != point.weights:
            raise ValueError(
                f'the operating point ({point}) is of another model: it was chosen for a '
                f'classifier with fingerprint {point.weights}, this one has {found}. Choose it '
                'again with tools/choose_operating_point.py'
            )
        self._point = point._replace(weights='')  # once is enough


@MODELS.register_module()
class LTMIEncoderDecoder(OperatingPointMixin, EncoderDecoder):
    """EncoderDecoder with an operating point."""


@MODELS.register_module()
class LTMICascadeEncoderDecoder(OperatingPointMixin, CascadeEncoderDecoder):
    """CascadeEncoderDecoder with an operating point."""


@MODELS.register_module()
class LTMISegTTAModel(SegTTAModel):
    """SegTTAModel that averages the posteriors of the views and then decides by the IoU rule.

    A ``tau_test`` is in the scores that the views give, and needs nothing more.
    """

    def merge_preds(self, data_samples_list: list) -> list:
        """One prediction per image from those of its views."""
        predictions = super().merge_preds(data_samples_list)
        decision = getattr(self.module, 'decision', None)
        if decision is not None and decision.has_iou_rule:
            for prediction, views in zip(predictions, data_samples_list, strict=True):
                posteriors = [view.seg_logits.data.float().softmax(0) for view in views]
                mean = torch.stack(posteriors).mean(0)
                prediction.pred_sem_seg = PixelData(data=decision.iou_scores(mean).argmax(0))
        return predictions


def heads_of(model: nn.Module) -> list[BaseDecodeHead]:
    """The decode heads of a segmentor, several in a cascade."""
    heads: Any = model.decode_head
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


def last_head(model: nn.Module) -> BaseDecodeHead:
    """The head that predicts, also of a cascade."""
    return heads_of(model)[-1]


def classifier_fingerprint(model: nn.Module) -> str:
    """16 hex digits of the last head's classifier; '' where there is none.

    Weights that were trained on, if only for a step, have another one.
    """
    classifier = getattr(last_head(model), 'conv_seg', None)
    if classifier is None:
        return ''
    digest = hashlib.sha256()
    for value in classifier.state_dict().values():
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]

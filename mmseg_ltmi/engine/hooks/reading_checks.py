"""Whether scores are judged and read as the losses of a run train them."""

from __future__ import annotations

from typing import Any

from mmseg.models.decode_heads import DDRHead, PIDHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder, SegTTAModel

from mmseg_ltmi.core.losses import LogitAdjustedLoss, SoftmaxFocalLoss
from mmseg_ltmi.core.posterior import losses_of, predicting_losses_of, stated_shift
from mmseg_ltmi.evaluation import LogitAdjustmentSweep
from mmseg_ltmi.models.decode_heads import LTMIHeadMixin
from mmseg_ltmi.models.decode_heads.hard_pixels import has_threshold
from mmseg_ltmi.models.segmentors import ScoreReadingMixin, last_head


def untold_ignore_index_warning(head: Any) -> str:
    """That a stock head does not tell its losses to ignore a class; '' otherwise."""
    index = head.ignore_index
    if not isinstance(head, (DDRHead, PIDHead)) or index not in range(head.num_classes):
        return ''
    own = [
        loss for loss in losses_of(head) if isinstance(loss, (LogitAdjustedLoss, SoftmaxFocalLoss))
    ]
    if all(loss.ignore_index == index for loss in own):
        return ''
    name = type(head).__name__
    return (
        f'class {index}, which {name} has as its ignore_index, is trained, since {name} does not '
        f'tell it to its losses: give {type(own[0]).__name__} ignore_index={index}, or take '
        f'LTMI{name}'
    )


def raw_threshold_warning(head: Any) -> str:
    """That OHEM of a stock head judges by scores of which the loss makes others; '' otherwise."""
    if not has_threshold(head):
        return ''
    for loss in losses_of(head):
        # BLVLoss has a mean of its noise.
        if isinstance(loss, LogitAdjustedLoss) and (loss.tau or getattr(loss, 'noise_mean', 0)):
            name = type(head).__name__
            return (
                f'OHEMPixelSampler(thresh={head.sampler.thresh}) of {name} judges by raw scores, '
                f'by which pixels of frequent classes stay hard, since {type(loss).__name__} adds '
                f'the prior to them: take LTMI{name}, which judges by the sum, or leave thresh out'
            )
    return ''


def check_views(model: Any, metrics: list[Any]) -> None:
    """Raise ValueError where views are merged by argmax, and something needs more than that."""
    for part in model.modules():
        if getattr(type(part), 'merge_preds', None) is not SegTTAModel.merge_preds:
            continue
        reader = getattr(part.module, 'reader', None)
        reason = ''
        if any(isinstance(metric, LogitAdjustmentSweep) for metric in metrics):
            reason = 'LogitAdjustmentSweep would judge the scores of one view'
        elif reader is not None and reader.has_iou_rule:
            reason = 'the IoU rule of the model would not decide'
        if reason:
            raise ValueError(
                f'{reason}: {type(part).__name__} merges the views by argmax. Test with '
                'mmseg-ltmi test --tta, or with --cfg-options tta_model.type=LTMISegTTAModel'
            )


def raw_decision_warning(model: Any) -> str:
    """That a segmentor decides by raw scores that its loss has shifted; '' otherwise."""
    model = next((part for part in model.modules() if isinstance(part, EncoderDecoder)), None)
    if model is None or isinstance(model, ScoreReadingMixin):
        return ''
    head = last_head(model)
    is_plain = isinstance(head, BaseDecodeHead) and not isinstance(head, LTMIHeadMixin)
    if not is_plain or head.out_channels == 1:
        return ''
    losses = predicting_losses_of(head)
    shift = stated_shift(losses, head.num_classes)
    is_open = any(getattr(loss, 'needs_class_prior', False) for loss in losses)
    if not is_open and (shift is None or float(shift.max() - shift.min()) < 1e-6):
        return ''
    names = ', '.join(type(loss).__name__ for loss in losses)
    return (
        f'{names} of {type(head).__name__} shifts the scores of classes (class weights, a prior), '
        f'and {type(model).__name__} decides by the raw scores, in validation too: set '
        "model.type='LTMIEncoderDecoder' (LTMICascadeEncoderDecoder for a cascade), or take the "
        'LTMI form of the head'
    )

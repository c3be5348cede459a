"""Test-time augmentation that averages posteriors before the decision."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ltmi.models.decode_heads import LTMIHeadMixin

from .heads import last_head


@MODELS.register_module()
class LTMISegTTAModel(SegTTAModel):
    """SegTTAModel that averages the natural posteriors of the views, and then reads the mean.

    What is read, the logarithm of the mean less ``tau log pi``, is the prediction's ``seg_logits``.
    """

    def merge_preds(self, data_samples_list: list) -> list:
        """One prediction per image from those of its views."""
        if self.module.out_channels == 1:  # a sigmoid score
            return super().merge_preds(data_samples_list)
        shift = _reading_shift(self.module)
        for views in data_samples_list:
            # One at a time: the views of a large image take much memory.
            total = torch.zeros_like(views[0].seg_logits.data, dtype=torch.float32)
            for view in views:
                total += (view.seg_logits.data - shift.to(total)[:, None, None]).softmax(0)
            mean = (total / len(views)).log_()
            views[0].seg_logits = PixelData(data=mean + shift.to(mean)[:, None, None])
        predictions = super().merge_preds([[views[0]] for views in data_samples_list])
        reader = getattr(self.module, 'reader', None)
        if reader is not None and reader.has_iou_rule:
            for prediction in predictions:
                decided = reader.decide(prediction.seg_logits.data, dim=0)
                prediction.pred_sem_seg = PixelData(data=decided)
        return predictions


def _reading_shift(model: Any) -> Tensor:
    """What a segmentor has added to the natural log-posterior, float32 (C,)."""
    head = last_head(model) if hasattr(model, 'decode_head') else None
    if isinstance(head, LTMIHeadMixin):
        return head.reading_shift().nan_to_num(nan=0.0)
    reader = getattr(model, 'reader', None)
    return torch.zeros(model.out_channels) if reader is None else reader.reading_shift()

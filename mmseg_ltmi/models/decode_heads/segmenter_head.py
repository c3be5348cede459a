"""The LTMI form of Segmenter's head, whose scores are products with class tokens."""

from __future__ import annotations

from mmseg.models.decode_heads import SegmenterMaskTransformerHead
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ltmi.core import FeatureRecorder

from .ltmi_head import LTMIHeadMixin


@MODELS.register_module()
class LTMISegmenterMaskTransformerHead(LTMIHeadMixin, SegmenterMaskTransformerHead):
    """SegmenterMaskTransformerHead with the contrastive term and the score reader of LTMIHeadMixin.

    A pixel feature is a patch as the decoder leaves it, before the product with the class tokens.
    """

    def _feature_channels(self) -> int:
        return self.patch_proj.out_features

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """The plain head's raw scores (B, C, h, w)."""
        with FeatureRecorder(self, self.patch_proj) as recorder:
            logits = super().forward(inputs)
            projected = recorder.logits
        self._note(projected.transpose(1, 2).unflatten(2, logits.shape[2:]), logits)
        return logits

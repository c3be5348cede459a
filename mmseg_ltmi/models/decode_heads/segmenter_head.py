"""The LTMI form of Segmenter's head, whose scores are products with class tokens."""

from __future__ import annotations

from mmseg.models.decode_heads import SegmenterMaskTransformerHead
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ltmi.models.raw_scores import warn_where_exported

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
        seen: list[Tensor] = []
        hook = self.patch_proj.register_forward_hook(lambda _, x, out: seen.append(out))
        try:
            logits = super().forward(inputs)
        finally:
            hook.remove()
        if self._record is None:
            warn_where_exported(self.score_reader)
        else:
            patches = seen[0].transpose(1, 2).unflatten(2, logits.shape[2:])
            self._record.features, self._record.logits = patches, logits
        return logits

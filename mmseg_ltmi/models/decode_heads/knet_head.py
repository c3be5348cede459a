"""The LTMI form of K-Net's head, which refines the classifier's kernels in stages."""

from __future__ import annotations

from typing import Any

from mmseg.models.decode_heads import IterativeDecodeHead
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ltmi.core import FeatureRecorder

from .hard_pixels import judge_by_trained_scores
from .ltmi_head import LTMIHeadMixin


def check_wrapped(head: IterativeDecodeHead) -> None:
    """Refuse a head that K-Net's wraps with what would have no effect there.

    K-Net's head calls the forward pass and ``loss_by_feat`` of the one that it wraps, but neither
    its ``loss``, which adds the terms on the features, nor its ``predict``, which reads the scores.

    Raises:
        ValueError: naming it.
    """
    wrapped: Any = head.kernel_generate_head
    if not isinstance(wrapped, LTMIHeadMixin):
        return
    for name in ('contrast', 'region', 'test_prior', 'tau_test'):
        if getattr(wrapped, name):
            raise ValueError(
                f'kernel_generate_head={type(wrapped).__name__} has {name}, which has no effect '
                f'there: give {name} to LTMIIterativeDecodeHead, and make kernel_generate_head '
                f'{type(wrapped).__name__.removeprefix("LTMI")}'
            )


@MODELS.register_module()
class LTMIIterativeDecodeHead(LTMIHeadMixin, IterativeDecodeHead):
    """IterativeDecodeHead with the contrastive term and the score reader of LTMIHeadMixin.

    The losses are those of ``kernel_generate_head``, which every stage shares: all are adjusted.
    The pixel features are what the first classifier sees.

    Raises:
        ValueError: as LTMIHeadMixin; ``kernel_generate_head`` has what this head alone can use.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_wrapped(self)
        judge_by_trained_scores(self.kernel_generate_head)

    def _feature_channels(self) -> int:
        return self.kernel_generate_head.conv_seg.in_channels

    def _adjusts_before_upsampling(self) -> bool:
        return False  # each stage's scores go to the head that is wrapped

    def forward(self, inputs: list[Tensor]) -> Any:
        """The plain head's raw scores (B, C, h, w), of every stage in training."""
        with FeatureRecorder(self, self.kernel_generate_head.conv_seg) as recorder:
            stages = super().forward(inputs)
            features = recorder.features
        self._note(features, stages[-1] if isinstance(stages, list) else stages)
        return stages

    def loss_by_feat(self, seg_logits: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The plain head's losses."""
        self._stack_batch_gt(args[0])  # for the contrast; the wrapped head stacks its own
        return super().loss_by_feat(seg_logits, *args, **kwargs)

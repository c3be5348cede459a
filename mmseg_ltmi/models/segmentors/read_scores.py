"""A segmentor for tracing and export, whose scores are read."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmseg_ltmi.core.posterior import ScoreReader

from .heads import last_head


class ReadScores(nn.Module):
    """Gives the scores that the model's ``predict`` reads; the model itself gives raw ones.

    For what has no stock form, such as a cosine classifier. It keeps the reading (``tau_test``, a
    tau as operating point) that the model has when it is made.

    Args:
        model: a segmentor with an LTMI head, or one that reads the scores of a stock head.

    Shape:
        normalized images (B, 3, H, W) to scores (B, C, h, w) at the head's resolution, the
        log-posterior up to a constant per pixel.

    Raises:
        ValueError: the model reads no scores, or decides by the IoU rule.
        RuntimeError: ``tau_test`` without a known class prior.
    """

    shift: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        own = getattr(model, 'score_reader', None)
        reader: Any = getattr(last_head(model), 'score_reader', own)
        if reader is None:
            raise ValueError(
                f'{type(model).__name__} with {type(last_head(model)).__name__} reads no scores, '
                'it decides by the raw ones: trace or export it as it is'
            )
        if reader.has_iou_rule:
            raise ValueError(
                'the model decides by the IoU rule, at the size of the image, and no shift of the '
                "scores does that: choose a tau (mmseg-ltmi choose --choose 'tau by mIoU'), or "
                'call model.reader.reset_point() for the natural posterior'
            )
        self.model = model
        self.register_buffer('shift', reader.shift())
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, C, h, w) of normalized images (B, 3, H, W)."""
        readers = [part for part in self.model.modules() if isinstance(part, ScoreReader)]
        for reader in readers:
            reader.is_read = True
        scores: Any = self.model(images)
        for reader in readers:
            reader.is_read = False
        if isinstance(scores, (tuple, list)):  # the first of several outputs, as predict() takes it
            scores = scores[0]
        return scores + self.shift.to(scores).view(1, -1, 1, 1)

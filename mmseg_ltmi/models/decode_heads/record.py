"""What a decode head sees in a training step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class HeadRecord:
    """Filled while the head computes its losses.

    Attributes:
        features: pixel features (B, in_channels, h, w), what the classifier sees.
        logits: raw scores (B, C, h, w).
        labels: int64 (B, H, W), as the head stacks them.
        data_samples: of the batch.
    """

    features: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    labels: Tensor = field(default_factory=lambda: torch.empty(0))
    data_samples: list[Any] = field(default_factory=list)

    def class_labels(self, ignore_index: int) -> Tensor:
        """The labels with -1 for ``ignore_index``, which may be a class's number."""
        return self.labels.masked_fill(self.labels == ignore_index, -1)

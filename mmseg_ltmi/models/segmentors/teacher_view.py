"""The images that a teacher sees: the student's or a second view, normalized as it wants."""

from __future__ import annotations

import torch
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ltmi.datasets.two_views import SECOND_VIEW


def second_view(inputs: Tensor, data_samples: list, preprocessor: nn.Module) -> Tensor:
    """The second photometric view of each image (see PackTwoViews), or ``inputs`` without one.

    Args:
        inputs: normalized images (B, 3, H, W).
        data_samples: of the batch, which hold the views as they were loaded.
        preprocessor: the student's, which normalizes and pads them.
    """
    if not all(SECOND_VIEW in sample for sample in data_samples):
        return inputs
    views = [sample.get(SECOND_VIEW).data for sample in data_samples]
    # Padding changes data samples; these have had theirs.
    data = dict(inputs=views, data_samples=[SegDataSample() for _ in views])
    return preprocessor(data, training=True)['inputs']


class Renormalization(nn.Module):
    """From one data preprocessor's normalization and channel order to another's.

    Padding is an image like the rest: it keeps the colour that the first gave it.

    Args:
        have: preprocessor that the images went through.
        want: preprocessor that they should have gone through.

    Shape:
        (B, 3, H, W) to the same.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, have: nn.Module, want: nn.Module) -> None:
        super().__init__()
        (mean, std, swapped), (other_mean, other_std, other_swapped) = _norm(have), _norm(want)
        self.flips = swapped != other_swapped
        if self.flips:
            mean, std = mean.flip(0), std.flip(0)
        self.register_buffer('scale', std / other_std, persistent=False)
        self.register_buffer('offset', (mean - other_mean) / other_std, persistent=False)
        self.is_needed = self.flips or bool((self.scale != 1).any() or self.offset.any())

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.is_needed:
            return inputs
        return (inputs.flip(1) if self.flips else inputs) * self.scale + self.offset


def _norm(preprocessor: nn.Module) -> tuple[Tensor, Tensor, bool]:
    """Mean and standard deviation (3, 1, 1), and whether RGB and BGR are swapped."""
    # The fork's preprocessor, as mmengine's own, has the name with an underscore.
    names = ('channel_conversion', '_channel_conversion')
    swapped = any(getattr(preprocessor, name, False) for name in names)
    if not getattr(preprocessor, '_enable_normalize', False):
        return torch.zeros(3, 1, 1), torch.ones(3, 1, 1), swapped
    mean, std = (torch.as_tensor(getattr(preprocessor, name)) for name in ('mean', 'std'))
    return mean, std, swapped

"""In which precision what autocast made is computed."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """float64 stays, every other dtype becomes float32."""
    return x if x.dtype == torch.float64 else x.float()

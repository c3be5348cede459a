"""Which queries of a mask classifier are contrasted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pixel_sampler import PixelSample


class MatchedQuerySampler(nn.Module):
    """The queries that the matching gave a class, each once; of too many a random part.

    There is one for each class of each image, so their distribution is the prior of presence. As
    with pixel samplers the number of samples is fixed, and what could not be filled has label -1.

    Args:
        num_samples: N.

    Raises:
        ValueError: ``num_samples`` below 1.
    """

    needs_logits = False

    def __init__(self, num_samples: int = 256) -> None:
        super().__init__()
        if num_samples < 1:
            raise ValueError(f'MatchedQuerySampler.num_samples is {num_samples}: draw at least 1')
        self.num_samples = num_samples

    @torch.no_grad()
    def forward(
        self, labels: Tensor, class_log_prior: Tensor, logits: Tensor | None = None
    ) -> PixelSample:
        """Pick the matched queries.

        Args:
            labels: int64, any shape; what is outside 0..C-1 is not matched.
            class_log_prior: float32 (C,), the log-prior of presence.
            logits: not used.
        """
        flat = labels.flatten()
        matched = (flat >= 0) & (flat < class_log_prior.numel())
        # The matched ones come first, in random order.
        order = torch.rand(flat.numel(), dtype=torch.float64, device=flat.device) + matched
        pick = order.argsort(descending=True)[: self.num_samples]
        missing = (0, self.num_samples - len(pick))
        drawn = flat[pick].where(matched[pick], -1)
        return PixelSample(F.pad(pick, missing), F.pad(drawn, missing, value=-1), class_log_prior)

"""RankSEG's decision, the peer that serves the IoU of each image."""

from __future__ import annotations

from torch import Tensor


class RankSEGRule:
    """Decides each image by the package ``rankseg``, so that its expected mean IoU is highest.

    It looks at one image at a time and needs no split to choose on, whereas the IoU rule serves the
    IoU of the whole data set.

    Source: Dai and Li, "RankSEG: A Consistent Ranking-based Framework for Segmentation", JMLR 24
    (2023); Wang and Dai, "RankSEG-RMA", NeurIPS 2025.

    Raises:
        ImportError: the package is missing.
    """

    def __init__(self) -> None:
        try:
            from rankseg import RankSEG
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "RankSEG's decision needs the package rankseg: pip install rankseg"
            ) from error
        self.solver = RankSEG(metric='IoU', output_mode='multiclass')

    def decide(self, log_posterior: Tensor) -> Tensor:
        """Classes (H, W) of a natural log-posterior (C, H, W)."""
        # A softmax in float32 can pass 1 by a rounding, which the package refuses.
        posterior = log_posterior.float().softmax(0).clamp(max=1)
        return self.solver.predict(posterior[None])[0]

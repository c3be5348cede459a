"""mmengine's Runner where there is no GPU."""

from __future__ import annotations

from mmengine.model import revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn


@RUNNERS.register_module()
class CPURunner(Runner):
    """Trains stock configs in CPU processes: SyncBN, which needs a GPU, becomes BN."""

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """The model, without SyncBN."""
        return revert_sync_batchnorm(super().build_model(model))

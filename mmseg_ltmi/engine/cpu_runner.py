"""mmengine's Runner where there is no GPU."""

from __future__ import annotations

from typing import Any

from mmengine.model import revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn


@RUNNERS.register_module()
class CPURunner(Runner):
    """Trains stock configs on a CPU: SyncBN, which needs a GPU, becomes BN."""

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """The model, without SyncBN."""
        return revert_sync_batchnorm(super().build_model(model))

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """mmengine's set-up, with gloo in the place of nccl."""
        dist_cfg = {**env_cfg.get('dist_cfg', {}), 'backend': 'gloo'}
        super().setup_env({**env_cfg, 'dist_cfg': dist_cfg})

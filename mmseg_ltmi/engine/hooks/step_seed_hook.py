"""Makes a run that is resumed draw what it would have drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class StepSeedHook(Hook):
    """Seed torch before every training step from the run's seed, the rank and the step.

    Pixel sampling, dropout and drop path then depend on the step alone. mmengine restores weights,
    optimizer and the order of the data, but not the state of the generators; with this hook a
    resumed run goes on exactly, as far as the device's kernels are deterministic. Give the run a
    seed (``randomness=dict(seed=0)``), and workers to the data loader, whose generators are not
    touched.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the generators of the CPU and of every device."""
        # Mixed, so that runs of neighbouring seeds do not share the draws of neighbouring steps.
        words = np.random.SeedSequence([runner.seed, get_rank(), runner.iter])
        torch.manual_seed(int(words.generate_state(1, np.uint64)[0] >> np.uint64(1)))

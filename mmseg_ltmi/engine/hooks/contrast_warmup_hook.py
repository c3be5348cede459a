"""Lets the contrastive term come in late."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_ltmi.core.losses import GMLLoss


@HOOKS.register_module()
class ContrastWarmupHook(Hook):
    """Raise the weight of every GMLLoss linearly from 0 at step ``begin`` to its own at ``end``.

    Until then the queue fills with features that are still poor. Step counts are those of the run,
    so a resumed run goes on where it was. Each value of the weight is another graph to a compiler:
    do not combine this with ``compile=True``.

    Args:
        begin: last training step without the term.
        end: first training step with all of it.

    Raises:
        ValueError: ``begin`` is negative or not before ``end``; at the start of training, if the
            model has no GMLLoss.
    """

    def __init__(self, begin: int = 0, end: int = 200) -> None:
        if not 0 <= begin < end:
            raise ValueError(
                f'ContrastWarmupHook goes from begin={begin} to end={end}: 0 <= begin < end'
            )
        self.begin = begin
        self.end = end
        self._losses: list[tuple[GMLLoss, float]] = []

    def before_train(self, runner: Runner) -> None:
        """Find the losses and their weights."""
        found = [m for m in runner.model.modules() if isinstance(m, GMLLoss)]
        if not found:
            raise ValueError(
                'ContrastWarmupHook: the model has no GMLLoss; give the head contrast='
            )
        self._losses = [(loss, loss.loss_weight) for loss in found]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the weights of this step."""
        share = (runner.iter - self.begin) / (self.end - self.begin)
        for loss, weight in self._losses:
            loss.loss_weight = weight * min(max(share, 0.0), 1.0)

    def after_train(self, runner: Runner) -> None:
        """Leave the losses as they were."""
        for loss, weight in self._losses:
            loss.loss_weight = weight

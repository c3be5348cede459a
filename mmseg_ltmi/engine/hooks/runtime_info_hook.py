"""The hook that every run has, and what it checks beside what mmengine's does."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import RuntimeInfoHook
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from mmseg_ltmi.core.priors import PriorBuffer
from mmseg_ltmi.core.state_dict_hooks import forget_classes

from .run_checks import check_prior, has_other_classes


# mmengine adds a hook of this name to every run, and looks it up in the registry of the run's scope
# before its own: this needs no line in a config.
@HOOKS.register_module(name='RuntimeInfoHook')
class LTMIRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's RuntimeInfoHook, which also compares what a run is made of.

    Every run whose default scope is 'mmseg' has it by itself. A config of another scope names it:
    ``default_hooks=dict(runtime_info=dict(type='mmseg.RuntimeInfoHook'))``. It refuses a class
    prior that is missing or is of other classes or labels than the train set, and takes from a
    checkpoint of other classes nothing but weights.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the priors of the model with the train set.

        Raises:
            FileNotFoundError: the file of a prior is missing.
            ValueError: a prior is of other classes than the train set, or of labels that are read
                otherwise.
        """
        super().before_train(runner)
        for module in runner.model.modules():
            if isinstance(module, PriorBuffer):
                check_prior(module, runner.train_dataloader.dataset)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Drop what the checkpoint holds of single classes, if training goes on with others."""
        if not isinstance(runner._train_loop, BaseLoop):  # only train() has built it by now
            return
        if not has_other_classes(checkpoint.get('meta'), runner.train_dataloader.dataset):
            return
        if forget_classes(checkpoint.get('state_dict', checkpoint)):
            runner.logger.warning(
                "the checkpoint's classes are not the train set's: the queue's keys and the counts "
                'of an online prior begin anew'
            )

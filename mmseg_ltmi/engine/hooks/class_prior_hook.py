"""Counts the class prior before a run whose config names none."""

from __future__ import annotations

from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_ltmi.priors import ClassPrior, describe


@HOOKS.register_module()
class ClassPriorHook(Hook):
    """Fill in ``class_prior=None`` from the train set.

    Rank 0 counts, or reads what it counted for the same data set before; the others receive it.

    Args:
        num_workers: processes that count; 0 counts in the run's own.
        cache: file in the work dir.
    """

    priority = 'VERY_HIGH'

    def __init__(self, num_workers: int = 0, cache: str = 'class_prior.json') -> None:
        self.num_workers = num_workers
        self.cache = cache

    def before_train(self, runner: Runner) -> None:
        """Fill every module of the model that has an open prior."""
        waiting = [m for m in runner.model.modules() if getattr(m, 'needs_class_prior', False)]
        if not waiting:
            return
        result: list = [None]
        if is_main_process():
            try:
                result = [self._prior(runner)]
            except Exception as error:  # the other ranks wait for an answer, whatever it is
                result = [error]
        broadcast_object_list(result)
        if isinstance(result[0], Exception):
            raise result[0]
        for module in waiting:
            module.set_class_prior(result[0])

    def _prior(self, runner: Runner) -> ClassPrior:
        dataset = runner.train_dataloader.dataset
        path = Path(runner.work_dir) / self.cache
        if path.is_file():
            prior = ClassPrior.load(path)
            if prior.source == f'counted over {describe(dataset)}':
                return prior
            runner.logger.info(f'{path} belongs to another data set: counting again')
        runner.logger.info(f'counting the class prior of {describe(dataset)}')
        prior = ClassPrior.from_dataset(dataset, self.num_workers)
        prior.save(path)
        return prior

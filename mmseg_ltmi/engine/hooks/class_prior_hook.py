"""Counts the class prior before a run whose config names none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from mmseg_ltmi.core.priors import (
    ClassCountError,
    ClassPrior,
    count_as_trained,
    describe,
    list_failures,
)
from mmseg_ltmi.core.priors.as_trained import as_trained_source
from mmseg_ltmi.core.priors.resampling import resampling_of
from mmseg_ltmi.prior_table import absent_classes, class_table


def fill_in(waiting: Iterable[Any], prior: ClassPrior) -> None:
    """Give modules the prior that they wait for, in the order in which a model has them."""
    for module in waiting:
        if module.needs_class_prior:  # a head gives it to its losses, which may adapt it
            module.set_class_prior(prior)


@HOOKS.register_module()
class ClassPriorHook(Hook):
    """Fill in ``class_prior=None`` from the train set.

    Every submodule of the model whose ``needs_class_prior`` is true receives the prior through
    ``set_class_prior(prior)``. Where none is, nothing is counted. Rank 0 counts, or reads what it
    counted for the same data set before; the others wait and receive it. On a large data set
    that may outlast the time-out of the process group: give more ``num_workers``, or count once
    with ``mmseg-ltmi count`` and name the file as ``class_prior``. The log has the counts as a
    table, and a warning that names the classes without any pixel.

    Where RareClassDataset or RareClassPaste changes how often classes occur, samples are counted
    behind the pipeline, see :func:`count_as_trained`.

    Args:
        num_workers: processes that count; 0 counts in the run's own.
        cache: file in the work dir.
        num_samples: how many samples are counted behind a pipeline that resamples classes.
    """

    # Before EMAHook copies the model, which must find buffers of their final shape.
    priority = 'VERY_HIGH'

    def __init__(
        self, num_workers: int = 0, cache: str = 'class_prior.json', num_samples: int = 2000
    ) -> None:
        self.num_workers = num_workers
        self.cache = cache
        self.num_samples = num_samples

    def before_run(self, runner: Runner) -> None:
        """Fill every module of the model that has an open prior, if this run trains.

        Not ``before_train``, which comes after a checkpoint is resumed: a queue that learns its
        shares from the prior would empty what the checkpoint had put into it.

        Raises:
            ClassCountError: on every rank, if the train set cannot be counted.
        """
        # Only train() has built the loop by now; val() and test() share before_run.
        if isinstance(runner._train_loop, BaseLoop):
            self._fill(runner)

    def _fill(self, runner: Runner) -> None:
        waiting = [m for m in runner.model.modules() if getattr(m, 'needs_class_prior', False)]
        if not waiting:
            return
        answer: list = [None, '']
        failure = None
        if is_main_process():
            try:
                answer[0] = prior = self._prior(runner)
                runner.logger.info(f'class prior, {prior.source}:\n{class_table(prior)}')
                if absent := absent_classes(prior):
                    runner.logger.warning(absent)
            except Exception as error:  # the other ranks wait for an answer, whatever it is
                failure = error
                answer[1] = f'rank 0 could not get the class prior: {error}'
        broadcast_object_list(answer)
        if failure is not None:
            raise failure
        if answer[1]:
            raise ClassCountError(answer[1])
        fill_in(waiting, answer[0])

    def _prior(self, runner: Runner) -> ClassPrior:
        dataset = runner.train_dataloader.dataset
        path = Path(runner.work_dir) / self.cache
        resampled = resampling_of(dataset)
        source = (
            as_trained_source(dataset, self.num_samples, 0)
            if resampled
            else f'counted over {describe(dataset)}'
        )
        if path.is_file():
            try:
                prior = ClassPrior.load(path)
                if prior.source == source:
                    return prior
                reason = 'belongs to another data set'
            except ValueError as error:
                reason = f'cannot be used ({error})'
            runner.logger.info(f'{path} {reason}: counting again')
        runner.logger.info(f'counting the class prior of {describe(dataset)}')
        if resampled:
            prior = self._count_as_trained(dataset)
        else:
            prior = ClassPrior.from_dataset(dataset, self.num_workers, progress=True)
        prior.save(path)
        return prior

    def _count_as_trained(self, dataset: Any) -> ClassPrior:
        how: Any = dict(num_workers=self.num_workers, progress=True)
        report = count_as_trained(dataset, self.num_samples, **how)
        if report.failures or report.prior is None:
            raise ClassCountError(list_failures(report.failures) or 'no pixel has a class')
        return report.prior

"""The hook that every run has, and what it checks beside what mmengine's does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from mmengine.hooks import RuntimeInfoHook
from mmengine.runner import BaseLoop, Runner
from mmseg.models.decode_heads import IterativeDecodeHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import HOOKS

from mmseg_ltmi.core.forgetting import forget_classes, forget_counts, forget_operating_point
from mmseg_ltmi.core.posterior import ScoreReader
from mmseg_ltmi.core.priors import PriorBuffer
from mmseg_ltmi.core.priors.dataset_parts import distinct_images, image_file
from mmseg_ltmi.core.priors.dataset_wrappers import metainfo_of
from mmseg_ltmi.models.checkpoint_file import trained_labels
from mmseg_ltmi.models.decode_heads.decode_losses import check_decode_losses
from mmseg_ltmi.models.decode_heads.knet_head import check_wrapped
from mmseg_ltmi.models.decode_heads.ltmi_head import POINT_DROPPED
from mmseg_ltmi.models.decode_heads.refined_scores import check_refinement
from mmseg_ltmi.models.segmentors import ScoreReadingMixin, heads_of, last_head
from mmseg_ltmi.prior_message import forget_announcements
from mmseg_ltmi.prior_table import in_one_line

from .reading_checks import (
    check_views,
    raw_decision_warning,
    raw_threshold_warning,
    untold_ignore_index_warning,
)
from .run_checks import (
    check_evaluated,
    check_ignore_index,
    check_named_priors,
    check_number,
    check_parts,
    check_prior,
    has_other_classes,
    reading_warning,
    resampling_warning,
    sampler_warning,
    trained_ignored_class_warning,
)

PACKAGE = __name__.split('.')[0]
UNLESS = (
    ". If their files are numbered otherwise, default_hooks=dict(runtime_info=dict(type='mmseg."
    "RuntimeInfoHook', compare=False)) leaves this comparison out"
)


# mmengine adds a hook of this name to every run, and looks it up in the registry of the run's scope
# before its own: this needs no line in a config.
@HOOKS.register_module(name='RuntimeInfoHook')
class LTMIRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's RuntimeInfoHook, which also compares what a run is made of.

    Every run whose default scope is 'mmseg' has it by itself. A config of another scope names it:
    ``default_hooks=dict(runtime_info=dict(type='mmseg.RuntimeInfoHook'))``.

    - A class prior that is missing, or is of other classes or labels than the train set, is an
      error before training. So is a head of another number of classes, and under an LTMI head a
      metric of the validation whose prior has other head, medium and tail classes than the head's
      (LogitAdjustmentSweep: other numbers).
    - A warning says where a prior was counted before a train set is resampled, the scores are read
      for the resampled one, a sampler draws in its own way, or a stock head's shifted scores decide
      as they are.
    - From a checkpoint of other classes training takes the weights, and neither a queue's keys, nor
      the counts of an online prior, nor the average of an EMA teacher.
    - ``load_from`` takes the weights and no counts of an online prior; resuming goes on with them.
    - Training drops an operating point and its memory, of the config or of a checkpoint, before
      EMAHook copies the model.
    - In runs with a model or a metric of this package, an evaluated data set of other classes or
      another ``reduce_zero_label`` than the train set is an error, and so is a metric whose
      ``ignore_index`` is a class in training, or the other way round. Without training the classes
      are compared with those that the checkpoint names.

    Args:
        compare: whether evaluated data sets are compared, and the priors that metrics name.
    """

    def __init__(self, compare: bool = True) -> None:
        self.compare = compare
        self._trained: tuple[str, Mapping[str, Any]] = ('the checkpoint', {})
        self._compared: Any = None

    def before_run(self, runner: Runner) -> None:
        """Drop an operating point, if this run trains."""
        super().before_run(runner)
        if not isinstance(runner._train_loop, BaseLoop):  # only train() has built it by now
            return
        # In the first step it would be too late: EMAHook pairs the buffers of its copy with the
        # model's by their order, and a memory that goes away is some.
        readers = [m for m in runner.model.modules() if isinstance(m, ScoreReader) and m.has_point]
        for model in runner.model.modules():
            if isinstance(model, ScoreReadingMixin) and model.reader in readers:
                model.drop_operating_point()
        for reader in readers:  # also of a head under another segmentor
            reader.reset_point()
        if readers:
            runner.logger.info(POINT_DROPPED)

    def before_train(self, runner: Runner) -> None:
        """Compare the model's priors, and what validates it, with the train set.

        Raises:
            FileNotFoundError: the file of a prior is missing.
            ValueError: a prior, the head that predicts or the val set is of other classes than the
                train set, or of labels that are read otherwise; a head that K-Net's wraps has a
                contrast, a PointHead trains another shift than the coarse head, or a head
                has a loss that is none of scores.
        """
        super().before_train(runner)
        dataset = runner.train_dataloader.dataset
        priors = [m for m in runner.model.modules() if isinstance(m, PriorBuffer)]
        models = [m for m in runner.model.modules() if hasattr(m, 'decode_head')]
        has_ours = any(map(_is_ours, runner.model.modules()))
        if has_ours:
            for model in models:
                check_number(last_head(model), dataset)
        for prior in priors:
            check_prior(prior, dataset)
        heads = [m for m in runner.model.modules() if isinstance(m, BaseDecodeHead)]
        for head in heads:
            check_decode_losses(getattr(head, 'loss_decode', None), type(head).__name__)
            if isinstance(head, IterativeDecodeHead):
                check_wrapped(head)
        if has_ours:
            check_parts(dataset)
            _check_cascades(runner)
            _warn(runner, (trained_ignored_class_warning(head, dataset) for head in heads))
            _warn(runner, map(untold_ignore_index_warning, heads))
            _warn(runner, map(raw_threshold_warning, heads))
            _warn(runner, [raw_decision_warning(runner.model)])
        of_tests = {id(getattr(head, 'test_prior', None)) for head in heads}
        trained = [prior for prior in priors if id(prior) not in of_tests]
        shared = {id(prior.class_prior): prior for prior in reversed(trained)}  # once each
        _warn(runner, (resampling_warning(prior, dataset) for prior in shared.values()))
        loader = runner.train_dataloader
        _warn(runner, (sampler_warning(prior, loader) for prior in shared.values()))
        _warn(runner, (reading_warning(last_head(model), dataset) for model in models))
        known = [prior.class_prior for prior in priors if prior.class_prior is not None]
        for line in dict.fromkeys(map(in_one_line, known)):
            runner.logger.info(line)
        self._trained = ('the train set', metainfo_of(dataset))
        if isinstance(runner._val_loop, BaseLoop):
            self._compare(runner, runner._val_loop, 'the val set')

    def before_val(self, runner: Runner) -> None:
        """Compare the val set with what the model was trained on; errors as the class says."""
        super().before_val(runner)
        forget_announcements()
        _place_label_maps(runner.val_loop)
        self._compare(runner, runner.val_loop, 'the val set')

    def before_test(self, runner: Runner) -> None:
        """Compare the test set with what the model was trained on; errors as the class says."""
        super().before_test(runner)
        forget_announcements()
        check_views(runner.model, _metrics_of(runner.test_loop))
        _place_label_maps(runner.test_loop)
        if any(map(_is_ours, [*runner.model.modules(), *_metrics_of(runner.test_loop)])):
            _check_cascades(runner)
            _warn(runner, [raw_decision_warning(runner.model)])
        self._compare(runner, runner.test_loop, 'the test set')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """To train, drop what the class says; the weights stay."""
        self._trained = ('the checkpoint', trained_labels(checkpoint))
        if not isinstance(runner._train_loop, BaseLoop):
            return
        averaged, state = checkpoint.get('ema_state_dict'), checkpoint.get('state_dict', checkpoint)
        forget_operating_point(averaged or {})  # EMAHook wants the same names
        if forget_operating_point(state):
            runner.logger.info(POINT_DROPPED)
        if not runner._resume:
            if forget_counts(state):
                runner.logger.info(
                    'load_from takes the weights: the counts of an online prior begin anew'
                )
        if not has_other_classes(self._trained[1], runner.train_dataloader.dataset):
            return
        forget_classes(averaged or {})
        if forget_classes(state):
            runner.logger.warning(
                "the checkpoint's classes are not the train set's: the queue's keys, the counts of "
                'an online prior and an EMA teacher begin anew'
            )

    def _compare(self, runner: Runner, loop: Any, name: str) -> None:
        judging = [
            metric for metric in _metrics_of(loop) if not getattr(metric, 'format_only', False)
        ]
        if not self.compare or not judging or loop is self._compared:
            return
        self._compared = loop  # once, and not at each validation
        if not any(map(_is_ours, [*runner.model.modules(), *judging])):
            return
        dataset = loop.dataloader.dataset
        who, labels = self._trained
        check_evaluated(labels, dataset, (who, name), UNLESS if who == 'the train set' else '')
        models = (part for part in runner.model.modules() if isinstance(part, EncoderDecoder))
        head = next(map(last_head, models), None)
        # Without training the checkpoint says by which prior it predicts.
        trains = who == 'the train set'
        predicting = getattr(head, 'predicting_prior', None) if trains else None
        check_named_priors(runner.model, judging, dataset, predicting)
        if head is not None and (warning := check_ignore_index(head, judging, dataset, name)):
            runner.logger.warning(warning)


def _metrics_of(loop: Any) -> list[Any]:
    return getattr(getattr(loop, 'evaluator', None), 'metrics', [])


def _place_label_maps(loop: Any) -> None:
    folders = [getattr(metric, 'label_maps', None) for metric in _metrics_of(loop)]
    for folder in filter(None, folders):
        with suppress(ValueError):  # a wrapper whose images nobody knows
            images = distinct_images(loop.dataloader.dataset)
            folder.keep_apart([file for image in images if (file := image_file(*image))])


def _warn(runner: Runner, texts: Iterable[str]) -> None:
    for text in filter(None, dict.fromkeys(texts)):
        runner.logger.warning(text)


def _check_cascades(runner: Runner) -> None:
    for model in runner.model.modules():
        if isinstance(model, EncoderDecoder):
            check_refinement(heads_of(model))


def _is_ours(part: Any) -> bool:
    return any(base.__module__.split('.')[0] == PACKAGE for base in type(part).__mro__)

"""A trained model, the images of a split, and what metrics say of the one on the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import revert_sync_batchnorm
from mmengine.runner.checkpoint import load_state_dict
from mmseg.registry import MODELS
from torch import nn
from torch.utils.data import DataLoader

from mmseg_ltmi.core.posterior import ClassMemory
from mmseg_ltmi.core.priors import ClassPrior, PriorBuffer, build_class_prior
from mmseg_ltmi.core.priors.dataset_wrappers import metainfo_of
from mmseg_ltmi.core.priors.label_space import check_trained_on
from mmseg_ltmi.core.progress import progress_bar
from mmseg_ltmi.engine.hooks.run_checks import check_ignore_index
from mmseg_ltmi.evaluation.metric_prior import check_classes, check_reading
from mmseg_ltmi.models.checkpoint_file import is_needed_to_predict, read_checkpoint, trained_labels
from mmseg_ltmi.models.segmentors import check_memory, check_memory_weights, last_head
from mmseg_ltmi.models.segmentors.ltmi_segmentors import unknown_prior

from .config_changes import with_operating_point


def load_model(cfg: Config, checkpoint: str | Path) -> nn.Module:
    """The config's model with the checkpoint's weights, on the CPU, ready to predict.

    It gives the natural posterior: a ``tau_test`` of the config and an operating point, of the
    config or the checkpoint, are left out. Its ``trained_labels`` are those of the checkpoint, and
    its ``not_loaded`` names the parameters that the checkpoint lacks.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: a file that is no checkpoint, or one of another model, such as one with another
            number of classes, or one whose scores hold a prior that is not known. Or a model of one
            score for two classes, which has no class posterior.
    """
    options = with_operating_point(cfg.model)
    options['operating_point'] = None
    model: Any = MODELS.build(options)
    if model.out_channels == 1:
        raise ValueError(
            'the model gives a single score (out_channels=1), and there is no class posterior to '
            'read: set num_classes=2 and leave out_channels out, or use mmseg-ltmi test'
        )
    content, state = read_checkpoint(checkpoint)
    check_fits(model, state, checkpoint)
    load_state_dict(model, state)
    if text := unknown_prior(model):
        raise ValueError(f'{checkpoint}: {text}')
    model.reader.reset_point()
    model.reader.tau_test = 0.0
    model.trained_labels = trained_labels(content)
    model.not_loaded = frozenset(
        name
        for name, value in model.named_parameters()
        if name not in state or state[name].shape != value.shape
    )
    return revert_sync_batchnorm(model).eval()


def load_memory(model: nn.Module, memory: ClassMemory | str | Path) -> ClassMemory:
    """A copy of a memory, or that of a file, which fits a model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no memory, or a memory of another model or checkpoint.
    """
    where = 'the memory' if isinstance(memory, ClassMemory) else str(memory)
    found = copy.deepcopy(memory) if isinstance(memory, ClassMemory) else ClassMemory.load(memory)
    check_memory(model, found, where)
    check_memory_weights(model, found, where)
    return found


def check_fits(model: nn.Module, state: Mapping[str, Any], checkpoint: str | Path) -> None:
    """Raise ValueError where a checkpoint's state dict lacks what a model needs to predict."""
    for name, value in model.state_dict().items():
        if name in state and is_needed_to_predict(name) and state[name].shape != value.shape:
            raise ValueError(
                f'{checkpoint} is of another model: its {name} has shape '
                f'{tuple(state[name].shape)}, the config makes it {tuple(value.shape)}. Give the '
                'config that it was trained with (num_classes, channels)'
            )
    learned = {name for name, _ in model.named_parameters()}
    missing = [
        name
        for name in model.state_dict()
        # Another buffer than these follows from the model's arguments.
        if (name in learned or name.endswith(('running_mean', 'running_var')))
        and name not in state
        and is_needed_to_predict(name)
    ]
    if missing:
        raise ValueError(
            f'{checkpoint} is of another model: it lacks {len(missing)} of its tensors, such as '
            f'{missing[0]}. Give the config that it was trained with'
        )


def measure(
    model: nn.Module,
    loader: DataLoader,
    metric: BaseMetric,
    what: str = '',
    progress: bool = False,
    predict: Callable[[Any], Any] | None = None,
) -> None:
    """Show the metric the model's predictions of what the loader gives, and evaluate it.

    Args:
        model: is moved to the device that mmengine finds.
        loader: images with labels.
        metric: its attributes are the result.
        what: is shown beside the progress bar.
        progress: show a progress bar on stderr.
        predict: data samples of a batch; None is the model's ``test_step``.
    """
    on_device: Any = model.to(get_device()).eval()
    predict = predict or on_device.test_step
    dataset: Any = loader.dataset
    check_ignore_index(last_head(model), [metric], dataset, 'the data set')
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = metainfo_of(dataset)
    steps = len(loader) if progress else None
    with progress_bar(steps, what or 'evaluating') as advance, torch.no_grad():
        for batch in loader:
            evaluator.process(predict(batch), batch)
            advance()
    evaluator.evaluate(len(dataset))


def check_trained(
    model: nn.Module, metainfo: Mapping[str, Any], checkpoint: str = 'the checkpoint'
) -> None:
    """Raise ValueError where a model was trained on other classes than a data set has.

    Args:
        model: of :func:`load_model`.
        metainfo: of the data set.
        checkpoint: the model's, for the message.
    """
    trained = getattr(model, 'trained_labels', {})
    check_trained_on(trained, metainfo, (checkpoint, 'the data set'))


def check_num_classes(
    model: nn.Module, metainfo: Mapping[str, Any], name: str = 'the model'
) -> None:
    """Raise ValueError where a model has another number of classes than a data set; it is named."""
    own, others = last_head(model).num_classes, len(metainfo['classes'])
    if own != others:
        raise ValueError(
            f'{name} has {own} classes, the data set has {others}: give the config and the '
            'checkpoint of its classes'
        )


def class_prior_of(
    named: Any, cfg: Config, model: nn.Module, metainfo: Mapping[str, Any]
) -> ClassPrior:
    """The named prior, else that of the model and its checkpoint, else that of an evaluator.

    Args:
        named: as for LogitAdjustedLoss.
        cfg: whose evaluators may name one.
        model: of :func:`load_model`.
        metainfo: of the data set, with C ``classes``.

    Raises:
        ValueError: there is none, or it is not C long, or it or the model is of other classes, or
            it is of labels that were read otherwise.
        FileNotFoundError: no such name or file.
    """
    check_trained(model, metainfo)
    classes = tuple(metainfo['classes'])
    check_num_classes(model, metainfo)
    found, whose = named, 'the class prior'
    if found is None:
        whose = "the model's class prior"
        reader: Any = model.reader
        log_prior = reader.log_prior
        if not log_prior.isnan().any():
            found = ClassPrior.from_log_probs(log_prior)
    for key in ('test_evaluator', 'val_evaluator'):
        evaluator = cfg.get(key) or {}
        for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
            if found is None:
                found, whose = metric.get('class_prior'), f'the class_prior of the {key}'
    if found is None:
        raise ValueError(
            'no class prior is known: name one or a file with --class-prior (mmseg-ltmi count '
            'makes one)'
        )
    prior = build_class_prior(found, where=whose)
    if prior.num_classes != len(classes):
        raise ValueError(
            f'{whose} has {prior.num_classes} classes, the data set has {len(classes)}: give the '
            'data set that the model was trained for, or a prior of its classes'
        )
    check_classes(prior, classes, whose)
    check_reading(prior, metainfo, whose)
    for part in model.modules():  # a stock checkpoint is read by the prior of the config
        if isinstance(part, PriorBuffer) and part.class_prior is not None:
            check_classes(part.class_prior, classes, part.name)
    return ClassPrior(prior.pixel_counts, classes, prior.image_counts, source=prior.source)

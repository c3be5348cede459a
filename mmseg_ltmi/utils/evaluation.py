"""What the tools that look at a trained model share."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict
from mmseg.registry import MODELS
from torch import nn
from torch.utils.data import DataLoader

from mmseg_ltmi.models.checkpoint_file import read_checkpoint
from mmseg_ltmi.models.segmentors import last_head
from mmseg_ltmi.priors import ClassPrior, build_class_prior

from .tools import with_operating_point


def load_model(cfg: Config, checkpoint: Path) -> nn.Module:
    """The config's model with the checkpoint's weights, read as natural posterior.

    Raises:
        ValueError: a file that is no checkpoint, or one of another model, such as one with another
            number of classes.
    """
    init_default_scope('mmseg')
    options = with_operating_point(cfg.model)
    options['operating_point'] = None
    model = MODELS.build(options)
    _, state = read_checkpoint(checkpoint)
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    for name, value in model.state_dict().items():
        if name in state and state[name].shape != value.shape:
            raise ValueError(
                f'{checkpoint} is of another model: its {name} has shape '
                f'{tuple(state[name].shape)}, the config makes it {tuple(value.shape)}. Give the '
                'config that it was trained with (num_classes, channels)'
            )
    missing = [name for name in model.state_dict() if name not in state and _is_needed(name)]
    if missing:
        raise ValueError(
            f'{checkpoint} is of another model: it lacks {len(missing)} of its tensors, such as '
            f'{missing[0]}. Give the config that it was trained with'
        )
    load_state_dict(model, state)
    model.decision.reset()  # the checkpoint may hold an earlier choice
    return model


def _is_needed(name: str) -> bool:
    # A stock checkpoint has none of ours, and testing uses no auxiliary head.
    optional = {'contrast', 'inference_prior', 'decision', 'teacher', 'auxiliary_head'}
    return not optional & set(name.split('.')) and not name.endswith('num_batches_tracked')


def split_dataset(cfg: Config, split: str) -> dict:
    """The config of a split's data set; the train split takes the test split's pipeline.

    Raises:
        ValueError: the config has no such split.
    """
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise ValueError(f'the config has no {split}_dataloader')
    dataset = copy.deepcopy(loader.dataset)
    if split == 'train':
        while 'dataset' in dataset:
            dataset = dataset.dataset
        dataset.pipeline = cfg.test_dataloader.dataset.pipeline
    return dataset


def split_loader(cfg: Config, split: str, num_workers: int = 0) -> DataLoader:
    """The images of a split one by one, in order."""
    return Runner.build_dataloader(
        dict(
            dataset=split_dataset(cfg, split),
            batch_size=1,
            num_workers=num_workers,
            sampler=dict(type='DefaultSampler', shuffle=False),
        )
    )


def measure(
    model: nn.Module, cfg: Config, loader: DataLoader, metric: BaseMetric, name: str
) -> None:
    """Show the metric the model's predictions of what the loader gives; ``name`` is the log's."""
    Runner(
        model=model,
        work_dir=cfg.work_dir,
        test_dataloader=loader,
        test_cfg=dict(),
        test_evaluator=[metric],
        default_scope='mmseg',
        experiment_name=name,
        log_level='WARNING',
    ).test()


def class_prior_of(
    named: str | None, cfg: Config, model: nn.Module, classes: tuple[str, ...]
) -> ClassPrior:
    """The named prior, else that of the head and its checkpoint, else that of an evaluator.

    Raises:
        ValueError: there is none, or it is not C long.
    """
    head = last_head(model)
    found: Any = named
    if found is None and hasattr(head, 'inference_prior'):
        log_prior = head.inference_prior.log_prior
        found = None if log_prior.isnan().any() else log_prior.double().exp()
    for evaluator in (cfg.get('test_evaluator'), cfg.get('val_evaluator')):
        for metric in evaluator if isinstance(evaluator, list) else [evaluator or {}]:
            found = metric.get('class_prior') if found is None else found
    if found is None:
        raise ValueError(
            'no class prior: give --class-prior NAME or FILE (tools/estimate_class_prior.py)'
        )
    prior = build_class_prior(found, len(classes), 'class_prior')
    if prior.classes is None:
        prior = ClassPrior(prior.pixel_counts, classes, prior.image_counts, source=prior.source)
    return prior

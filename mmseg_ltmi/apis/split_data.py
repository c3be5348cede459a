"""The images of a split of a config, each once, with labels that can be judged by."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from mmengine.runner import Runner
from mmseg.datasets import MultiImageMixDataset
from mmseg.registry import DATASETS, TRANSFORMS
from torch.utils.data import DataLoader

from mmseg_ltmi.core.priors.annotation_loader import lost_label, mmseg_label_files
from mmseg_ltmi.core.priors.dataset_parts import dataset_parts
from mmseg_ltmi.core.priors.label_histogram import LABEL_MAPS, LabelMapError
from mmseg_ltmi.datasets import RareClassDataset

from .config_changes import is_a, unwrapped_configs
from .empty_split import naming_empty_split
from .split_overlap import FOLDS

# What repeats or draws the images of its data set; another wrapper may choose among them.
REPEATING = (RepeatDataset, ClassBalancedDataset, MultiImageMixDataset, RareClassDataset)


def split_dataset(cfg: Config, split: str) -> Any:
    """The config of a split's data set, in which each image is there once.

    What repeats or draws images is left out, and the train split takes the pipeline of the test
    split, or of the val split where that of the test split loads no labels.

    Raises:
        ValueError: the config has no such split.
    """
    dataset = _once(_loader_config(cfg, split)['dataset'])
    if split == 'train':
        pipeline = _test_pipeline(cfg)
        for part in unwrapped_configs(dataset):
            part['pipeline'] = copy.deepcopy(pipeline)
    return dataset


def _test_pipeline(cfg: Config) -> Any:
    """That of the test split, or of the val split where only that one loads labels."""
    splits = [split for split in ('test', 'val') if cfg.get(f'{split}_dataloader') is not None]
    found = [
        next(unwrapped_configs(_loader_config(cfg, split)['dataset'])).get('pipeline')
        for split in splits or ['test']
    ]
    return next(filter(_loads_labels, found), found[0])


def _loads_labels(pipeline: Any) -> bool:
    return any(is_a(TRANSFORMS, step.get('type'), LoadAnnotations) for step in pipeline or ())


def _loader_config(cfg: Config, split: str) -> Any:
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise ValueError(f'the config has no {split}_dataloader: choose another split')
    return loader


def _once(dataset: Any) -> Any:
    if dataset.get('datasets') is not None:
        dataset = copy.copy(dataset)
        dataset['datasets'] = [_once(part) for part in dataset['datasets']]
        return dataset
    if any(is_a(DATASETS, dataset.get('type'), kind) for kind in REPEATING):
        return _once(dataset['dataset'])
    return copy.deepcopy(dataset)


def split_loader(cfg: Config, split: str, num_workers: int | None = None) -> DataLoader:
    """The images of a split one by one, in order.

    Args:
        cfg: with ``{split}_dataloader``.
        split: 'train', 'val' or 'test'.
        num_workers: processes that read them; None takes as many as the test split has.

    Raises:
        ValueError: the config has no such split, or it has no labels.
    """
    if num_workers is None:
        num_workers = (cfg.get('test_dataloader') or {}).get('num_workers', 0)
    dataset = split_dataset(cfg, split)
    with naming_empty_split(split, dataset):
        loader = Runner.build_dataloader(
            dict(
                dataset=dataset,
                batch_size=1,
                num_workers=num_workers,
                sampler=dict(type='DefaultSampler', shuffle=False),
            )
        )
    check_labels(loader.dataset, split)
    return loader


def check_labels(dataset: Any, split: str) -> None:
    """Refuse labels that cannot be judged by, before anything is.

    Raises:
        ValueError: the first image has no label map, a colour mask, or one of another size; or a
            file has labels that mmsegmentation's LoadAnnotations makes others.
    """
    if not len(dataset):
        raise ValueError(f'the {split} split has no images: check its folders and suffixes')
    try:
        packed = dataset[0]
    except KeyError as error:
        if error.args != ('seg_map_path',):  # what LoadAnnotations asks for
            raise
        has_labels = False
    else:
        if not isinstance(packed, dict) or 'data_samples' not in packed:
            return  # not as mmsegmentation packs it, so the metric has to know
        samples = packed['data_samples']
        # Test-time augmentation makes several of one image.
        sample = samples[0] if isinstance(samples, (list, tuple)) else samples
        has_labels = 'gt_sem_seg' in sample
    if not has_labels:
        raise ValueError(
            f'the {split} split has no labels to compare with: give its data set '
            'data_prefix.seg_map_path and its pipeline LoadAnnotations, or take another split. '
            'mmseg-ltmi test --out FOLDER predicts images without labels'
        )
    shape = tuple(sample.gt_sem_seg.data.shape[-3:])
    file = sample.metainfo.get('seg_map_path', f'the {split} split')
    if shape[0] != 1:  # PackSegInputs puts a channel before (H, W), and leaves (H, W, 3) as it is
        raise ValueError(f'the label map of {file} has the shape {shape}: {LABEL_MAPS}')
    size = sample.metainfo.get('ori_shape', shape[1:])
    if shape[1:] != tuple(size):  # that of the predictions
        raise ValueError(
            f'the label map of {file} is {_size(shape[1:])} in the {split} split, its image '
            f'{_size(size)}: put LoadAnnotations behind what resizes the images, or give label '
            'maps of the size of the images'
        )
    files: list[Any] = []
    with suppress(ValueError):  # a wrapper whose images nobody knows
        files = mmseg_label_files(dataset_parts(dataset))
    for file in files:
        if reason := lost_label(file):
            raise LabelMapError(f'the label map {file} is not read as it is: {reason}')


def _size(shape: Sequence[int]) -> str:
    return f'{shape[1]}x{shape[0]}'


def check_splits(cfg: Config, select: str, report: str) -> None:
    """Raise ValueError where a config has one of two splits alone."""
    missing, other = select, report
    if cfg.get(f'{select}_dataloader') is not None:
        missing, other = report, select
    if cfg.get(f'{missing}_dataloader') is None and cfg.get(f'{other}_dataloader') is not None:
        raise ValueError(
            f'the config has no {missing}_dataloader: cross-fit on the {other} split, with '
            f'--select {other} --report {other} --folds {FOLDS}, or name another split'
        )

"""A page of the images that hold the rarest classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmseg.registry import DATASETS
from torch import Tensor, nn

from mmseg_ltmi.core.class_names import distinct_names
from mmseg_ltmi.core.pixel_maps import rgb_picture
from mmseg_ltmi.core.priors import ClassPrior
from mmseg_ltmi.core.priors.annotation_loader import count_image, label_loader
from mmseg_ltmi.core.priors.class_prior import balancing_shift
from mmseg_ltmi.core.priors.dataset_parts import distinct_images, image_file
from mmseg_ltmi.core.priors.dataset_wrappers import metainfo_of
from mmseg_ltmi.core.progress import progress_bar
from mmseg_ltmi.models.segmentors import last_head
from mmseg_ltmi.visualization import TailImage, choose_images, draw_tail_page

from .config_changes import read_config
from .empty_split import naming_empty_split
from .split_data import split_dataset
from .trained_model import check_num_classes, check_trained, class_prior_of, load_model


@dataclass(frozen=True)
class TailPage:
    """Images with label and predictions.

    Attributes:
        images: a row each.
        tail: the classes that were looked for.
        classes: C names.
        ignore_index: label that takes no part.
    """

    images: list[TailImage]
    tail: list[int]
    classes: tuple[str, ...]
    ignore_index: int

    def save(self, path: str | Path) -> None:
        """Draw the page; the suffix says as what, such as .png or .pdf."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        draw_tail_page(self.images, self.tail, self.classes, path, self.ignore_index)


def browse(
    config: str | Path | Config,
    checkpoints: Sequence[str | Path],
    other_config: str | Path | Config | None = None,
    split: str = 'test',
    class_prior: Any = None,
    classes: Sequence[str] | None = None,
    num_images: int = 8,
    tau_test: float = 0.0,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> TailPage:
    """Find the images that hold most of the rarest classes, and predict them.

    Args:
        config: a file, or a Config.
        checkpoints: one or two files with weights.
        other_config: config of the second checkpoint; None takes the first one's.
        split: 'train', 'val' or 'test'.
        class_prior: as for LogitAdjustedLoss; None takes each model's own, or that of a metric. The
            first one's says which images to take.
        classes: names of the classes to look for; None takes the tail.
        num_images: at most.
        tau_test: how scores are read, 0 natural and 1 balanced.
        device: None takes the one that mmengine finds.
        options: values of the configs by dotted key.
        progress: show progress bars on stderr.

    Raises:
        OSError: a file that is not there.
        ValueError: a checkpoint of another model, no such split, no images or labels in it, no
            class prior, unknown classes, no image that holds one of them, two configs of other
            images, or ``other_config`` without a second checkpoint.
    """
    if other_config is not None and len(checkpoints) < 2:
        raise ValueError(
            'the other config is that of a second checkpoint, and there is one checkpoint: give '
            'two, or leave --other-config out'
        )
    configs = [read_config(config, options)]
    if other_config is not None:
        configs.append(read_config(other_config, options))
    models: dict[str, Any] = {}
    shown = distinct_names(f'{Path(c).parent.name}/{Path(c).name}' for c in checkpoints)
    for i, (name, checkpoint) in enumerate(zip(shown, checkpoints, strict=True)):
        model = load_model(configs[min(i, len(configs) - 1)], checkpoint)
        models[name] = model.to(device or get_device())
    first = next(iter(models.values()))
    dataset, *others = (_built(config, split) for config in configs)
    metainfo = metainfo_of(dataset)
    priors = []
    for i, (name, model) in enumerate(models.items()):
        check_trained(model, metainfo, name)
        check_num_classes(model, metainfo, name)
        own = configs[min(i, len(configs) - 1)]
        priors.append(class_prior_of(class_prior, own, model, metainfo))
    names = tuple(distinct_names(metainfo['classes']))
    tail = wanted_classes(classes, priors[0], names)
    ignore_index = last_head(first).ignore_index
    images = distinct_images(dataset)
    # Each model sees images as its own config prepares them.
    prepared = [images, *(_same_images(other, images) for other in others)]
    counts = _label_counts(images, len(names), ignore_index, progress)
    chosen = choose_images(counts[:, tail], num_images)
    if not chosen:
        raise ValueError(f'no image of the {split} split holds one of {[names[c] for c in tail]}')
    shifts = [tau_test * balancing_shift(prior.log_probs()) for prior in priors]
    rows = []
    with progress_bar(len(chosen) if progress else None, 'predicting') as advance:
        for place in chosen:
            packed = [part[index] for part, index in (own[place] for own in prepared)]
            rows.append(_predict(packed, models, shifts))
            advance()
    return TailPage(rows, tail, names, ignore_index)


def _built(cfg: Config, split: str) -> Any:
    config = split_dataset(cfg, split)
    with naming_empty_split(split, config) as check_length:
        dataset = DATASETS.build(config)
        check_length(dataset)
    return dataset


def wanted_classes(
    names: Sequence[str] | None, prior: ClassPrior, classes: tuple[str, ...]
) -> list[int]:
    """Places of the named classes, or of the tail, the rarest first."""
    if names is None:
        return list(reversed(prior.groups().tail))
    unknown = set(names) - set(classes)
    if unknown:
        raise ValueError(f'unknown classes {sorted(unknown)}: the data set has {list(classes)}')
    return [classes.index(name) for name in names]


def _same_images(dataset: Any, images: list[tuple[Any, int]]) -> list[tuple[Any, int]]:
    found = distinct_images(dataset)
    if [image_file(*image) for image in found] != [image_file(*image) for image in images]:
        raise ValueError(
            'the second config has other images in this split than the first: give both the same '
            'data set'
        )
    return found


def _label_counts(
    images: list[tuple[Any, int]], num_classes: int, ignore_index: int, progress: bool
) -> np.ndarray:
    """Pixels of each class in each label map, int64 (images, C). No image is read."""
    counts = []
    loaders = {id(leaf): label_loader(leaf) for leaf, _ in images}
    with progress_bar(len(images) if progress else None, 'counting label maps') as advance:
        for leaf, index in images:
            info = leaf.get_data_info(index)
            count = count_image(info, loaders[id(leaf)], num_classes, ignore_index)
            if count.error:
                raise ValueError(f'{count.path}: {count.error}')
            counts.append(count.pixels)
            advance()
    return np.stack(counts)


@torch.no_grad()
def _predict(
    prepared: list[dict], models: dict[str, nn.Module], shifts: Sequence[Tensor]
) -> TailImage:
    """Image, label and predictions at the size of the label.

    Args:
        prepared: the image as each config prepares it, or once for all models.
        shifts: (C,) of each model, added to its natural log-posterior.
    """
    packed = prepared[0]
    sample = packed['data_samples']
    label = sample.gt_sem_seg.data[0].numpy()
    maps = {'label': label}
    for i, ((name, model), shift) in enumerate(zip(models.items(), shifts, strict=True)):
        own = prepared[min(i, len(prepared) - 1)]
        batch = dict(inputs=[own['inputs']], data_samples=[own['data_samples']])
        result = model.test_step(batch)[0]  # type: ignore[operator]
        scores = result.seg_logits.data.cpu() + shift[:, None, None]
        maps[name] = scores.argmax(0).numpy()
    rgb = rgb_picture(packed['inputs'], label.shape)
    return TailImage(Path(sample.img_path).name, rgb, maps)

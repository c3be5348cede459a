"""Makes the memory of a trained model: embedded pixels of its train set."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import get_dist_info
from mmseg.registry import DATASETS
from prettytable import PrettyTable
from torch import nn

from mmseg_ltmi.core.class_names import shortened
from mmseg_ltmi.core.contrast import PixelContrast
from mmseg_ltmi.core.posterior import (
    ClassMemory,
    KeyOrigins,
    KeyReservoir,
    embed_pixels,
    fit_temperature,
)
from mmseg_ltmi.core.priors import describe
from mmseg_ltmi.core.priors.dataset_wrappers import metainfo_of
from mmseg_ltmi.core.priors.fingerprint import pipeline_digest
from mmseg_ltmi.core.progress import progress_bar
from mmseg_ltmi.models.segmentors import last_head, network_fingerprint

from .config_changes import is_a, read_config, unwrapped_configs
from .feature_pixels import pixels_of
from .memory_centers import with_centers
from .part_file import PartFile, remove_part
from .split_data import split_dataset, split_loader
from .trained_model import check_trained, load_model

IMAGES_PER_PART = 200
"""After so many images it is kept what was drawn so far."""


def make_memory(
    config: str | Path | Config,
    checkpoint: str | Path,
    split: str = 'train',
    per_class: int = 256,
    per_image: int = 8,
    centers: int | None = 16,
    features: str = 'auto',
    temperature: float | None = None,
    seed: int = 0,
    part: str | Path | None = None,
    progress: bool = False,
    options: Mapping[str, Any] | None = None,
    keep_part: bool = False,
) -> ClassMemory:
    """Store embedded pixels of each class in one pass over a data set.

    The pixels are of the images as the test pipeline gives them, at the size of the feature map.
    In a process group each rank reads its share of the images.

    Args:
        config: a file, or a Config.
        checkpoint: file with the weights.
        split: 'train', 'val' or 'test'.
        per_class: pixels that are drawn of each class.
        per_image: of these, pixels of one image at most.
        centers: keys of each class that k-means makes of its pixels; None keeps the pixels.
        features: 'embedded' by the projector of the contrastive term, 'raw', or 'auto', which is
            'embedded' where the head has that term.
        temperature: T; None takes what the contrastive term has learned, and for raw features what
            :func:`fit_temperature` finds.
        seed: of the draw and of k-means.
        part: file of what is drawn so far: a run that was stopped goes on from it. It is removed
            at the end.
        progress: show a progress bar on stderr.
        options: values of the config by dotted key.
        keep_part: leave that file, for :func:`remove_part` once the memory is saved.

    Returns:
        the memory, the same on all ranks. Its ``report`` says what it was made of.

    Raises:
        OSError: a file that is not there.
        ValueError: an argument out of range, a checkpoint of another model, a model without pixel
            features, no such split, no labels in it, features that are not finite.
        TypeError: a projector of another type than ProjectionHead.

    Examples:
        >>> make_memory('config.py', 'iter_20000.pth').save('class_memory.pth')
    """
    _check_arguments(centers, temperature)
    cfg = read_config(config, options)
    model: Any = load_model(cfg, checkpoint)
    projector, learned = _embedding(model, features)
    embed = partial(embed_pixels, projector=projector)
    dataset: Any = split_loader(cfg, split, num_workers=0).dataset
    metainfo = metainfo_of(dataset)
    check_trained(model, metainfo)
    fingerprint = network_fingerprint(model)
    report = dict(
        checkpoint=Path(checkpoint).name,
        split=split,
        num_images=len(dataset),
        per_class=per_class,
        per_image=per_image,
        seed=seed,
        features='raw' if projector is None else 'embedded',
    )
    reservoir = KeyReservoir(last_head(model).num_classes, per_class, per_image, seed)
    whose = {**report, 'fingerprint': fingerprint, 'ranks': get_dist_info()[1]}
    if part is not None:  # looks at every label file
        whose['images'] = describe(dataset)
        whose['prepared'] = f'pipeline [{pipeline_digest(dataset)}], {dict(model.test_cfg)}'
    saved = PartFile(part, whose, reservoir)
    num_workers = (cfg.get('test_dataloader') or {}).get('num_workers', 0)
    images = _own_share(len(dataset), saved.load())
    with progress_bar(len(images) if progress else None, f'reading the {split} split') as advance:
        for done, pixels in enumerate(pixels_of(model, dataset, images, num_workers), start=1):
            reservoir.add_image(**pixels, embed=embed)
            if done % IMAGES_PER_PART == 0:
                saved.save(pixels['image'] + 1)
            advance()
    with suppress(OSError):  # only what comes after the pass needs it, if that fails
        saved.save(len(dataset))
    reservoir.gather()
    drawn = reservoir.drawn
    if drawn is None or not len(drawn.labels):
        if part is not None:
            remove_part(part)  # there is nothing to go on from
        raise ValueError(
            f'no pixel of the {split} split was stored: it has no labels of a class, or the '
            'network gives features that are not finite'
        )
    if temperature is None:
        found = (drawn.samples, drawn.labels, drawn.image, reservoir.num_classes)
        temperature = learned or fit_temperature(*found)
    numbers, image = drawn.image.unique(return_inverse=True)
    memory = ClassMemory(
        drawn.samples,
        drawn.labels,
        reservoir.num_classes,
        temperature,
        projector,
        classes=[str(name) for name in metainfo['classes']],
        fingerprint=fingerprint,
        origins=KeyOrigins(
            tuple(reservoir.paths[i] for i in numbers.tolist()), image, drawn.position
        ),
        report=report,
    )
    if centers is not None:
        memory = with_centers(memory, centers, seed)
    if part is not None and not keep_part:
        remove_part(part)
    return memory


def memory_table(memory: ClassMemory) -> str:
    """How many keys there are of each class, and of how many images, as a table."""
    table = PrettyTable(['class', 'keys', 'images'], align='r')
    table.align['class'] = 'l'
    made_of = memory.report
    table.title = f'{made_of["features"]} features, T {float(memory.temperature):.3g}'
    labels = memory.key_labels
    for index, name in enumerate(memory.classes):
        images = memory.origins.image[labels == index].unique() if memory.origins else []
        table.add_row([shortened(name), int((labels == index).sum()), len(images)])
    return table.get_string()


def memory_of_queue(
    config: str | Path | Config,
    checkpoint: str | Path,
    centers: int | None = 16,
    temperature: float | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> ClassMemory:
    """The keys that training has left in the queue of the contrastive term, as a memory.

    It reads no image, also where there is none. The keys are embeddings of the last steps, of as
    many images as the queue holds (``queue=dict(max_new=...)`` makes them more).

    Args:
        config: a file, or a Config.
        checkpoint: of training, with its queue.
        centers: keys of each class that k-means makes of the queue's; None keeps them all.
        temperature: T; None takes what the contrastive term has learned.
        seed: of k-means.
        options: values of the config by dotted key.

    Raises:
        OSError: a file that is not there.
        ValueError: the model has no contrastive term, or its queue is empty.
        TypeError: a projector of another type than ProjectionHead.
    """
    _check_arguments(centers, temperature)
    cfg = read_config(config, options)
    model: Any = load_model(cfg, checkpoint)
    head = last_head(model)
    projector, _ = _embedding(model, 'embedded')
    contrast = head.contrast
    keys, labels, _ = contrast.queue.read()
    if not (labels >= 0).any():
        raise ValueError(
            f'the queue in {checkpoint} is empty: give a checkpoint of training, or let '
            'mmseg-ltmi memory read the train set'
        )
    keys = keys[labels >= 0]
    if contrast.takes_teacher:  # it stores the teacher's features
        with torch.no_grad():
            keys = contrast.key_projector(keys)
    memory = ClassMemory(
        keys,
        labels[labels >= 0],
        head.num_classes,
        float(contrast.loss.temperature) if temperature is None else temperature,
        projector,
        classes=_trained_classes(model, cfg),
        fingerprint=network_fingerprint(model),
        report=dict(checkpoint=Path(checkpoint).name, split='queue', features='embedded'),
    )
    return memory if centers is None else with_centers(memory, centers, seed)


def _check_arguments(centers: int | None, temperature: float | None) -> None:
    if centers is not None and centers < 1:
        raise ValueError(f'centers={centers}: give 1 or more, or None for every pixel')
    if temperature is not None and not temperature > 0:
        raise ValueError(f'temperature={temperature}: give more than 0, or None for the default')


def _trained_classes(model: Any, cfg: Config) -> list[str]:
    """Names of the checkpoint's classes, else those of the train split; no image is looked for."""
    names = model.trained_labels.get('classes')
    if not names:
        dataset = next(unwrapped_configs(split_dataset(cfg, 'train')))
        if is_a(DATASETS, dataset.get('type'), BaseDataset):
            dataset['lazy_init'] = True
        names = metainfo_of(DATASETS.build(dataset))['classes']
    return [str(name) for name in names]


def _embedding(model: Any, features: str) -> tuple[nn.Module | None, float | None]:
    """The projector of the head's contrastive term and its temperature; None for raw features."""
    head = last_head(model)
    contrast = getattr(head, 'contrast', None)
    if features not in ('auto', 'embedded', 'raw'):
        raise ValueError(f"features={features!r}: take 'auto', 'embedded' or 'raw'")
    if getattr(head, 'conv_seg', None) is None:
        raise ValueError(
            f'{type(head).__name__} has no conv_seg over a feature map, so it has no pixel '
            'features to store'
        )
    if features == 'raw' or (features == 'auto' and contrast is None):
        return None, None
    if not isinstance(contrast, PixelContrast):
        raise ValueError(
            f"{type(head).__name__} has no contrastive term, whose projector features='embedded' "
            "takes: store raw features (features='raw'), or give the config that the checkpoint "
            'was trained with'
        )
    not_loaded = {id(p) for name, p in model.named_parameters() if name in model.not_loaded}
    if not_loaded.intersection(map(id, contrast.projector.parameters())):
        # The config has what the checkpoint was trained without.
        if features == 'auto':
            return None, None
        raise ValueError(
            'the checkpoint has no contrastive term, or one of another shape, whose projector '
            "features='embedded' takes: store raw features (features='raw'), or give the config "
            'that the checkpoint was trained with'
        )
    return contrast.projector, float(contrast.loss.temperature)


def _own_share(number: int, start: int) -> list[int]:
    """This rank's share of so many images, without those before ``start``."""
    rank, world_size = get_dist_info()
    return [n for n in range(rank, number, world_size) if n >= start]

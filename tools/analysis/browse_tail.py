"""A page of the images that hold the rarest classes: input, label, predictions.

One config with one or two checkpoints; for a second model of another config give --other-config.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmseg.registry import DATASETS
from torch import nn

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.models.segmentors import last_head
from mmseg_ltmi.priors.fingerprint import label_loader
from mmseg_ltmi.priors.histogram import count_image
from mmseg_ltmi.utils.evaluation import class_prior_of, load_model, split_dataset
from mmseg_ltmi.visualization import TailImage, draw_tail_page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoints', type=Path, nargs='+', metavar='checkpoint')
    parser.add_argument('--other-config', type=Path, help='config of the second checkpoint')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='test')
    parser.add_argument('--class-prior', help='name or file; default: what head or metric names')
    parser.add_argument('--classes', nargs='+', help='classes to look for; default: the tail')
    parser.add_argument('--num-images', type=int, default=8)
    parser.add_argument('--tau-test', type=float, default=0.0, help='how the scores are read')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/tail.png'))
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    if len(args.checkpoints) > 2:
        parser.error('one or two checkpoints fit a page')
    try:
        browse(args)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


def browse(args: argparse.Namespace) -> None:
    files = [args.config, args.other_config or args.config]
    models, cfg = {}, None
    for file, checkpoint in zip(files, args.checkpoints, strict=False):
        config = Config.fromfile(file)
        config.merge_from_dict(args.cfg_options)
        cfg = cfg or config
        name = f'{checkpoint.parent.name}/{checkpoint.name}'
        models[name] = load_model(config, checkpoint).to(args.device).eval()
    assert cfg is not None
    first = next(iter(models.values()))
    dataset = DATASETS.build(split_dataset(cfg, args.split))
    classes = dataset.metainfo['classes']
    prior = class_prior_of(args.class_prior, cfg, first, classes)
    tail = wanted_classes(args.classes, prior, classes)
    ignore_index = last_head(first).ignore_index
    counts = [count[tail] for count in label_counts(dataset, ignore_index)]
    chosen = choose_images(np.stack(counts), args.num_images)
    if not chosen:
        raise ValueError(
            f'no image of the {args.split} split holds one of {[classes[c] for c in tail]}'
        )
    rows = [look(dataset[i], models, prior, args.tau_test) for i in chosen]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw_tail_page(rows, tail, classes, args.out, ignore_index)
    print(f'{len(rows)} images in {args.out}')


def wanted_classes(
    names: list[str] | None, prior: ClassPrior, classes: tuple[str, ...]
) -> list[int]:
    """Rarest first."""
    if names is None:
        return list(reversed(prior.groups().tail))
    unknown = set(names) - set(classes)
    if unknown:
        raise ValueError(f'unknown classes {sorted(unknown)}: the data set has {list(classes)}')
    return [classes.index(name) for name in names]


def label_counts(dataset: Any, ignore_index: int) -> Iterator[np.ndarray]:
    """Pixels of each class in each label map, int64 (C,); no image is read."""
    load = label_loader(dataset)
    for i in range(len(dataset)):
        info, num_classes = dataset.get_data_info(i), len(dataset.metainfo['classes'])
        count = count_image(info, load, num_classes, ignore_index)
        if count.error:
            raise ValueError(f'{count.path}: {count.error}')
        yield count.pixels


def choose_images(counts: np.ndarray, number: int) -> list[int]:
    """In turn for each class, the image that holds most of it and is not chosen yet.

    Args:
        counts: int64 (images, classes that are looked for); used up.
        number: of images, at most.
    """
    chosen: list[int] = []
    while len(chosen) < number and counts.any():
        for column in range(counts.shape[1]):
            best = int(counts[:, column].argmax())
            if counts[best, column] and len(chosen) < number:
                chosen.append(best)
                counts[best] = 0
    return chosen


@torch.no_grad()
def look(
    packed: dict, models: dict[str, nn.Module], prior: ClassPrior, tau_test: float
) -> TailImage:
    """Image, label and predictions at the size of the label."""
    sample = packed['data_samples']
    label = sample.gt_sem_seg.data[0].numpy()
    image = packed['inputs'].float()[None]
    image = nn.functional.interpolate(image, label.shape, mode='bilinear')[0]
    maps = {'label': label}
    log_prior = prior.log_probs()[:, None, None]
    for name, model in models.items():
        result = model.test_step(dict(inputs=[packed['inputs']], data_samples=[sample]))[0]
        maps[name] = (result.seg_logits.data.cpu() - tau_test * log_prior).argmax(0).numpy()
    # mmsegmentation loads images as BGR.
    rgb = image.flip(0).movedim(0, -1).clamp(0, 255).byte().numpy()
    return TailImage(Path(sample.img_path).name, rgb, maps)


if __name__ == '__main__':
    main()

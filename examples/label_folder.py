"""Folders of images and label maps, and the score on them: what both examples share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmseg_ltmi.core import ClassPrior
from mmseg_ltmi.core.posterior import class_scores, decision_areas, labels_or_spare
from mmseg_ltmi.core.shapes import NAMES, draw_split

IGNORE = 255
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
"""ImageNet's, RGB, with which most pretrained weights were trained."""


class LabelFolder(Dataset):
    """Images, and label maps of the same names.

    Args:
        images: folder of the images, .jpg or .png.
        labels: folder of the label maps, .png: class indices, or 255 for a pixel that has none.
        size: height and width to which images and labels are brought; None leaves them.
        flip: whether half of the images are flipped from left to right, drawn anew each time.

    Raises:
        FileNotFoundError: no image, or an image without label map.

    Shape:
        image float32 (3, H, W), RGB, normalized; labels int64 (H, W).
    """

    def __init__(
        self, images: Path, labels: Path, size: tuple[int, int] | None = None, flip: bool = False
    ) -> None:
        self.images = sorted(p for p in images.glob('*') if p.suffix in ('.jpg', '.png'))
        self.labels = [labels / f'{image.stem}.png' for image in self.images]
        if not self.images:
            raise FileNotFoundError(f'no image in {images}')
        for file in self.labels:
            if not file.is_file():
                raise FileNotFoundError(f'no label map {file}')
        self.size = size
        self.flip = flip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = read(self.images[index], cv2.IMREAD_COLOR)[..., ::-1]
        label = read(self.labels[index], cv2.IMREAD_UNCHANGED)
        if self.size is not None and label.shape != self.size:
            image = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_LINEAR)
            label = cv2.resize(label, self.size[::-1], interpolation=cv2.INTER_NEAREST)
        if self.flip and torch.rand(()) < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        image = ((image - MEAN) / STD).transpose(2, 0, 1)
        return torch.from_numpy(image.copy()), torch.from_numpy(label.astype(np.int64))


def read(file: Path, how: int) -> np.ndarray:
    """An image file as OpenCV reads it; ValueError where it cannot."""
    image = cv2.imread(str(file), how)
    if image is None:
        raise ValueError(f'{file} cannot be read as an image')
    return image


class Data(NamedTuple):
    """What a training needs.

    Attributes:
        train: the train split.
        test: the test split.
        prior: the class prior of the train split.
    """

    train: LabelFolder
    test: LabelFolder
    prior: ClassPrior


def options(description: str, steps: int, out: str) -> argparse.ArgumentParser:
    """The command line of an example, with its defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--data',
        type=Path,
        help='folder with img_dir/{train,test}/*.jpg and ann_dir/{train,test}/*.png; without it, '
        'LongTailShapes (13 classes) is drawn into data/longtail_shapes',
    )
    parser.add_argument('--num-classes', type=int, default=11, help='of --data (11, as CamVid)')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='of the images; without it, those of --data stay as they are and must have one size',
    )
    parser.add_argument('--steps', type=int, default=steps, help=f'of training ({steps})')
    parser.add_argument('--batch-size', type=int, default=8, help='images in a step (8)')
    parser.add_argument('--seed', type=int, default=0, help='of weights and batches (0)')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--device', default=device, help=f'of the training ({device})')
    parser.add_argument('--out', type=Path, default=Path(out), help=f'the trained model ({out})')
    return parser


def load_data(args: argparse.Namespace) -> Data:
    """The data that the command line names, with the prior of its train split counted."""
    size = None if args.size is None else tuple(args.size)
    folders, num_classes, names = {}, args.num_classes, None
    for split in ('train', 'test'):
        if args.data is not None:
            folders[split] = args.data / 'img_dir' / split, args.data / 'ann_dir' / split
        else:
            drawn = draw_split('data/longtail_shapes', split, size=size or (128, 128))
            folders[split] = drawn / 'img', drawn / 'ann'
            num_classes, names = len(NAMES), NAMES
    train = LabelFolder(*folders['train'], size, flip=True)
    prior = ClassPrior.from_label_files(train.labels, num_classes, names, IGNORE)
    return Data(train, LabelFolder(*folders['test'], size), prior)


def batches(data: LabelFolder, batch_size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled images (B, 3, H, W) and labels (B, H, W), as many batches as there are steps."""
    loader = DataLoader(data, min(batch_size, len(data)), shuffle=True, drop_last=True)
    step = 0
    while step < steps:
        for batch in loader:
            if step == steps:
                return
            yield batch
            step += 1


@torch.no_grad()
def decide(model: nn.Sequential, images: Tensor) -> Tensor:
    """Classes (B, H, W) of images (B, 3, H, W); the model is ``nn.Sequential(network, reader)``."""
    reader: Any = model[1]
    return reader.decide(model(images))


def class_iou(model: nn.Sequential, data: LabelFolder, num_classes: int, device: str) -> Tensor:
    """IoU of each class in percent, (C,); NaN for a class that has no label."""
    areas = torch.zeros(4, num_classes, dtype=torch.float64)
    for image, label in DataLoader(data):
        decision = decide(model, image.to(device)).cpu().flatten()
        label = labels_or_spare(label.flatten(), num_classes, IGNORE)
        areas += decision_areas(decision, label, num_classes)
    return class_scores(areas)[0]


def print_scores(model: nn.Sequential, data: Data, device: str) -> None:
    """Print the mean IoU of all classes and of each group, by both readings, on the test split."""
    reader: Any = model.eval()[1]
    for name, tau in (('natural', 0.0), ('balanced', 1.0)):
        reader.tau_test = tau
        iou = class_iou(model, data.test, data.prior.num_classes, device)
        means = [f'mIoU {iou.nanmean():5.2f}']
        for group, classes in data.prior.groups()._asdict().items():
            means.append(f'{group} {iou[list(classes)].nanmean():5.2f}')
        print(f'{name:8}', *means, sep='  ')
    reader.tau_test = 0.0

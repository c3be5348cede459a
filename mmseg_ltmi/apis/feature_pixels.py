"""The pixels of images with their features, labels and places, as a memory stores them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from mmseg_ltmi.core.pixel_maps import resize_labels
from mmseg_ltmi.core.recorder import FeatureRecorder
from mmseg_ltmi.models.segmentors import last_head


def pixels_of(
    model: Any, dataset: Any, images: Sequence[int], num_workers: int = 0
) -> Iterator[dict[str, Any]]:
    """The pixels of images, as KeyReservoir takes them.

    Args:
        model: of :func:`load_model`; it is moved to the device that mmengine finds.
        dataset: with the pipeline of the test split.
        images: places of the images in it.
        num_workers: processes that read them.
    """
    loader = DataLoader(
        Subset(dataset, images),
        batch_size=1,
        num_workers=num_workers,
        collate_fn=pseudo_collate,
    )
    device = get_device()
    model.to(device)
    head = last_head(model)
    with FeatureRecorder(model, head.conv_seg) as recorder, torch.no_grad():
        for number, batch in zip(images, loader, strict=True):
            data = model.data_preprocessor(batch, False)
            inputs, sample = data['inputs'], data['data_samples'][0]
            labels = _labels_of(sample, inputs.shape[2:], head)
            parts = []
            for top, left, height, width in _windows(model.test_cfg, *inputs.shape[2:]):
                window = (..., slice(top, top + height), slice(left, left + width))
                model(inputs[window], mode='tensor')
                features = recorder.features
                size = features.shape[2:]
                small = resize_labels(labels[window], size)
                place = _centers((top, left), (height, width), size, sample.img_shape[:2])
                parts.append((features[0].flatten(1).T, small.flatten(), place))
            recorder.clear()
            names = ('features', 'labels', 'position')
            pixels = map(torch.cat, zip(*parts, strict=True))
            path = sample.metainfo.get('img_path', '')
            yield dict(zip(names, pixels, strict=True), image=number, path=path)


def _labels_of(sample: Any, size: tuple[int, int], head: Any) -> Tensor:
    """(1, H, W) at the size of the network's input, -1 for what is ignored and for padding."""
    labels = sample.gt_sem_seg.data.long()
    labels = labels.masked_fill(labels == head.ignore_index, -1)
    labels = resize_labels(labels, sample.img_shape[:2])
    height, width = labels.shape[1:]
    return F.pad(labels, (0, size[1] - width, 0, size[0] - height), value=-1)


def _windows(test_cfg: Any, height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Top, left, height and width of what the network sees at once in testing."""
    if test_cfg.get('mode', 'whole') == 'whole':
        yield 0, 0, height, width
        return
    crop, stride = test_cfg['crop_size'], test_cfg['stride']
    corners = []
    for length, side, step in zip((height, width), crop, stride, strict=True):
        last = max(length - side, 0)
        corners.append(sorted({*range(0, last, step), last}))
    for top, left in itertools.product(*corners):
        yield top, left, min(crop[0], height), min(crop[1], width)


def _centers(
    corner: tuple[int, int], size: tuple[int, int], grid: Any, image: tuple[int, int]
) -> Tensor:
    """Where the cells of a window's grid lie in the image, float32 (cells, 2), in 0..1."""
    rows, columns = (
        (start + (torch.arange(cells) + 0.5) / cells * side) / total
        for start, side, cells, total in zip(corner, size, grid, image, strict=True)
    )
    return torch.cartesian_prod(rows, columns)

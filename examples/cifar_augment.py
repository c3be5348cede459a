"""The augmentation of CIFAR-100-LT: crop, flip, AutoAugment and Cutout of a whole batch at once.

Source: Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019
(arXiv 1805.09501), the policy for CIFAR-10. An operation takes images, uint8 (N, 3, H, W), and a
level for each, float32 (N,), and does what Pillow's operation of that name does. Everything is
drawn on the CPU, so that a seed gives the same images on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Two operations each, with their probability and their magnitude from 0 to 9.
POLICY = """
invert 0.1 7  contrast 0.2 6
rotate 0.7 2  translate_x 0.3 9
sharpness 0.8 1  sharpness 0.9 3
shear_y 0.5 8  translate_y 0.7 9
autocontrast 0.5 8  equalize 0.9 2
shear_y 0.2 7  posterize 0.3 7
color 0.4 3  brightness 0.6 7
sharpness 0.3 9  brightness 0.7 9
equalize 0.6 5  equalize 0.5 1
contrast 0.6 7  sharpness 0.6 5
color 0.7 7  translate_x 0.5 8
equalize 0.3 7  autocontrast 0.4 8
translate_y 0.4 3  sharpness 0.2 6
brightness 0.9 6  color 0.2 8
solarize 0.5 2  invert 0.0 3
equalize 0.2 0  autocontrast 0.6 0
equalize 0.2 8  equalize 0.6 4
color 0.9 9  equalize 0.6 6
autocontrast 0.8 4  solarize 0.2 8
brightness 0.1 3  color 0.7 0
solarize 0.4 5  autocontrast 0.9 3
translate_y 0.9 9  translate_y 0.7 9
autocontrast 0.9 2  solarize 0.8 3
equalize 0.8 8  invert 0.1 3
translate_y 0.7 9  autocontrast 0.9 1
"""


def augment(images: Tensor, block: int = 1024) -> Tensor:
    """One random view of each image: uint8 (N, 3, H, W) to the same, ``block`` images at a time."""
    blocks = images.split(block)
    return torch.cat([cutout(auto_augment(crop_and_flip(part))) for part in blocks])


def crop_and_flip(images: Tensor, pad: int = 4) -> Tensor:
    """Shift by up to ``pad`` pixels, black beyond the border; mirror every other image."""
    count, _, height, width = images.shape
    top, left = torch.randint(2 * pad + 1, (2, count, 1))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    image, rows, columns = (
        index.to(images.device)
        for index in (torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None])
    )
    # Indices on both sides of the channels bring these to the end.
    return F.pad(images, [pad] * 4)[image, :, rows, columns].permute(0, 3, 1, 2).contiguous()


def cutout(images: Tensor, size: int = 16) -> Tensor:
    """Make a square black whose centre is any pixel; a part of it may lie outside."""
    count, _, height, width = images.shape
    near = []
    for length in (height, width):
        offset = torch.arange(length) - torch.randint(length, (count, 1))
        near.append(((offset >= -size // 2) & (offset < size // 2)).to(images.device))
    return images.masked_fill((near[0][:, :, None] & near[1][:, None])[:, None], 0)


def auto_augment(images: Tensor) -> Tensor:
    """Apply one of the policy's pairs to each image, either operation by its chance."""
    images = images.clone()
    pairs = [line.split() for line in POLICY.strip().splitlines()]
    drawn = torch.randint(len(pairs), (len(images),))
    for first in (0, 3):
        names, chances, levels = zip(*(pair[first : first + 3] for pair in pairs), strict=True)
        level = torch.tensor([int(level) / 9 for level in levels])[drawn]
        level *= torch.randint(2, drawn.shape) * 2 - 1
        happens = torch.rand(drawn.shape) < torch.tensor([float(c) for c in chances])[drawn]
        for name in sorted(set(names)):
            chosen = happens & torch.tensor([n == name for n in names])[drawn]
            if chosen.any():
                rows = chosen.nonzero()[:, 0].to(images.device)
                images[rows] = OPERATIONS[name](images[rows], level[chosen].to(images.device))
    return images


def invert(images: Tensor, level: Tensor) -> Tensor:
    return 255 - images


def solarize(images: Tensor, level: Tensor) -> Tensor:
    """Invert what reaches a threshold: 256 at level 0, 0 at level 1."""
    return torch.where(images < _each(256 - 256 * level.abs()), images, 255 - images)


def posterize(images: Tensor, level: Tensor) -> Tensor:
    """Keep the highest bits: 8 at level 0, 4 at level 1."""
    return images & _each(256 - 2 ** (4 * level.abs()).round()).to(torch.uint8)


def auto_contrast(images: Tensor, level: Tensor) -> Tensor:
    """Stretch each channel to 0..255."""
    values = images.int()
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    stretched = 255 * (values - low) // (high - low).clamp(min=1)
    return torch.where(high > low, stretched, values).to(torch.uint8)


def equalize(images: Tensor, level: Tensor) -> Tensor:
    """Spread each channel's values so that all are about equally frequent."""
    values = images.flatten(2).long()
    counts = values.new_zeros(*values.shape[:2], 256).scatter_add_(2, values, values * 0 + 1)
    brightest = counts.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, table.gather(2, values), values).view_as(images).to(torch.uint8)


def color(images: Tensor, level: Tensor) -> Tensor:
    return _away_from(_grey(images), images, level)


def contrast(images: Tensor, level: Tensor) -> Tensor:
    return _away_from((_grey(images).mean((2, 3), keepdim=True) + 0.5).floor(), images, level)


def brightness(images: Tensor, level: Tensor) -> Tensor:
    return _away_from(torch.zeros_like(images), images, level)


def sharpness(images: Tensor, level: Tensor) -> Tensor:
    """Away from the image smoothed; its border is not."""
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    smooth = images.float()
    smooth[..., 1:-1, 1:-1] = (F.conv2d(images.float(), kernel, groups=3) / 13 + 0.5).floor()
    return _away_from(smooth, images, level)


def rotate(images: Tensor, level: Tensor) -> Tensor:
    """By up to 30 degrees, about the middle."""
    angle, zero = level * math.radians(30), torch.zeros_like(level)
    rows = [angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero]
    return _warp(images, *rows, 'nearest')


def translate_x(images: Tensor, level: Tensor) -> Tensor:
    """By up to 150/331 of the width."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _warp(images, [one, zero, 2 * 150 / 331 * level], [zero, one, zero], 'nearest')


def translate_y(images: Tensor, level: Tensor) -> Tensor:
    """By up to 150/331 of the height."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _warp(images, [one, zero, zero], [zero, one, 2 * 150 / 331 * level], 'nearest')


def shear_y(images: Tensor, level: Tensor) -> Tensor:
    """Move each column by up to 0.3 of its distance from the left border."""
    one, zero, slope = torch.ones_like(level), torch.zeros_like(level), 0.3 * level
    return _warp(images, [one, zero, zero], [slope, one, slope], 'bicubic')


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'autocontrast': auto_contrast,
    'brightness': brightness,
    'color': color,
    'contrast': contrast,
    'equalize': equalize,
    'invert': invert,
    'posterize': posterize,
    'rotate': rotate,
    'sharpness': sharpness,
    'shear_y': shear_y,
    'solarize': solarize,
    'translate_x': translate_x,
    'translate_y': translate_y,
}


def _each(numbers: Tensor) -> Tensor:
    return numbers[:, None, None, None]


def _grey(images: Tensor) -> Tensor:
    """Luma, whole numbers of float32 (N, 1, H, W)."""
    weight = torch.tensor([19595, 38470, 7471], device=images.device, dtype=torch.int32)
    return ((images.int() * weight[:, None, None]).sum(1, keepdim=True) + 2**15 >> 16).float()


def _away_from(other: Tensor, images: Tensor, level: Tensor) -> Tensor:
    """On the line from another image to this: 1 + 0.9 level of the way."""
    way = _each(1 + 0.9 * level)
    return (other + way * (images.float() - other)).clamp(0, 255).to(torch.uint8)


def _warp(images: Tensor, x: list[Tensor], y: list[Tensor], how: str) -> Tensor:
    """Where each pixel comes from, affine in (x, y, 1) from -1 to 1; grey comes from outside."""
    matrix = torch.stack([torch.stack(x, 1), torch.stack(y, 1)], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float() - 128, grid, how, 'zeros', align_corners=False)
    return (moved + 128).round().clamp(0, 255).to(torch.uint8)

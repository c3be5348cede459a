"""LongTailShapes, a synthetic long-tailed data set: textured shapes over a noisy background."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

# OpenCV is imported where it draws: the rest of the core does without it.

VERSION = 1
"""Raise it with every change of what is drawn, so that no old file is taken for a new one."""

SPLITS = {'train': 800, 'val': 200, 'test': 200}
"""Images of each split by default."""


class ShapeClass(NamedTuple):
    """How a class looks and how often it is drawn.

    Attributes:
        name: class name.
        shape: 'disc', 'square', 'triangle' or 'ring'.
        texture: 'plain', 'stripes', 'checks' or 'dots'.
        colour: BGR, 0..255.
        rate: mean number of shapes in an image.
        radius: mean radius as a share of the image's shorter side.
    """

    name: str
    shape: str
    texture: str
    colour: tuple[int, int, int]
    rate: float
    radius: float


# Each pair shares shape and colour family and differs in texture or hue: one is frequent, one rare.
CLASSES = (
    ShapeClass('disc', 'disc', 'plain', (60, 60, 190), 1.2, 0.17),
    ShapeClass('square', 'square', 'plain', (60, 170, 60), 0.9, 0.15),
    ShapeClass('triangle', 'triangle', 'plain', (190, 90, 50), 0.7, 0.17),
    ShapeClass('ring', 'ring', 'plain', (40, 170, 190), 0.6, 0.15),
    ShapeClass('striped_square', 'square', 'stripes', (60, 170, 60), 0.35, 0.12),
    ShapeClass('dotted_triangle', 'triangle', 'dots', (190, 90, 50), 0.25, 0.12),
    ShapeClass('violet_square', 'square', 'plain', (170, 60, 150), 0.2, 0.10),
    ShapeClass('checked_ring', 'ring', 'checks', (40, 170, 190), 0.15, 0.11),
    ShapeClass('striped_disc', 'disc', 'stripes', (60, 60, 190), 0.10, 0.10),
    ShapeClass('pale_ring', 'ring', 'plain', (110, 190, 205), 0.08, 0.10),
    ShapeClass('checked_disc', 'disc', 'checks', (60, 60, 190), 0.08, 0.07),
    ShapeClass('dark_triangle', 'triangle', 'plain', (120, 55, 25), 0.08, 0.06),
)

NAMES = ('background', *(cls.name for cls in CLASSES))
"""The class of each label, 0..12."""


def draw_split(
    root: str | Path,
    split: str = 'train',
    num_images: int | None = None,
    size: tuple[int, int] = (128, 128),
    seed: int = 0,
) -> Path:
    """Draw the images of a split and their labels to PNG files, unless they are there already.

    The same arguments give the same files, bit for bit, whatever is drawn first and by however
    many processes.

    Args:
        root: where the drawn files are kept; each set of arguments has a folder of its own.
        split: 'train', 'val' or 'test'; their images differ.
        num_images: None for the split's default.
        size: height and width in pixels.
        seed: of all images.

    Returns:
        the folder, with ``img/00000.png``, ... and ``ann/00000.png``, ...

    Raises:
        ValueError: unknown split, no image.
    """
    if split not in SPLITS:
        raise ValueError(f'the split of LongTailShapes is {split!r}: use one of {list(SPLITS)}')
    num_images = SPLITS[split] if num_images is None else num_images
    if num_images < 1:
        raise ValueError(f'num_images of LongTailShapes is {num_images}: draw at least 1')
    name = f'v{VERSION}-seed{seed}-{size[0]}x{size[1]}-{split}-{num_images}'
    folder = Path(root) / name
    if not folder.exists():
        _draw_files(folder, split, num_images, size, seed)
    return folder


def _draw_files(
    folder: Path, split: str, num_images: int, size: tuple[int, int], seed: int
) -> None:
    import cv2

    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix='.drawing-'))
    try:
        for sub in ('img', 'ann'):
            (part / sub).mkdir()
        for i in range(num_images):
            # One generator an image: neither order nor number of images changes any of them.
            rng = np.random.default_rng([seed, list(SPLITS).index(split), i])
            for sub, drawn in zip(('img', 'ann'), draw(rng, *size), strict=True):
                cv2.imwrite(str(part / sub / f'{i:05d}.png'), drawn)
        part.chmod(0o755)
        try:
            os.rename(part, folder)
        except OSError:
            # Another process was first, with the same images; anything else is a real error.
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def draw(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One image uint8 (H, W, 3) BGR and its labels uint8 (H, W); 0 is the background."""
    import cv2

    low = rng.normal(120, 25, (8, 8, 3)).astype(np.float32)
    image = cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC)
    label = np.zeros((height, width), np.uint8)
    drawn = [c for c, cls in enumerate(CLASSES) for _ in range(rng.poisson(cls.rate))]
    for c in rng.permutation(drawn).astype(int):
        mask = _mask(rng, CLASSES[c], height, width)
        colour = np.array(CLASSES[c].colour) + rng.normal(0, 22, 3)
        texture = _texture(rng, CLASSES[c].texture, height, width)
        image[mask] = (colour * texture[..., None])[mask]
        label[mask] = c + 1
    noisy = image + rng.normal(0, 16, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), label


def _mask(rng: np.random.Generator, cls: ShapeClass, height: int, width: int) -> np.ndarray:
    """Where the shape is, bool (H, W)."""
    import cv2

    radius = cls.radius * min(height, width) * rng.uniform(0.7, 1.3)
    centre = rng.uniform(0, 1, 2) * (width, height)
    mask = np.zeros((height, width), np.uint8)
    if cls.shape in ('disc', 'ring'):
        place = tuple(int(v) for v in centre)
        thickness = -1 if cls.shape == 'disc' else max(int(radius / 2), 2)
        cv2.circle(mask, place, max(int(radius), 2), 1, thickness)
    else:
        corners = 4 if cls.shape == 'square' else 3
        angle = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
        points = centre + radius * np.stack([np.cos(angle), np.sin(angle)], 1)
        cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    return mask.astype(bool)


def _texture(rng: np.random.Generator, kind: str, height: int, width: int) -> np.ndarray:
    """Brightness factor (H, W)."""
    if kind == 'plain':
        return np.ones((height, width))
    y, x = np.mgrid[:height, :width] + rng.uniform(0, 8, 2)[:, None, None]
    angle = rng.uniform(0, np.pi)
    u = np.cos(angle) * x + np.sin(angle) * y
    v = np.cos(angle) * y - np.sin(angle) * x
    if kind == 'stripes':
        dark = np.sin(2 * np.pi * u / 6) > 0
    elif kind == 'checks':
        dark = np.sin(2 * np.pi * u / 8) * np.sin(2 * np.pi * v / 8) > 0
    else:
        dark = np.sin(2 * np.pi * u / 6) * np.sin(2 * np.pi * v / 6) > 0.4
    return np.where(dark, 0.6, 1.1)

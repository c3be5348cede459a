"""CIFAR-100 from files, and its long-tailed part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_split(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """uint8 (N, 3, 32, 32) and labels int64 (N,), of SPLIT.npz or CIFAR's official SPLIT.bin."""
    file = folder / f'{split}.npz'
    if file.is_file():
        with np.load(file) as data:
            images, labels = data['images'].transpose(0, 3, 1, 2), data['labels']
    else:
        rows = np.fromfile(folder / f'{split}.bin', np.uint8).reshape(-1, 2 + 3 * 32 * 32)
        images, labels = rows[:, 2:].reshape(-1, 3, 32, 32), rows[:, 1]
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))


def long_tail(labels: Tensor, imbalance: float) -> Tensor:
    """Indices of a part with n_c = floor(n_0 imbalance^(-c / (C - 1))) images of class c.

    They are those that the paper's code draws, with its seed 0.
    """
    random, picked = np.random.RandomState(0), []
    last = int(labels.max())
    for c in range(last + 1):
        mine = np.flatnonzero(labels.numpy() == c)
        random.shuffle(mine)
        count = len(labels) / (last + 1) * (1 / imbalance) ** (c / last)
        picked.append(torch.from_numpy(mine[: int(count)]))
    return torch.cat(picked)


def group_accuracies(correct: Tensor, labels: Tensor, counts: Tensor) -> dict[str, float]:
    """Accuracy in percent of all test images and of those of many, medium and few classes.

    Args:
        correct: bool (N,), whether a test image was recognized.
        labels: int64 (N,).
        counts: (C,), images of each class in the train split: above 100 many, below 20 few.

    Returns:
        a number for each, NaN where there is no such class.
    """
    many, few = counts > 100, counts < 20
    groups = {'all': counts >= 0, 'many': many, 'medium': ~many & ~few, 'few': few}
    hits = {name: correct[group[labels]].double() for name, group in groups.items()}
    return {name: round(100 * float(hit.mean()), 2) for name, hit in hits.items()}

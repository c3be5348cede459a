"""Whether two splits, or a memory and a split, hold the same images."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from torch.utils.data import DataLoader

from mmseg_ltmi.core.posterior import ClassMemory
from mmseg_ltmi.core.priors.dataset_parts import distinct_images, image_file

FOLDS = 5
"""Of cross-fitting, where nobody says how many."""


def default_folds(
    folds: int | None, loaders: dict[str, DataLoader], select: str, report: str
) -> tuple[int, str]:
    """How many folds, and what is wrong with choosing and judging on these splits without any.

    Args:
        folds: None if that is not said.
        loaders: of the images of each split.
        select: the split that chooses.
        report: the split that judges.
    """
    dataset: Any = loaders[report].dataset
    common = total = len(dataset)
    same, where = True, f'the same split ({select})'
    if select != report:
        try:
            chosen, judged = (_images_of(loaders[split].dataset) for split in (select, report))
        except ValueError as error:
            return 0, f'whether {select} and {report} have images in common is unknown: {error}'
        common, total, same = len(chosen & judged), len(judged), chosen == judged
        where = f'the same images ({common} of the {total} of {report} are in {select} too)'
    if not common:
        return 0, ''
    if folds is None and same and total > 1:
        return min(FOLDS, total), ''
    return 0, (
        f'chosen and reported on {where}: the figures flatter the choice. Name another split, or '
        f'cross-fit with --folds {FOLDS}.'
    )


def images_in(memory: ClassMemory, loaders: dict[str, DataLoader]) -> str:
    """That a memory holds pixels of images that choose or judge; '' if not, or if not known."""
    paths = () if memory.origins is None else memory.origins.images
    stored = {os.path.realpath(path) for path in paths if path}
    found = []
    for split, loader in loaders.items():
        with suppress(ValueError):
            if common := len(_images_of(loader.dataset) & stored):
                found.append(f'{common} images of {split}')
    if not found:
        return ''
    return (
        f'the memory holds pixels of {" and ".join(found)}, which find themselves there: the '
        'figures with a memory flatter it. Make it of the train split, and choose on another'
    )


def _images_of(dataset: Any) -> set[str]:
    # The files: splits of two names, or with other indices, may read the same ones.
    return {image_file(*image) for image in distinct_images(dataset)} - {''}

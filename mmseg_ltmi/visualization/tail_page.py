"""A page of images with their rare classes in colour and the rest in grey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

OKABE_ITO = ('#E69F00', '#56B4E9', '#009E73', '#F0E442', '#0072B2', '#D55E00', '#CC79A7')


class TailImage(NamedTuple):
    """A row of the page.

    Attributes:
        name: of the image.
        image: uint8 (H, W, 3) RGB.
        maps: int (H, W) class maps by title: the label first, then the predictions.
    """

    name: str
    image: np.ndarray
    maps: dict[str, np.ndarray]


def draw_tail_page(
    rows: Sequence[TailImage],
    tail: Sequence[int],
    classes: Sequence[str],
    path: str | Path,
    ignore_index: int = 255,
) -> None:
    """Image, label and predictions side by side, a row an image, as PNG.

    Args:
        rows: images that hold the tail classes.
        tail: classes in colour.
        classes: C names.
        path: file to write.
        ignore_index: label that is drawn black and takes no part in the IoU under a prediction.
    """
    colours = _colours(len(tail))
    columns = 1 + len(rows[0].maps)
    height, width = rows[0].image.shape[:2]
    figure = Figure(
        figsize=(3.4 * columns, (3.4 * height / width + 0.45) * len(rows) + 0.6),
        layout='constrained',
    )
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, row in zip(grid, rows, strict=True):
        label = next(iter(row.maps.values()))
        axes[0].imshow(row.image)
        axes[0].set_title(row.name, fontsize=8)
        for place, (title, classed) in enumerate(row.maps.items()):
            axis = axes[place + 1]
            axis.imshow(_overlay(row.image, classed, tail, colours, ignore_index))
            scores = '' if place == 0 else _scores(classed, label, tail, classes, ignore_index)
            axis.set_title(f'{title}{scores}', fontsize=8)
        for axis in axes:
            axis.axis('off')
    patches = [Patch(color=colours[i], label=classes[c]) for i, c in enumerate(tail)]
    figure.legend(handles=patches, loc='outside upper center', ncols=min(len(tail), 8), fontsize=9)
    figure.savefig(path, dpi=110)


def _colours(number: int) -> list:
    if number <= len(OKABE_ITO):
        return list(OKABE_ITO[:number])
    return [colormaps['turbo'](i / (number - 1)) for i in range(number)]


def _overlay(
    image: np.ndarray, classed: np.ndarray, tail: Sequence[int], colours: list, ignore_index: int
) -> np.ndarray:
    # Grey and faint, so that only the tail has colour.
    grey = image.mean(2, keepdims=True).repeat(3, 2)
    drawn = (0.6 * grey + 0.4 * 255).astype(np.uint8)
    drawn[classed == ignore_index] = 0
    for c, colour in zip(tail, colours, strict=True):
        drawn[classed == c] = np.round(255 * np.array(to_rgb(colour)))
    return drawn


def _scores(
    prediction: np.ndarray,
    label: np.ndarray,
    tail: Sequence[int],
    classes: Sequence[str],
    ignore_index: int,
) -> str:
    """IoU in this image of the tail classes that it holds, three to a line."""
    valid = label != ignore_index
    texts = []
    for c in tail:
        of_label, of_prediction = (label == c) & valid, (prediction == c) & valid
        if of_label.any():
            iou = (of_label & of_prediction).sum() / (of_label | of_prediction).sum()
            texts.append(f'{classes[c]} {100 * iou:.0f}')
    lines = [', '.join(texts[i : i + 3]) for i in range(0, len(texts), 3)]
    return '\nIoU [%]: ' + '\n'.join(lines) if texts else ''

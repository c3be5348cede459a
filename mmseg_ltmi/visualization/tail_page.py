"""A page of images with their rare classes in colour and the rest in grey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from mmseg_ltmi.core.class_names import distinct_names

from .canvas import canvas, colours, label_of

MOST_SCORES = 6
"""In the title of a picture."""


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
    path: str | Path | IO[bytes],
    ignore_index: int = 255,
) -> None:
    """Image, label and predictions side by side, a row an image.

    Args:
        rows: images that hold the tail classes.
        tail: classes in colour, the rarest first; those that are in no map have no entry.
        classes: C names.
        path: file to write.
        ignore_index: label that is drawn black and takes no part in the IoU under a prediction,
            also where it is the number of a tail class.
    """
    tail = [c for c in tail if c != ignore_index]
    # A class has the same colour in each page, but an entry only where it occurs.
    of_tail = dict(zip(tail, colours(len(tail)), strict=True))
    drawn = {c for row in rows for classed in row.maps.values() for c in np.unique(classed)}
    classes = distinct_names(classes)
    shown = [(label_of(classes[c], 20), of_tail[c]) for c in tail if c in drawn]
    shown += [('other classes', '#cccccc')]
    shown += [('no label', '#000000')] * (ignore_index in drawn)
    columns = 1 + len(rows[0].maps)
    height, width = rows[0].image.shape[:2]
    entries = min(2 * columns, 8)  # of a line of the legend
    inches = (3.4 * height / width + 0.6) * len(rows) + 0.3 + 0.2 * -(-len(shown) // entries)
    with canvas(path, 3.4 * columns, inches, dpi=110) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes, row in zip(grid, rows, strict=True):
            label = next(iter(row.maps.values()))
            axes[0].imshow(row.image)
            axes[0].set_title(label_of(row.name, 40), fontsize=8)
            for place, (title, classed) in enumerate(row.maps.items()):
                axis = axes[place + 1]
                axis.imshow(_overlay(row.image, classed, of_tail, ignore_index))
                scores = '' if place == 0 else _scores(classed, label, tail, classes, ignore_index)
                axis.set_title(f'{label_of(title, 40)}{scores}', fontsize=8)
            for axis in axes:
                axis.axis('off')
        for name, colour in shown:
            grid[0, 0].fill([], [], color=colour, label=name)
        figure.legend(loc='outside upper center', ncols=entries, fontsize=8)


def choose_images(counts: np.ndarray, number: int) -> list[int]:
    """In turn for each class, the image that holds most of it and is not chosen yet.

    Args:
        counts: int64 (images, classes that are looked for).
        number: of images, at most.
    """
    counts = counts.copy()
    chosen: list[int] = []
    while len(chosen) < number and counts.any():
        for column in range(counts.shape[1]):
            best = int(counts[:, column].argmax())
            if counts[best, column] and len(chosen) < number:
                chosen.append(best)
                counts[best] = 0
    return chosen


def _overlay(
    image: np.ndarray, classed: np.ndarray, of_tail: dict[int, str], ignore_index: int
) -> np.ndarray:
    # Grey and faint, so that only the tail has colour.
    grey = image.mean(2, keepdims=True).repeat(3, 2)
    drawn = (0.6 * grey + 0.4 * 255).astype(np.uint8)
    drawn[classed == ignore_index] = 0
    for c, colour in of_tail.items():
        drawn[classed == c] = list(bytes.fromhex(colour[1:]))
    return drawn


def _scores(
    prediction: np.ndarray,
    label: np.ndarray,
    tail: Sequence[int],
    classes: Sequence[str],
    ignore_index: int,
) -> str:
    """IoU in this image of the tail classes that it holds, three to a line, the first of many."""
    valid = label != ignore_index
    texts = []
    for c in tail:
        of_label, of_prediction = (label == c) & valid, (prediction == c) & valid
        if of_label.any():
            iou = (of_label & of_prediction).sum() / (of_label | of_prediction).sum()
            texts.append(f'{label_of(classes[c], 16)} {100 * iou:.0f}')
    if len(texts) > MOST_SCORES:
        texts[MOST_SCORES:] = [f'and {len(texts) - MOST_SCORES} more']
    lines = [', '.join(texts[i : i + 3]) for i in range(0, len(texts), 3)]
    return '\nIoU [%]: ' + '\n'.join(lines) if texts else ''

"""A page of test pixels beside the stored pixels that are nearest to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from .canvas import canvas, label_of

RIGHT, WRONG = '#009E73', '#D55E00'


class PixelNeighbors(NamedTuple):
    """A row of the page.

    Attributes:
        patch: uint8 (S, S, 3) RGB, the surroundings of the pixel.
        truth: name of its class.
        decision: name of the class that is predicted.
        keys: the patch, the class and ``q.k`` of each stored pixel, the nearest first.
    """

    patch: np.ndarray
    truth: str
    decision: str
    keys: list[tuple[np.ndarray, str, float]]


def draw_neighbors_page(rows: Sequence[PixelNeighbors], path: str | Path | IO[bytes]) -> None:
    """A row a pixel, its own picture first.

    A circle marks the pixel. A title is green where its class is that of the pixel, else red.

    Args:
        rows: one at least.
        path: file to write.
    """
    columns = 1 + max(len(row.keys) for row in rows)
    with canvas(path, 1.5 * columns, 1.75 * len(rows), dpi=110) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes, row in zip(grid, rows, strict=True):
            title = label_of(row.truth, 18)
            if row.decision != row.truth:
                title += f'\ntaken for {label_of(row.decision, 18)}'
            pictures = [(row.patch, title, row.decision)]
            pictures += [
                (p, f'{label_of(name, 18)}\n{value:.2f}', name) for p, name, value in row.keys
            ]
            for axis in axes:
                axis.axis('off')
            for axis, (picture, title, name) in zip(axes, pictures, strict=False):
                axis.imshow(picture)
                middle = (picture.shape[1] - 1) / 2, (picture.shape[0] - 1) / 2
                colour = RIGHT if name == row.truth else WRONG
                axis.plot(*middle, 'o', markersize=6, markerfacecolor='none', color='white')
                axis.set_title(title, fontsize=7, color=colour)

"""IoU of each class, and what a change did to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .canvas import STYLES, label_of
from .class_chart import class_chart, frequent_first, mark_unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def plot_per_class_iou(runs: Runs, path: str | Path) -> None:
    """IoU of each class in percent, from frequent to rare, a mark a run.

    Args:
        runs: rows of :func:`mmseg_ltmi.evaluation.class_rows` by the run's name. ``IoU_half`` in
            a row is half the width of its interval.
        path: file to write.
    """
    with _marks(runs, path) as axes:
        axes.set_xlim(-1, 101)
        axes.set_xlabel(f'IoU [%]{_said(runs)}')


def plot_class_differences(changes: Runs, path: str | Path, base: str) -> None:
    """Difference of each class's IoU to that of another run, from frequent to rare.

    Args:
        changes: rows as in :func:`plot_per_class_iou`, in which ``IoU`` is the difference.
        path: file to write.
        base: name of the run that they are compared with, which has the first style.
    """
    with _marks(changes, path, first=1) as axes:
        axes.axvline(0, color=STYLES[0][0], lw=1, zorder=1)
        axes.set_xlabel(f'IoU minus that of {label_of(base)} [%]{_said(changes)}')


@contextmanager
def _marks(runs: Runs, path: str | Path, first: int = 0) -> Iterator[Axes]:
    all_rows = list(runs.values())
    order = frequent_first(all_rows[0])
    with class_chart([all_rows[0][c] for c in order], path, len(runs)) as axes:
        place = np.arange(len(order))
        for i, (name, rows) in enumerate(runs.items()):
            colour, marker = STYLES[(i + first) % len(STYLES)]
            values = np.array([rows[c]['IoU'] for c in order], float)  # None becomes nan
            halves = np.array([rows[c].get('IoU_half', np.nan) for c in order], float)
            # A little apart, so that no mark hides another.
            offset = 0.0 if len(runs) == 1 else 0.56 * (i / (len(runs) - 1) - 0.5)
            axes.errorbar(
                values, place + offset, xerr=None if np.isnan(halves).all() else halves,
                color=colour, marker=marker, markersize=4.5, linestyle='none', elinewidth=1,
                capsize=1.5, label=label_of(name),
            )  # fmt: skip
        for i, c in enumerate(order):
            if all(_is_unknown(rows[c]['IoU']) for rows in all_rows):
                mark_unknown(axes, i, 'no label')
        yield axes


def _is_unknown(value: float | None) -> bool:
    return value is None or np.isnan(value)


def _said(runs: Runs) -> str:
    halves = [row.get('IoU_half', np.nan) for rows in runs.values() for row in rows]
    return '' if np.isnan(halves).all() else ', mean and 95 % interval over seeds'

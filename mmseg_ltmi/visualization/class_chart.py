"""A chart with a line for each class, from frequent to rare, that has room for all names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .canvas import FAINT, canvas, label_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mmseg_ltmi.core.priors import ClassPrior

GROUP_COLOURS = {'head': '#0072B2', 'medium': '#E69F00', 'tail': '#D55E00'}  # Okabe and Ito
Row = Mapping[str, Any]


@contextmanager
def class_chart(
    rows: Sequence[Row], path: str | Path | IO[bytes], entries: int = 1
) -> Iterator[Axes]:
    """Axes in which class i of the rows is at height i, with its name, share and group.

    Args:
        rows: dicts with ``class``, ``group`` and ``prior``, in the order in which they are drawn.
        path: file to write.
        entries: of the legend, which is drawn at the end if any artist has a label.
    """
    # A line of text for each class; a few classes get more room.
    height = 1.5 + 0.25 * ((entries + 2) // 3) + len(rows) * (0.32 if len(rows) <= 20 else 0.19)
    with canvas(path, 8, height) as figure:
        axes = figure.subplots()
        axes.set_ylim(len(rows) - 0.4, -0.6)
        names = [f'{label_of(row["class"])}  {_percent(row["prior"])}' for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.set_ylabel('class, share of pixels', color=FAINT, fontsize=8)
        axes.grid(axis='x', alpha=0.3)
        axes.tick_params(top=len(rows) > 40, labeltop=len(rows) > 40)
        for group, colour in GROUP_COLOURS.items():
            place = [i for i, row in enumerate(rows) if row['group'] == group]
            if not place:
                continue  # two classes have no medium one
            axes.axhspan(min(place) - 0.5, max(place) + 0.5, color=colour, alpha=0.06, lw=0)
            axes.annotate(
                group, (1, float(np.mean(place))), xycoords=('axes fraction', 'data'),
                xytext=(5, 0), textcoords='offset points', rotation=270, va='center',
                color=colour, annotation_clip=False,
            )  # fmt: skip
        yield axes
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc='outside upper center', ncols=min(entries, 3), fontsize=9)


def prior_rows(prior: ClassPrior, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows for :func:`class_chart` of the classes of a prior, in their order."""
    share, group = prior.probs(0).tolist(), prior.groups().by_class()
    return [{'class': n, 'group': group[c], 'prior': share[c]} for c, n in enumerate(names)]


def frequent_first(rows: Sequence[Row]) -> list[int]:
    """Places of the rows from the largest prior to the smallest, a group after the other."""
    groups = list(GROUP_COLOURS)
    return sorted(
        range(len(rows)), key=lambda c: (groups.index(rows[c]['group']), -rows[c]['prior'])
    )


def mark_unknown(axes: Axes, place: int, text: str) -> None:
    """Say in words why a class has nothing drawn."""
    axes.annotate(
        text, (0, place), xycoords=('axes fraction', 'data'), xytext=(6, 0),
        textcoords='offset points', va='center', fontsize=7, color=FAINT,
    )  # fmt: skip


def _percent(share: float) -> str:
    if share == 0:
        return '0 %'
    return f'{100 * share:.2g} %' if share < 0.0995 else f'{100 * share:.0f} %'

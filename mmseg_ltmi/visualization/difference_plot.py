"""What a change did to each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .per_class_plot import STYLES

MAX_LABELS = 60


def plot_class_differences(
    runs: dict[str, list[dict[str, Any]]], base: list[dict[str, Any]], path: str | Path
) -> None:
    """Difference of each class's IoU to the base's, from frequent to rare, as PNG.

    Args:
        runs: rows of :func:`mmseg_ltmi.evaluation.class_rows` by the run's name.
        base: rows of the run that they are compared with.
        path: file to write.
    """
    order = sorted(range(len(base)), key=lambda c: -base[c]['prior'])
    place = np.arange(len(order))
    width = 0.8 / len(runs)
    figure = Figure(figsize=(min(max(6.0, 0.35 * len(order)), 16.0), 4), layout='constrained')
    axes = figure.subplots()
    for i, (name, rows) in enumerate(runs.items()):
        change = [rows[c]['IoU'] - base[c]['IoU'] for c in order]
        offset = (i - (len(runs) - 1) / 2) * width
        colour = STYLES[(i + 2) % len(STYLES)][0]
        axes.bar(place + offset, change, width, color=colour, label=name)
    axes.axhline(0, color='black', lw=0.8)
    groups = [base[c]['group'] for c in order]
    for i in range(1, len(order)):
        if groups[i] != groups[i - 1]:
            axes.axvline(i - 0.5, color='#777777', lw=0.8, ls=':')
    axes.set_xlim(-0.6, len(order) - 0.4)
    axes.set_ylabel('difference in IoU [%]')
    if len(order) <= MAX_LABELS:
        axes.set_xticks(place, [base[c]['class'] for c in order], rotation=60, ha='right')
    else:
        axes.set_xlabel('classes from frequent to rare (dotted: head, medium, tail)')
    axes.grid(axis='y', alpha=0.3)
    figure.legend(loc='outside upper center', ncols=3)
    figure.savefig(path, dpi=150)

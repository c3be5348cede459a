"""IoU of each class against its frequency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# Okabe and Ito's colours, and a marker each for print without colour.
STYLES = (
    ('#000000', 'o'), ('#999999', 's'), ('#0072B2', '^'), ('#D55E00', 'D'), ('#009E73', 'v'),
    ('#CC79A7', 'P'), ('#E69F00', 'X'), ('#56B4E9', '*'), ('#F0E442', 'p'),
)  # fmt: skip


def plot_per_class_iou(runs: dict[str, list[dict[str, Any]]], path: str | Path) -> None:
    """One line (or cloud) a run: IoU in % over the share of the train pixels, log axis, as PNG.

    Args:
        runs: rows of :func:`mmseg_ltmi.evaluation.class_rows` by the run's name.
        path: file to write.
    """
    figure = Figure(figsize=(8, 5), layout='constrained')
    axes = figure.subplots()
    many = any(len(rows) > 40 for rows in runs.values())
    for i, (name, rows) in enumerate(runs.items()):
        colour, marker = STYLES[i % len(STYLES)]
        rows = sorted(
            (r for r in rows if r['IoU'] is not None and r['IoU'] == r['IoU']),
            key=lambda row: -row['prior'],
        )
        axes.plot(
            [100 * row['prior'] for row in rows],
            [row['IoU'] for row in rows],
            color=colour,
            marker=marker,
            # So many classes make a cloud, in which a line would show nothing.
            linestyle='none' if many else '-',
            markersize=4 if many else 6,
            linewidth=1,
            label=name,
        )
    axes.set_xscale('log')
    axes.invert_xaxis()
    axes.set_xlabel('share of the train pixels [%], from frequent to rare')
    axes.set_ylabel('IoU [%]')
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    figure.legend(loc='outside upper center', ncols=min(len(runs), 3))
    figure.savefig(path, dpi=150)

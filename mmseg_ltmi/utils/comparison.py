"""Runs against each other, in a table and two plots."""

from __future__ import annotations

from pathlib import Path

from mmseg_ltmi.evaluation.run_comparison import Run, markdown, mean_rows
from mmseg_ltmi.visualization import plot_class_differences, plot_per_class_iou


def compare(groups: dict[str, list[Run]], out: Path) -> str:
    """Write ``comparison.md``, ``iou_by_frequency.png`` and ``difference.png``; the table.

    Args:
        groups: of :func:`mmseg_ltmi.evaluation.run_comparison.by_name`.
        out: folder.
    """
    table = markdown(groups)
    out.mkdir(parents=True, exist_ok=True)
    (out / 'comparison.md').write_text(table + '\n')
    rows = {name: mean_rows(group) for name, group in groups.items()}
    plot_per_class_iou(rows, out / 'iou_by_frequency.png')
    first, *others = rows
    (out / 'difference.png').unlink(missing_ok=True)
    if others:
        plot_class_differences(
            {name: rows[name] for name in others}, rows[first], out / 'difference.png'
        )
    return table

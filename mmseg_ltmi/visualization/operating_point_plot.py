"""What each operating point is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

SHOWN = {
    'mIoU': ('mIoU', '#000000'),
    'mIoU_tail': ('tail mIoU', '#D55E00'),
    'mAcc': ('mAcc', '#0072B2'),
}  # Okabe and Ito's colours


def plot_operating_points(
    taus: Sequence[float],
    select: Sequence[dict[str, float]],
    report: Sequence[dict[str, float]] | None,
    rule: dict[str, float],
    path: str | Path,
) -> None:
    """mIoU, tail mIoU and mAcc over tau_test, and the IoU rule as level lines, as PNG.

    Args:
        taus: T values.
        select: T summaries on the split that chooses.
        report: T summaries on the split that judges; None if it is the same.
        rule: summary of the IoU rule on the split that judges.
        path: file to write.
    """
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    for key, (name, colour) in SHOWN.items():
        solid = select if report is None else report
        axes.plot(taus, [row[key] for row in solid], color=colour, label=name)
        if report is not None:
            axes.plot(taus, [row[key] for row in select], color=colour, alpha=0.45, ls='--')
        axes.axhline(rule[key], color=colour, lw=1, ls=':')
    axes.plot([], [], color='#777777', ls=':', label='IoU rule')
    if report is not None:
        axes.plot([], [], color='#777777', ls='--', label='selection split')
    axes.set_xlabel('tau_test (0 natural, 1 balanced)')
    axes.set_ylabel('[%]')
    axes.set_xlim(min(taus), max(taus))
    axes.grid(alpha=0.3)
    figure.legend(loc='outside right center')
    figure.savefig(path, dpi=150)

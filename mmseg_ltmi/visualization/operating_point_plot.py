"""What each operating point is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .canvas import FAINT, STYLES, canvas

SHOWN = {'mIoU': 'mIoU', 'mIoU_tail': 'tail mIoU', 'mAcc': 'mAcc'}
JUDGING, CHOOSING, RULE = (STYLES[i][0] for i in (1, 2, 3))

Summary = Mapping[str, float]


def plot_operating_points(
    taus: Sequence[float],
    select: Sequence[Summary],
    report: Sequence[Summary] | None,
    rule: Summary,
    path: str | Path,
) -> None:
    """mIoU, tail mIoU and mAcc over tau_test, a panel each, and the IoU rule's as a level.

    Args:
        taus: T values.
        select: T summaries on the split that chooses.
        report: T summaries on the split that judges; None if it is the same.
        rule: summary of the IoU rule on the split that judges.
        path: file to write.
    """
    with canvas(path, 10, 3.6) as figure:
        panels = figure.subplots(1, len(SHOWN))
        for axes, (key, name) in zip(panels, SHOWN.items(), strict=True):
            chosen = np.array([row[key] for row in select])
            # Wide below and narrow above, so that both are seen where they agree.
            if report is not None:
                judged = np.array([row[key] for row in report])
                axes.plot(taus, judged, color=JUDGING, lw=4, alpha=0.5, label='split that judges')
            axes.plot(taus, chosen, color=CHOOSING, lw=1.5, label='split that chooses')
            axes.axhline(rule[key], color=RULE, lw=1.5, ls=':', label='IoU rule, where it judges')
            if np.isnan(chosen).all():
                axes.text(
                    0.5, 0.5, 'no class of these has a label', color=FAINT, ha='center',
                    transform=axes.transAxes,
                )  # fmt: skip
                axes.set_yticks([])
            else:
                best = int(np.nanargmax(chosen))
                dot = dict(color=CHOOSING, ms=6, label='best where it chooses')
                axes.plot(taus[best], chosen[best], 'o', **dot)
                axes.annotate(
                    f'{taus[best]:g}', (taus[best], chosen[best]), xytext=(0, 6), ha='center',
                    textcoords='offset points', color=CHOOSING, fontsize=9,
                )  # fmt: skip
            axes.margins(y=0.12)
            axes.set_title(f'{name} [%]', fontsize=10)
            axes.set_xlabel('tau_test')
            axes.set_xlim(min(taus), max(taus) + 1e-9)
            axes.grid(alpha=0.3)
        figure.supxlabel('tau_test = 0 is the natural decision, 1 the balanced one', fontsize=9)
        # Of all panels: one may lack an entry.
        legends = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels)
        entries = {name: handle for legend in legends for handle, name in legend}
        figure.legend(entries.values(), entries.keys(), loc='outside upper center', ncols=4)

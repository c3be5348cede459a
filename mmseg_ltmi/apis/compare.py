"""Compares runs, in a table and two plots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmseg_ltmi.evaluation.run_comparison import (
    SEED,
    ScoredRun,
    by_name,
    difference_rows,
    markdown,
    mean_rows,
    read_run,
)
from mmseg_ltmi.visualization import plot_class_differences, plot_per_class_iou


@dataclass(frozen=True)
class Comparison:
    """Runs against each other.

    Attributes:
        groups: runs that differ by seed only together, by name; the first is what the others are
            compared with.
    """

    groups: dict[str, list[ScoredRun]]

    @property
    def table(self) -> str:
        """Markdown: the runs, and their paired differences to the first."""
        return markdown(self.groups)

    def save(self, folder: str | Path) -> None:
        """Write ``comparison.md``, ``iou_by_frequency.png`` and ``difference.png``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'comparison.md').write_text(self.table + '\n', encoding='utf-8')
        rows = {name: mean_rows(group) for name, group in self.groups.items()}
        plot_per_class_iou(rows, folder / 'iou_by_frequency.png')
        first, *others = self.groups
        difference = folder / 'difference.png'
        difference.unlink(missing_ok=True)
        if others:
            base = self.groups[first]
            changes = {name: difference_rows(self.groups[name], base) for name in others}
            plot_class_differences(changes, difference, first)


def compare(
    runs: Sequence[str | Path], seed_pattern: re.Pattern = SEED, reading: str = ''
) -> Comparison:
    """Compare runs that LongTailIoUMetric has judged.

    Args:
        runs: work dirs, whose newest per_class.json counts, or per_class.json / .csv files.
        seed_pattern: what names end in where runs differ by seed only; its group is the seed.
        reading: 'natural', 'tau_by_mIoU', 'IoU_rule', ..., as :func:`mmseg_ltmi.apis.choose` has
            read the runs.

    Raises:
        OSError: no such run, or nothing in it.
        ValueError: a file of another format, runs with other classes, or the same run twice.

    Examples:
        >>> print(compare(['work_dirs/ce', 'work_dirs/ltmi']).table)
    """
    return Comparison(by_name([read_run(path, seed_pattern, reading) for path in runs]))

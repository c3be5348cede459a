"""Compares the finished runs of a study."""

from __future__ import annotations

import csv
from pathlib import Path
from shutil import rmtree
from typing import Any

from mmseg_ltmi.evaluation.per_class import COLUMNS
from mmseg_ltmi.evaluation.run_comparison import across_readings, by_name, read_run
from mmseg_ltmi.utils.comparison import compare

from .run import Run


def finished(runs: list[Run], judge: list[str]) -> tuple[list[Run], list[str]]:
    """The finished runs that the study still has, and of the others the name and the reason."""
    found, others = [], []
    for run in (run for run in runs if run.is_finished(judge)):
        reason = run.outdated()
        if reason:
            others.append(f'{run.name} {reason}')
        else:
            found.append(run)
    return found, others


def make_tables(runs: list[Run], rows: list[str], out: Path) -> str:
    """Write a table and plots for each way to read the posterior, and all scores as CSV.

    Args:
        runs: finished ones.
        rows: in their order; differences are to the first.
        out: folder; tables that it has are replaced.

    Returns:
        the tables, as Markdown.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError(f'{out.parent} has no finished run of this study, under its judge')
    for old in out.glob('*/comparison.md'):  # of readings that there may be no more
        rmtree(old.parent)
    readings: dict[str, list[Any]] = {}
    for run in sorted(runs, key=lambda run: rows.index(run.row)):
        for file in sorted((run.point / 'per_class').glob('*.json')):
            scored = read_run(file)._replace(name=run.row, seed=str(run.seed))
            readings.setdefault(file.stem, []).append(scored)
    groups = {reading: by_name(found) for reading, found in readings.items()}
    tables = {reading: compare(group, out / reading) for reading, group in groups.items()}
    tables['All readings'] = across_readings(groups)
    (out / 'readings.md').write_text(tables['All readings'] + '\n')
    with (out / 'runs.csv').open('w', newline='') as scores:
        writer = csv.writer(scores)
        writer.writerow(['reading', 'row', 'seed', *COLUMNS])
        for reading, found in readings.items():
            for scored in found:
                writer.writerow([reading, scored.name, scored.seed, *scored.scores.values()])
    return '\n\n'.join(f'## {name}\n\n{table}' for name, table in tables.items())

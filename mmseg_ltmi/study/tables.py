"""Compares the finished runs of a study."""

from __future__ import annotations

import csv
from pathlib import Path
from shutil import rmtree
from typing import Any

from mmseg_ltmi.evaluation.per_class import COLUMNS
from mmseg_ltmi.evaluation.run_comparison import across_readings, by_name, read_run
from mmseg_ltmi.utils.comparison import compare

from .lock import locked
from .run import Run


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
    readings: dict[str, list[Any]] = {}
    for run in sorted(runs, key=lambda run: rows.index(run.row)):
        for rows_file in sorted((run.point / 'per_class').glob('*.json')):
            scored = read_run(rows_file)._replace(name=run.row, seed=str(run.seed))
            readings.setdefault(rows_file.stem, []).append(scored)
    groups = {reading: by_name(found) for reading, found in readings.items()}
    file = out / 'runs.csv'
    out.mkdir(parents=True, exist_ok=True)
    with (out / 'lock').open('w') as lock:
        locked(lock, patience=60)  # another process that has come to the end as well
        before = csv.reader(file.read_text().splitlines()[1:]) if file.exists() else ()
        for reading in {row[0] for row in before} - set(groups):
            rmtree(out / reading, ignore_errors=True)
        tables = {reading: compare(group, out / reading) for reading, group in groups.items()}
        tables['All readings'] = across_readings(groups)
        (out / 'readings.md').write_text(tables['All readings'] + '\n')
        with file.open('w', newline='') as scores:
            writer = csv.writer(scores)
            writer.writerow(['reading', 'row', 'seed', *COLUMNS])
            for reading, found in readings.items():
                for scored in found:
                    writer.writerow([reading, scored.name, scored.seed, *scored.scores.values()])
    return '\n\n'.join(f'## {name}\n\n{table}' for name, table in tables.items())

"""Compares the finished runs of a study."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

from study_runs import Study

from mmseg_ltmi.apis.compare import Comparison
from mmseg_ltmi.evaluation.per_class import COLUMNS
from mmseg_ltmi.evaluation.run_comparison import across_readings, by_name, read_run


def make_tables(study: Study, out: Path) -> str:
    """Write a table and plots for each way to read the posterior, and all scores as runs.csv.

    Differences are to the first row. Which trained runs are left out, and why, goes to stderr.

    Returns:
        the tables, as Markdown.

    Raises:
        ValueError: no run is finished.
    """
    readings: dict[str, list[Any]] = {}
    trained = [run for run in study.runs if run.trained]
    for run in sorted(trained, key=lambda run: study.rows.index(run.row)):
        judge, finished = study.judge.arguments, run.is_finished(study.judge)
        reason = run.outdated() or ('' if finished else f'it is not judged by {judge}')
        if reason:
            print(f'left out of the tables: {run.name}: {reason}', file=sys.stderr)
            continue
        for file in sorted((run.judgement / 'per_class').glob('*.json')):
            scored = read_run(file)._replace(name=run.row, seed=str(run.seed))
            readings.setdefault(file.stem, []).append(scored)
    if not readings:
        raise ValueError(f'{out.parent} has no finished run of this study')
    groups = {reading: by_name(runs) for reading, runs in readings.items()}
    tables = {}
    for reading, group in groups.items():
        comparison = Comparison(group)
        comparison.save(out / reading)
        tables[reading] = comparison.table
    tables['All readings'] = across_readings(groups)
    (out / 'readings.md').write_text(tables['All readings'] + '\n', encoding='utf-8')
    with (out / 'runs.csv').open('w', newline='', encoding='utf-8') as stream:
        writer = csv.writer(stream)
        writer.writerow(['reading', 'row', 'seed', *COLUMNS])
        for reading, runs in readings.items():
            writer.writerows([reading, r.name, r.seed, *r.scores.values()] for r in runs)
    return '\n\n'.join(f'## {name}\n\n{table}' for name, table in tables.items())

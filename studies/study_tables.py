"""Compares the finished runs of a study."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

from study_runs import Study

from mmseg_ltmi.apis.compare import Comparison
from mmseg_ltmi.evaluation.per_class import COLUMNS
from mmseg_ltmi.evaluation.run_comparison import ScoredRun, across_readings, by_name, read_run


def make_tables(study: Study, out: Path) -> str:
    """Write a table and plots for each way to read the posterior, and all scores as runs.csv.

    Differences are to the first row. Rows that are judged on other images than that have a table
    of their own, named by its first row. Which trained runs are left out, and why, goes to stderr.

    Returns:
        the tables, as Markdown.

    Raises:
        ValueError: no run is finished.
    """
    readings: dict[str, list[ScoredRun]] = {}
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
    out.mkdir(parents=True, exist_ok=True)
    with (out / 'runs.csv').open('w', newline='', encoding='utf-8') as stream:
        writer = csv.writer(stream)
        writer.writerow(['reading', 'row', 'seed', *COLUMNS])
        for reading, runs in readings.items():
            writer.writerows([reading, r.name, r.seed, *r.scores.values()] for r in runs)
    groups: dict[str, dict[str, Any]] = {}
    tables = {}
    for reading, runs in readings.items():
        groups[reading] = {}
        for title, alike in _by_images(reading, runs).items():
            comparison = Comparison(by_name(alike))
            comparison.save(out / title)
            tables[title] = comparison.table
            groups[reading] |= comparison.groups
    tables['All readings'] = across_readings(groups)
    (out / 'readings.md').write_text(tables['All readings'] + '\n', encoding='utf-8')
    return '\n\n'.join(f'## {name}\n\n{table}' for name, table in tables.items())


def _by_images(reading: str, runs: list[ScoredRun]) -> dict[str, list[ScoredRun]]:
    # By the label pixels of the classes, as compare tells images apart.
    found: dict[tuple[float, ...], list[ScoredRun]] = {}
    for run in runs:
        found.setdefault(tuple(row['pixels'] for row in run.rows), []).append(run)
    if len(found) == 1:
        return {reading: runs}
    return {f'{reading}-{alike[0].name}': alike for alike in found.values()}

"""Runs against each other: means and intervals over seeds, and paired differences."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmseg_ltmi.core.class_names import one_line

from .per_class import COLUMNS, number, summary, what_is_left_out

SEED = re.compile(r'[-_.](?:seed|s)[-_]?(\d+)$')
"""What the name of a run ends in when runs differ by seed only: -seed0, _s1, .seed_2."""

TIMESTAMP = re.compile(r'\d{8}_\d{6}')
"""The folder of a run's log in its work dir."""

TEST = 'mmseg-ltmi test CONFIG CHECKPOINT --per-class FILE'


class ScoredRun(NamedTuple):
    """A run's rows per class, as LongTailIoUMetric writes them.

    Attributes:
        name: of the method, without the seed.
        seed: '' where the name holds none.
        file: that was read.
        rows: C dicts; unknown scores are nan.
        is_regrouped: the rows have the groups and the prior of another run, see :func:`by_name`.
    """

    name: str
    seed: str
    file: Path
    rows: list[dict[str, Any]]
    is_regrouped: bool = False

    @property
    def scores(self) -> dict[str, float]:
        """mIoU, its head, medium and tail parts, and mAcc in percent; nan where unknown."""
        return summary(self.rows)


class Interval(NamedTuple):
    """Mean and half the width of its 95 % interval (Student's t); nan for a single value."""

    mean: float
    half: float
    number: int

    def __str__(self) -> str:
        return number(self.mean) + ('' if np.isnan(self.half) else f' ± {self.half:.2f}')


def read_run(path: str | Path, pattern: re.Pattern = SEED, reading: str = '') -> ScoredRun:
    """A run from its work dir or from a ``per_class.json`` / ``.csv`` file.

    Of several files below a work dir the newest counts. The name is the work dir's, also of a
    file that lies there under one of the names that this package gives, or else the file's.
    ``reading``, as 'tau by mIoU' or 'tau_by_mIoU', takes ``per_class/READING.json`` of a work dir,
    which mmseg-ltmi choose writes, instead.

    Raises:
        FileNotFoundError: no such path, or nothing in it.
        ValueError: a file of another format, or a ``reading`` of a file.
    """
    path = Path(path)
    file, reading = path, reading.replace(' ', '_')
    if reading and path.is_file():
        raise ValueError(f'{path} is one reading already: give work dirs, or leave {reading!r} out')
    if path.is_dir():
        names = [f'per_class/{reading}.json'] if reading else ['per_class.json', 'per_class.csv']
        found = [file for name in names for file in path.rglob(name)]
        if not reading and not found:
            found = [*path.rglob('per_class*.json'), *path.rglob('per_class*.csv')]
        if not found:
            how = (
                'read it so with mmseg-ltmi choose'
                if reading
                else f'evaluate it with LongTailIoUMetric, or with {TEST}'
            )
            raise FileNotFoundError(f'{path} holds no {names[0]}: {how}')
        file = max(found, key=lambda f: f.stat().st_mtime)
    elif not path.is_file():
        raise FileNotFoundError(f'there is no run {path}')
    name = path.resolve().name if path.is_dir() else _name_of(path)
    match = pattern.search(name)
    seed = '' if match is None else match.group(1) if match.groups() else match.group(0)
    return ScoredRun(pattern.sub('', name), seed, file, _rows(file))


def _name_of(file: Path) -> str:
    folder = file.resolve().parent
    if not file.stem.startswith('per_class') and folder.name != 'per_class':
        return file.stem
    while folder.name in ('per_class', 'operating_point') or TIMESTAMP.fullmatch(folder.name):
        folder = folder.parent
    return folder.name


def _rows(file: Path) -> list[dict[str, Any]]:
    numbers = ('prior', 'pixels', 'IoU', 'Acc', 'Precision')
    try:
        if file.suffix == '.csv':
            with file.open(newline='', encoding='utf-8-sig') as stream:  # as Excel saves it
                rows: list = list(csv.DictReader(stream))
        else:
            rows = json.loads(file.read_text(encoding='utf-8'))
        for row in rows:
            row |= {k: float('nan' if row[k] in (None, '') else row[k]) for k in numbers}
            _ = row['class'], row['group']
        if not rows:
            raise ValueError('no class')
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{file} is no file of rows per class ({error!r}): write it with LongTailIoUMetric or '
            f'with {TEST}'
        ) from error
    return rows


def by_name(runs: Sequence[ScoredRun]) -> dict[str, list[ScoredRun]]:
    """Runs of the same name together, in the order of the first of each.

    Where a run has other head, medium and tail classes than the first one, as with another class
    prior or none, it takes the groups and the prior of that.

    Raises:
        ValueError: runs with other classes, or of other labels, or twice the same name and seed.
    """
    groups: dict[str, list[ScoredRun]] = {}
    for run in runs:
        names, first = ([row['class'] for row in r.rows] for r in (run, runs[0]))
        if names != first:
            raise ValueError(
                f'{run.file} has other classes, or the same in another order, than '
                f'{runs[0].file}: {names} against {first}'
            )
        pixels, of_first = (np.array([row['pixels'] for row in r.rows]) for r in (run, runs[0]))
        if (pixels != of_first).any():
            c = int((np.abs(pixels - of_first) / np.maximum(pixels, of_first).clip(1)).argmax())
            raise ValueError(
                f'{run.file} is judged on other images than {runs[0].file}: {names[c]} has '
                f'{pixels[c]:.0f} and {of_first[c]:.0f} label pixels. Judge both on one split, or '
                'give their per_class.json files of it'
            )
        group = groups.setdefault(run.name, [])
        if any(other.seed == run.seed for other in group):
            raise ValueError(
                f'two runs are called {run.name!r} with seed {run.seed!r}: rename one, or say with '
                '--seed-pattern what tells the seeds apart'
            )
        group.append(_grouped_as(runs[0].rows, run))
    return groups


def _grouped_as(rows: Sequence[dict[str, Any]], run: ScoredRun) -> ScoredRun:
    pairs = list(zip(run.rows, rows, strict=True))
    if all(own['group'] == row['group'] for own, row in pairs):
        return run
    regrouped = [{**own, 'group': row['group'], 'prior': row['prior']} for own, row in pairs]
    return run._replace(rows=regrouped, is_regrouped=True)


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval of independent values."""
    number = len(values)
    half = float('nan')
    if number > 1:
        from scipy.special import stdtrit  # only here: it takes a while to import

        half = float(stdtrit(number - 1, 0.975) * np.std(values, ddof=1)) / number**0.5
    return Interval(float(np.mean(values)), half, number)


def means(runs: Sequence[ScoredRun]) -> dict[str, Interval]:
    """Each column over the seeds."""
    scores = [run.scores for run in runs]
    return {key: interval([score[key] for score in scores]) for key in COLUMNS}


def differences(runs: Sequence[ScoredRun], base: Sequence[ScoredRun]) -> dict[str, Interval]:
    """Each column minus the base's, paired by seed; without common seeds, mean minus mean."""
    of_base = {run.seed: run.scores for run in base}
    pairs = [(run.scores, of_base[run.seed]) for run in runs if run.seed in of_base]
    if pairs:
        return {key: interval([a[key] - b[key] for a, b in pairs]) for key in COLUMNS}
    ours, theirs = means(runs), means(base)
    return {key: Interval(ours[key].mean - theirs[key].mean, float('nan'), 0) for key in COLUMNS}


def mean_rows(runs: Sequence[ScoredRun]) -> list[dict[str, Any]]:
    """Rows of the first run with the mean ``IoU`` of all, and half its interval, ``IoU_half``."""
    return _with_iou(runs[0].rows, [_iou_of(run) for run in runs])


def difference_rows(runs: Sequence[ScoredRun], base: Sequence[ScoredRun]) -> list[dict[str, Any]]:
    """As :func:`mean_rows`, of the IoU minus the base's: paired as in :func:`differences`."""
    of_base = {run.seed: _iou_of(run) for run in base}
    pairs = [_iou_of(run) - of_base[run.seed] for run in runs if run.seed in of_base]
    if not pairs:
        pairs = [np.mean([_iou_of(run) for run in runs], 0) - np.mean(list(of_base.values()), 0)]
    return _with_iou(base[0].rows, pairs)


def _iou_of(run: ScoredRun) -> np.ndarray:
    return np.array([row['IoU'] for row in run.rows])


def _with_iou(rows: Sequence[dict[str, Any]], iou: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    of_class = [interval(values.tolist()) for values in np.stack(iou, 1)]
    return [
        {**row, 'IoU': found.mean, 'IoU_half': found.half}
        for row, found in zip(rows, of_class, strict=True)
    ]


def across_readings(
    readings: dict[str, dict[str, list[ScoredRun]]], columns: Sequence[str] = ('mIoU', 'mIoU_tail')
) -> str:
    """A table with a row for each method and a column for each way to read it.

    Args:
        readings: :func:`by_name` of the runs under each reading.
        columns: what a cell shows, with a slash between.
    """
    names = dict.fromkeys(name for groups in readings.values() for name in groups)
    lines = ['| run | seeds | ' + ' | '.join(readings) + ' |', '| --- ' * (2 + len(readings)) + '|']
    for name in names:
        seeds, cells = 0, []
        for groups in readings.values():
            runs = groups.get(name, [])
            seeds = max(seeds, len(runs))
            values = means(runs) if runs else {}
            cells.append(' / '.join(str(values[column]) for column in columns if values))
        lines.append(f'| {cell(name)} | {seeds} | ' + ' | '.join(cells) + ' |')
    title = ' / '.join(column.replace('mIoU_', '') for column in columns)
    return '\n'.join([f'{title} in %, mean ± 95 % interval over seeds.', '', *lines])


def cell(text: str) -> str:
    """A text as a cell of a Markdown table shows it."""
    return one_line(text).replace('|', r'\|')


def markdown(groups: dict[str, list[ScoredRun]]) -> str:
    """The table of the runs, and that of their differences to the first."""
    head = '| run | seeds | mIoU | head | medium | tail | mAcc |'
    rule = '| --- ' * 7 + '|'
    lines = ['IoU and accuracy in %, mean ± 95 % interval over seeds.', '', head, rule]
    for name, runs in groups.items():
        cells = ' | '.join(str(value) for value in means(runs).values())
        lines.append(f'| {cell(name)} | {len(runs)} | {cells} |')
    first, *others = groups
    if others:
        lines += ['', f'Difference to {one_line(first)}, paired by seed.', '']
        lines += [head.replace('seeds', 'pairs'), rule]
    for name in others:
        change = differences(groups[name], groups[first])
        cells = ' | '.join(('+' if v.mean >= 0 else '') + str(v) for v in change.values())
        lines.append(f'| {cell(name)} | {change["mIoU"].number or "none"} | {cells} |')
    if regrouped := [n for n, runs in groups.items() if any(run.is_regrouped for run in runs)]:
        names = ', '.join(map(one_line, regrouped))
        lines += ['', f'Head, medium and tail are those of {one_line(first)} in every row: {names}']
        lines[-1] += ' had other groups, by another class prior or none.'
    if left_out := what_is_left_out(groups[first][0].rows, with_predicted=False):
        lines += ['', f'{left_out[0].upper()}{left_out[1:]}.']
    return '\n'.join(lines)

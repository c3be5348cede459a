"""Reads a study's file into the runs that make it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .run import Run, read_config

KEYS = dict(base='text', common='dict', rows='dict', seeds='list', judge='list')
ROW_KEYS = dict(base='text', change='dict', seeds='list', needs='text')
KINDS: dict[str, Any] = dict(text=str, dict=dict, list=(list, tuple))


def read_study(file: Path) -> Config:
    """A study's file, as tools/study.py describes it, with its rows and its judge complete.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no rows; keys that a study or a row does not have, or a missing one; a value of
            another kind.
    """
    study = read_config(file)
    rows = study.get('rows')
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise ValueError(f'{file} must have rows=dict(NAME=dict(...), ...)')
    shown = {key: value for key, value in study.items() if not key.startswith('_')}
    _check(str(file), shown, KEYS)
    for name, row in rows.items():
        if Path(name).name != name:
            raise ValueError(f'row {name!r} must have a name that a folder can have')
        _check(f'row {name!r}', row, ROW_KEYS)
        for key in ('base', 'seeds'):
            if key not in row and key not in study:
                raise ValueError(f'row {name!r} has no {key}, and neither has {file}')
            row.setdefault(key, study.get(key))
        if not all(isinstance(seed, int) for seed in row.seeds):
            raise ValueError(f'seeds of row {name!r} must be whole numbers, but are {row.seeds}')
    for name, row in rows.items():
        needed = row.get('needs')
        other = rows.get(needed, {})
        if needed is not None and ('needs' in other or not other.get('seeds')):
            raise ValueError(
                f'row {name!r} needs {needed!r}: name a row that has seeds and needs none itself'
            )
    judge = study.get('judge', [])
    if not all(isinstance(argument, (str, int, float)) for argument in judge):
        raise ValueError(f"judge of {file} must be arguments, ['--folds', 5], but is {judge}")
    study.judge = [str(argument) for argument in judge]
    return study


def plan(study: Config, folder: Path, out: Path) -> list[Run]:
    """All runs, seed by seed: a study that is cut short has every row at the first seeds.

    What others need comes first.

    Args:
        study: of :func:`read_study`.
        folder: that the bases are seen from.
        out: where the runs go.

    Raises:
        FileNotFoundError: a base that is not there.
        ValueError: one that is no config, or a change that does not fit it.
    """
    rows = study.rows
    bases = {base: read_config(folder / base) for base in {row.base for row in rows.values()}}
    seeds = dict.fromkeys(seed for row in rows.values() for seed in row.seeds)
    order = [(row, seed) for seed in seeds for row in rows if seed in rows[row].seeds]
    needed = {row.get('needs') for row in rows.values()}
    runs: list[Run] = []
    for row, seed in sorted(order, key=lambda pair: pair[0] not in needed):
        options = rows[row]
        cfg = copy.deepcopy(bases[options.base])
        seeded = dict(randomness=dict(seed=seed))
        try:
            for change in (study.get('common', {}), options.get('change', {}), seeded):
                cfg.merge_from_dict(copy.deepcopy(change))
        except (KeyError, TypeError) as error:
            raise ValueError(f'row {row!r} does not fit {options.base}: {error}') from error
        name = f'{row}-seed{seed}'
        # Not in the run's folder, where mmengine writes what it makes of a config.
        file = out / 'configs' / f'{name}.py'
        first = tuple(run for run in runs if run.row == options.get('needs'))
        runs.append(Run(row, seed, out / 'runs' / name, file, cfg, first))
    return runs


def chosen(runs: list[Run], rows: list[str] | None, seeds: list[int] | None) -> list[Run]:
    """The runs of some rows and seeds; None takes all.

    Raises:
        ValueError: a row or a seed that is not there, or no run that has both.
    """
    wanted: dict[str, list[Any] | None] = dict(row=rows, seed=seeds)
    for what, values in wanted.items():
        known = list(dict.fromkeys(getattr(run, what) for run in runs))
        unknown = sorted(set(values or ()).difference(known))
        if unknown:
            raise ValueError(f'no {what} {unknown}: the study has {known}')
    found = [
        run
        for run in runs
        if (rows is None or run.row in rows) and (seeds is None or run.seed in seeds)
    ]
    if not found:
        raise ValueError(f'no run of the rows {rows} has one of the seeds {seeds}')
    return found


def _check(where: str, found: dict[str, Any], known: dict[str, str]) -> None:
    unknown = sorted(set(found).difference(known))
    if unknown:
        raise ValueError(f'{where} has {unknown}, but may have {sorted(known)}')
    for key, value in found.items():
        if not isinstance(value, KINDS[known[key]]):
            raise ValueError(f'{key} of {where} must be a {known[key]}, but is {value!r}')

"""Reads a study's FILE into its runs, and tells from their folders how far each one is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from mmseg_ltmi.core.json_file import read_json, write_json

LIST = (list, tuple)
KEYS = dict(base=str, common=dict, rows=dict, seeds=LIST, judge=LIST, memory=LIST)
ROW_KEYS = dict(base=str, change=dict, seeds=LIST, needs=str)


class Run(NamedTuple):
    """One training run: where its files go, its whole config, and the runs it builds on."""

    row: str
    seed: int
    out: Path
    config: Config
    needs: tuple[Run, ...]

    @property
    def name(self) -> str:
        return f'{self.row}-seed{self.seed}'

    @property
    def folder(self) -> Path:
        """Logs, checkpoints and judgement. It exists once the run has begun."""
        return self.out / 'runs' / self.name

    @property
    def file(self) -> Path:
        """The config that the run began with; not in its folder, where mmengine writes others."""
        return self.out / 'configs' / f'{self.name}.py'

    @property
    def judgement(self) -> Path:
        """The folder of its operating points and of a file of rows per class for each."""
        return self.folder / 'operating_point'

    @property
    def trained(self) -> str | None:
        """When its training ended; None before that."""
        return _read(self.folder / 'trained.json')

    def is_finished(self, judge: Judge) -> bool:
        """Whether it is trained, and judged with these arguments."""
        judged_by = _read(self.judgement / 'judge.json')
        return self.trained is not None and judged_by == judge.arguments

    def checkpoint(self) -> Path | None:
        """The last one, also where the folder was moved since; None if there is none."""
        try:
            # mmengine writes it.
            named = Path((self.folder / 'last_checkpoint').read_text(encoding='utf-8'))
        except FileNotFoundError:
            return None
        return next((p for p in (self.folder / named.name, named) if p.is_file()), None)

    def begin(self) -> None:
        """Write its config and which trainings it builds on, unless it has begun already."""
        if not self.folder.exists():
            self.config.dump(self.file)
            write_json(self.folder / 'begun.json', {run.name: run.trained for run in self.needs})

    def outdated(self) -> str:
        """Why the run as it began, or one that it needs, is not the one in FILE; '' if it is."""
        if self.folder.exists():
            remedy = f'remove {self.folder} to train it anew, or give the row another name'
            try:
                change = difference(Config.fromfile(self.file).to_dict(), self.config.to_dict())
            except Exception as error:  # a config is Python, so anything
                change = f'{type(error).__name__}: {error}'
            if change:
                return f'it began with another config ({change}): {remedy}'
            trainings = _read(self.folder / 'begun.json') or {}
            for run in self.needs:
                if trainings.get(run.name, run.trained) != run.trained:
                    return f'it began with an earlier {run.name}: {remedy}'
        reasons = ((run, run.outdated()) for run in self.needs)
        return next((f'{run.name}, which it needs: {text}' for run, text in reasons if text), '')


class Judge(NamedTuple):
    """Arguments of what judges a run.

    Attributes:
        choose: of mmseg-ltmi choose.
        memory: of mmseg-ltmi memory, whose file choose is given; None judges without one.
    """

    choose: list[str]
    memory: list[str] | None = None

    @property
    def arguments(self) -> list[str]:
        """What a judgement keeps, so that one of other arguments is seen to be another."""
        return self.choose if self.memory is None else [*self.choose, 'memory', *self.memory]


class Study(NamedTuple):
    """What FILE describes: runs in the order of training, rows in that of the tables, judge."""

    runs: list[Run]
    rows: list[str]
    judge: Judge


def read_study(file: Path, out: Path) -> Study:
    """Read FILE, whose runs go to ``out``.

    All rows come at the first seed, then at the second, so that a study that is cut short has
    every row; but first come the rows that others need.

    Raises:
        FileNotFoundError: no such file, or no such base.
        ValueError: what a study may not say, or a change that does not fit the base.
    """
    study = Config.fromfile(file)
    _check(str(file), {key: v for key, v in study.items() if not key.startswith('_')}, KEYS)
    rows: dict[str, Any] = study.get('rows', {})
    for name, row in rows.items():
        if not isinstance(row, dict) or Path(name).name != name:
            raise ValueError(f'row {name!r} must be a dict, and its name fit for a folder')
        _check(f'row {name!r}', row, ROW_KEYS)
        for key in ('base', 'seeds'):
            if row.setdefault(key, study.get(key)) is None:
                raise ValueError(f'row {name!r} has no {key}, and neither has {file}')
        if not all(isinstance(seed, int) for seed in row['seeds']):
            raise ValueError(f'seeds of row {name!r} must be whole numbers, not {row["seeds"]}')
    needed = {row.needs for row in rows.values() if 'needs' in row}
    for name in needed:
        if name not in rows or 'needs' in rows[name] or not rows[name].seeds:
            raise ValueError(f'needs={name!r} must name a row that has seeds and needs none itself')
    seeds = dict.fromkeys(seed for row in rows.values() for seed in row.seeds)
    order = [(name, seed) for seed in seeds for name in rows if seed in rows[name].seeds]
    bases = {base: Config.fromfile(file.parent / base) for base in {r.base for r in rows.values()}}
    runs: list[Run] = []
    for name, seed in sorted(order, key=lambda pair: pair[0] not in needed):
        row, cfg = rows[name], copy.deepcopy(bases[rows[name].base])
        seeded = dict(randomness=dict(seed=seed))
        try:
            for change in (study.get('common', {}), row.get('change', {}), seeded):
                cfg.merge_from_dict(copy.deepcopy(change))
        except (KeyError, TypeError) as error:
            raise ValueError(f'row {name!r} does not fit {row.base}: {error}') from error
        runs.append(Run(name, seed, out, cfg, tuple(r for r in runs if r.row == row.get('needs'))))
    if not runs:
        raise ValueError(f'{file} must have rows=dict(NAME=dict(...), ...) with seeds')
    memory = study.get('memory')
    judge = Judge(
        [str(argument) for argument in study.get('judge', [])],
        None if memory is None else [str(argument) for argument in memory],
    )
    return Study(runs, list(rows), judge)


def difference(old: dict, new: dict) -> str:
    """The first place where two configs differ; '' if none."""
    before, now = _flat(old), _flat(new)
    for place in [*before, *now]:
        pair = before.get(place, 'nothing'), now.get(place, 'nothing')
        if pair[0] != pair[1]:
            return f'{place} was {pair[0]:.200}, now {pair[1]:.200}'
    return ''


def _flat(value: Any, place: str = '') -> dict[str, str]:
    if not value or not isinstance(value, (dict, *LIST)):
        return {place: repr(value)}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    parts = (_flat(part, f'{place}.{key}'.lstrip('.')) for key, part in items)
    return {place: leaf for part in parts for place, leaf in part.items()}


def _check(where: str, values: dict[str, Any], kinds: dict[str, Any]) -> None:
    for key, value in values.items():
        if key not in kinds:
            raise ValueError(f'{where} has {key!r}, but may have {sorted(kinds)}')
        if not isinstance(value, kinds[key]):
            kind = 'list' if kinds[key] is LIST else kinds[key].__name__
            raise ValueError(f'{key} of {where} must be a {kind}, but is {value!r}')


def _read(file: Path) -> Any:
    # Damaged is as good as absent: that step is then done again.
    try:
        return read_json(file, '')
    except (OSError, ValueError):
        return None

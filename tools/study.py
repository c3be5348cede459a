"""Train and judge a grid of configs, overrides and seeds; stop and go on at any time.

FILE is a config with

    base = '../camvid/ce.py'             the config of every row, seen from FILE
    common = dict(...)                   what every row changes in it
    rows = dict(                         a row: what it changes, and on request its own base, seeds
        ce=dict(),
        ltmi=dict(base='../camvid/ltmi.py', change=dict(...), seeds=(0,)),
        taught=dict(needs='ce', change=dict(...)),    begins when all of that row is finished
    )
    seeds = (0, 1, 2)
    judge = ['--select', 'val', '--report', 'test']    for tools/choose_operating_point.py

Changes are written as in a config that inherits, ``_delete_`` included; other names begin with
``_``. Each run has its config in OUT/configs and a folder OUT/runs/ROW-seedN with logs, checkpoints
and operating point. What is finished stays; the same command resumes what is not. Several processes
may share a study, one for each GPU for instance: a run is locked by whoever trains it. At the end,
and with --tables at any time, OUT/comparison has a table and plots of all finished runs for each
way to read the posterior, as tools/analysis/compare_runs.py makes them; differences are to the
first row.
"""

from __future__ import annotations

import argparse
import copy
import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree
from typing import IO, Any, NamedTuple

from mmengine.config import Config

from mmseg_ltmi.evaluation.per_class import COLUMNS
from mmseg_ltmi.evaluation.run_comparison import across_readings, by_name, read_run
from mmseg_ltmi.utils.comparison import compare

TOOLS = Path(__file__).parent
KEYS = {'base', 'common', 'rows', 'seeds', 'judge'}
ROW_KEYS = {'base', 'change', 'seeds', 'needs'}
FINISHED = 'finished.json'


class Run(NamedTuple):
    """One training run.

    Attributes:
        row: name of the row.
        seed: of the run.
        folder: OUT/runs/ROW-seedN.
        file: where its config is, once it is begun.
        config: all of it.
        needs: runs that must be finished before it begins.
    """

    row: str
    seed: int
    folder: Path
    file: Path
    config: Config
    needs: tuple[Run, ...] = ()

    @property
    def name(self) -> str:
        """ROW-seedN."""
        return self.folder.name

    def is_finished(self, judge: list[str]) -> bool:
        """Whether it is trained, and judged by these arguments."""
        file = self.folder / FINISHED
        return file.exists() and json.loads(file.read_text()) == dict(judge=list(judge))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('file', metavar='FILE', type=Path)
    parser.add_argument('--out', type=Path, help='default: work_dirs/NAME of FILE')
    parser.add_argument('--workers', type=int, default=1, help='runs at a time')
    parser.add_argument('--rows', nargs='+', help='train these rows only')
    parser.add_argument('--seeds', nargs='+', type=int, help='train these seeds only')
    parser.add_argument('--tables', action='store_true', help='train nothing, make the tables')
    args = parser.parse_args()
    if args.workers < 1:
        parser.error('--workers takes 1 or more')
    out = args.out or Path('work_dirs', args.file.stem)
    signal.signal(signal.SIGTERM, stop)
    failed = []
    try:
        study = read_study(args.file)
        runs = plan(study, args.file.parent, out)
        judge = study.get('judge', [])
        if not args.tables:
            wanted = list(chosen(runs, args.rows, args.seeds))
            refuse_changes(wanted)
            failed = Workers(judge, args.workers).work(wanted)
        make_tables(finished(runs, study), out)
    except (OSError, ValueError) as error:
        failed.append(str(error))
    except KeyboardInterrupt:
        sys.exit('stopped; the same command goes on from the last checkpoints')
    if failed:
        sys.exit('\n'.join(failed))


def stop(*_: Any) -> None:
    """SIGTERM ends a study as Ctrl-C does, also where a shell made it ignore that."""
    raise KeyboardInterrupt


def read_study(file: Path) -> Config:
    """The study's file, with its rows complete.

    Raises:
        ValueError: no rows; keys that a study or a row does not have, or a missing one.
    """
    study = Config.fromfile(file)
    rows = study.get('rows')
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise ValueError(f'{file} must have rows=dict(NAME=dict(...), ...)')
    for where, keys, known in (
        (str(file), {key for key in study if not key.startswith('_')}, KEYS),
        *((f'row {name!r}', set(row), ROW_KEYS) for name, row in rows.items()),
    ):
        if keys - known:
            raise ValueError(f'{where} has {sorted(keys - known)}, but may have {sorted(known)}')
    for name, row in rows.items():
        for key in ('base', 'seeds'):
            if key not in row and key not in study:
                raise ValueError(f'row {name!r} has no {key}, and neither has {file}')
            row.setdefault(key, study.get(key))
        if not isinstance(row.seeds, (list, tuple)):
            raise ValueError(f'seeds of row {name!r} must be a list, but are {row.seeds!r}')
        needed = row.get('needs')
        if needed is not None and (needed not in rows or 'needs' in rows[needed]):
            raise ValueError(f'row {name!r} needs {needed!r}: name a row that needs none itself')
    return study


def plan(study: Config, folder: Path, out: Path) -> list[Run]:
    """All runs, seed by seed: a study that is cut short has every row at the first seeds.

    What others need comes first.

    Raises:
        ValueError: a change that does not fit the row's base.
    """
    bases = {base: Config.fromfile(folder / base) for base in {r.base for r in study.rows.values()}}
    rows = study.rows
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


def chosen(runs: list[Run], rows: list[str] | None, seeds: list[int] | None) -> Iterator[Run]:
    """The runs of some rows and seeds; None takes all.

    Raises:
        ValueError: a row that is not there.
    """
    known = list(dict.fromkeys(run.row for run in runs))
    unknown = set(rows or ()) - set(known)
    if unknown:
        raise ValueError(f'no row {sorted(unknown)}: the study has {known}')
    for run in runs:
        if (rows is None or run.row in rows) and (seeds is None or run.seed in seeds):
            yield run


def refuse_changes(runs: list[Run]) -> None:
    """Raise ValueError for a run that was begun with another config."""
    for run in (run for run in runs if run.file.exists()):
        changed = difference(Config.fromfile(run.file).to_dict(), run.config.to_dict())
        if changed:
            raise ValueError(
                f'{run.name} was begun with another config, {changed}: remove {run.folder} and '
                f'{run.file} to train it again, or give the row another name'
            )


def difference(old: Any, new: Any, place: str = '') -> str:
    """The first place where two configs differ; '' if none."""
    found: Iterator[str] = iter(())
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) ^ set(new)):
            return f'{place}.{key}'.lstrip('.') + (' is gone' if key in old else ' is new')
        found = (difference(old[key], new[key], f'{place}.{key}') for key in old)
    elif isinstance(old, (list, tuple)) and type(old) is type(new) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        found = (difference(a, b, f'{place}[{i}]') for i, (a, b) in pairs)
    elif old != new:
        return f'{place.lstrip(".")}={old!r:.200}, now {new!r:.200}'
    return next((text for text in found if text), '')


class Workers:
    """Trains and judges runs, several at a time.

    Args:
        judge: arguments of tools/choose_operating_point.py.
        number: runs at a time.
    """

    def __init__(self, judge: list[str], number: int) -> None:
        self.judge = judge
        self.number = number
        # Beside each other, each takes its share of the cores.
        threads = str(max(1, (os.cpu_count() or 1) // number))
        self.environment = {'OMP_NUM_THREADS': threads, **os.environ}
        self.children: set[subprocess.Popen] = set()
        self.stopped = threading.Event()
        self.futures: dict[str, Future[str]] = {}

    def work(self, runs: list[Run]) -> list[str]:
        """Do them all; names of those that did not finish, and why."""
        with ThreadPoolExecutor(self.number) as pool:
            try:
                for run in runs:
                    self.futures[run.name] = pool.submit(self.do, run)
                return [reason for run in runs if (reason := self.futures[run.name].result())]
            except BaseException:
                self.stopped.set()
                for child in list(self.children):
                    child.terminate()
                raise

    def do(self, run: Run) -> str:
        """Train and judge one; why it did not finish."""
        try:
            return self._do(run)
        except Exception as error:  # the other runs go on
            return f'{run.name}: {type(error).__name__}: {error}'

    def _do(self, run: Run) -> str:
        if self.stopped.is_set() or run.is_finished(self.judge):
            return ''
        for other in run.needs:
            if other.name in self.futures:
                self.futures[other.name].result()
            if not other.is_finished(self.judge):
                return f'{run.name}: needs {other.name}, which is not finished'
        run.folder.mkdir(parents=True, exist_ok=True)
        with (run.folder / 'lock').open('w') as lock:
            if not locked(lock):
                return f'{run.name}: another process is at it'
            if run.is_finished(self.judge):
                return ''
            begin(run)
            for name in ('train', 'judge'):
                if name == 'train' and (run.folder / FINISHED).exists():
                    continue
                print(f'{run.name}: {name}', flush=True)
                start, log = time.time(), run.folder / f'{name}.log'
                if self.call(self.command(name, run), log, lock.fileno()):
                    return '' if self.stopped.is_set() else f'{run.name}: see {log}'
                print(f'{run.name}: {name} took {time.time() - start:.0f} s', flush=True)
            (run.folder / FINISHED).write_text(json.dumps(dict(judge=list(self.judge))))
        return ''

    def command(self, name: str, run: Run) -> list[str]:
        """The tool's command line."""
        place = [str(run.file), '--work-dir', str(run.folder)]
        if name == 'train':
            return ['train.py', *place, '--resume']
        checkpoint = (run.folder / 'last_checkpoint').read_text().strip()
        rmtree(run.folder / 'operating_point', ignore_errors=True)
        point = ['--out', str(run.folder / 'operating_point')]
        return ['choose_operating_point.py', *place, checkpoint, *point, *self.judge]

    def call(self, command: list[str], log: Path, lock: int) -> int:
        """Run a tool; its exit status."""
        with log.open('a') as file:
            # The child holds the lock as well: it outlives a study that is killed.
            child = subprocess.Popen(
                [sys.executable, TOOLS / command[0], *command[1:]],
                stdout=file, stderr=subprocess.STDOUT, env=self.environment, pass_fds=[lock],
                start_new_session=True,
            )  # fmt: skip
            self.children.add(child)
            if self.stopped.is_set():
                child.terminate()
            status = child.wait()
            self.children.discard(child)
        return status


def locked(file: IO) -> bool:
    """Lock it; whether that went well. The children of a study that was stopped take a moment."""
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.5)
    return False


def begin(run: Run) -> None:
    """Write the run's config, if it is not there."""
    if not run.file.exists():
        run.file.parent.mkdir(exist_ok=True)
        unfinished = run.file.with_suffix('.tmp.py')
        run.config.dump(unfinished)
        unfinished.replace(run.file)


def finished(runs: list[Run], study: Config) -> list[Run]:
    """The finished runs in the order of the file, whose first row the others are compared with."""
    rows, judge = list(study.rows), study.get('judge', [])
    return sorted(
        (run for run in runs if run.is_finished(judge)), key=lambda run: rows.index(run.row)
    )


def make_tables(runs: list[Run], out: Path) -> None:
    """Compare runs for each way to read the posterior."""
    readings: dict[str, list[Any]] = {}
    for trained in runs:
        for file in sorted((trained.folder / 'operating_point' / 'per_class').glob('*.json')):
            found = read_run(file)._replace(name=trained.row, seed=str(trained.seed))
            readings.setdefault(file.stem, []).append(found)
    groups = {reading: by_name(found) for reading, found in readings.items()}
    for reading, group in groups.items():
        print(f'\n## {reading}\n\n{compare(group, out / "comparison" / reading)}')
    if groups:
        table = across_readings(groups)
        (out / 'comparison' / 'readings.md').write_text(table + '\n')
        print(f'\n## All readings\n\n{table}')
        with (out / 'comparison' / 'runs.csv').open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(['reading', 'row', 'seed', *COLUMNS])
            for reading, found in readings.items():
                for run in found:
                    writer.writerow([reading, run.name, run.seed, *run.scores.values()])


if __name__ == '__main__':
    main()

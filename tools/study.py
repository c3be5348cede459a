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
first row. Under another judge all runs are judged anew. A run of another config than FILE says now,
or of an earlier run that it needed, is neither gone on with nor compared.
"""

from __future__ import annotations

import argparse
import copy
import csv
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from typing import IO, Any, NamedTuple

from mmengine.config import Config

from mmseg_ltmi.evaluation.per_class import COLUMNS
from mmseg_ltmi.evaluation.run_comparison import across_readings, by_name, read_run
from mmseg_ltmi.json_file import read_json, write_json
from mmseg_ltmi.utils.comparison import compare

TOOLS = Path(__file__).parent
KEYS = {'base', 'common', 'rows', 'seeds', 'judge'}
ROW_KEYS = {'base', 'change', 'seeds', 'needs'}
FINISHED = 'finished.json'
"""In a trained run's folder: the arguments it was judged by, or None before."""
BEGUN = 'begun.json'
"""In a run's folder: when it was begun, and when those that it needs were."""
LOCK = 'lock'
CHECKPOINT = 'last_checkpoint'
POINT = 'operating_point'


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
        return self.record(FINISHED) == dict(judge=list(judge))

    def record(self, name: str) -> dict:
        """A file of its folder; {} without one."""
        file = self.folder / name
        return read_json(file, 'remove it, and the run goes on') if file.exists() else {}

    def outdated(self) -> str:
        """In what it is not the run that the study has now; '' if it is, or is not begun."""
        if self.file.exists():
            changed = difference(Config.fromfile(self.file).to_dict(), self.config.to_dict())
            if changed:
                return f'was begun with another config, {changed}'
        then = self.record(BEGUN).get('needs', {})
        for run in self.needs:
            now = run.record(BEGUN).get('time')
            if then.get(run.name, now) != now:
                return f'was begun with an earlier {run.name}'
        return ''


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
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup makes it
        signal.signal(signal.SIGHUP, stop)
    failed = []
    try:
        study = read_study(args.file)
        runs = plan(study, args.file.parent, out)
        if not args.tables:
            wanted = list(chosen(runs, args.rows, args.seeds))
            refuse_changes(wanted)
            failed = Workers(study.judge, args.workers).work(wanted)
        make_tables(finished(runs, study), out)
    except (OSError, ValueError) as error:
        failed.append(str(error))
    except KeyboardInterrupt:
        sys.exit('stopped; the same command goes on from the last checkpoints')
    if failed:
        sys.exit('\n'.join(failed))


def stop(*_: Any) -> None:
    """SIGTERM and a terminal that closes end a study as Ctrl-C does, even where that is ignored."""
    raise KeyboardInterrupt


def read_study(file: Path) -> Config:
    """The study's file, with its rows and its judge complete.

    Raises:
        ValueError: no rows; keys that a study or a row does not have, or a missing one; a judge
            that is no list of arguments.
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
    judge = study.get('judge', [])
    if not isinstance(judge, (list, tuple)) or not all(
        isinstance(argument, (str, int, float)) for argument in judge
    ):
        raise ValueError(f"judge of {file} must be a list as ['--folds', '5'], but is {judge!r}")
    study.judge = [str(argument) for argument in judge]
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
        ValueError: a row or a seed that is not there.
    """
    for what, wanted in (('row', rows), ('seed', seeds)):
        known = list(dict.fromkeys(getattr(run, what) for run in runs))
        unknown = set(wanted or ()) - set(known)
        if unknown:
            raise ValueError(f'no {what} {sorted(unknown)}: the study has {known}')
    for run in runs:
        if (rows is None or run.row in rows) and (seeds is None or run.seed in seeds):
            yield run


def refuse_changes(runs: Iterable[Run]) -> None:
    """Raise ValueError for a run, or one that it needs, that the study does not have any more."""
    for run in {run.name: run for wanted in runs for run in (*wanted.needs, wanted)}.values():
        reason = run.outdated()
        if reason:
            raise ValueError(
                f'{run.name} {reason}: remove {run.folder} and {run.file} to train it again, or '
                'give the row another name'
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
                reasons = [(run, self.futures[run.name].result()) for run in runs]
            except BaseException:
                self.stopped.set()
                for child in list(self.children):
                    child.terminate()
                raise
        # Another process may have finished what it was at.
        return [reason for run, reason in reasons if reason and not run.is_finished(self.judge)]

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
            while in_use(other) and not self.stopped.wait(1):
                pass  # another process is at it
            if not other.is_finished(self.judge):
                return f'{run.name}: needs {other.name}, which is not finished'
        run.folder.mkdir(parents=True, exist_ok=True)
        with (run.folder / LOCK).open('w') as lock:
            if not locked(lock):
                return f'{run.name}: another process is at it'
            if run.is_finished(self.judge):
                return ''
            begin(run)
            return self.train_run(run, lock) or self.judge_run(run, lock)

    def train_run(self, run: Run, lock: IO) -> str:
        """Train a run, if it is not trained; why it did not finish."""
        if (run.folder / FINISHED).exists():
            return ''
        reason = self.step('train', run, lock, ['train.py', '--resume'])
        if reason:
            return reason
        if not (run.folder / CHECKPOINT).exists():
            return f'{run.name}: {run.file} leaves no checkpoint behind: give it a CheckpointHook'
        write_json(run.folder / FINISHED, dict(judge=None))
        return ''

    def judge_run(self, run: Run, lock: IO) -> str:
        """Judge a trained run; why it did not finish."""
        # It names the checkpoint where it was written; the folder may have been moved.
        checkpoint = Path((run.folder / CHECKPOINT).read_text().strip()).name
        # What another judge found stays until there is something to put in its place.
        new, old = run.folder / 'judging', run.folder / POINT
        rmtree(new, ignore_errors=True)
        command = ['choose_operating_point.py', run.folder / checkpoint, '--out', new, *self.judge]
        reason = self.step('judge', run, lock, command)
        if not reason:
            write_json(run.folder / FINISHED, dict(judge=None))
            rmtree(old, ignore_errors=True)
            new.replace(old)
            write_json(run.folder / FINISHED, dict(judge=self.judge))
        return reason

    def step(self, name: str, run: Run, lock: IO, command: list[Any]) -> str:
        """Run a tool with the run's config and folder; why it did not finish."""
        print(f'{run.name}: {name}', flush=True)
        start, log = time.time(), run.folder / f'{name}.log'
        tool, *arguments = map(str, command)
        place = [str(run.file), '--work-dir', str(run.folder)]
        if self.call([tool, *place, *arguments], log, lock.fileno()):
            return 'stopped' if self.stopped.is_set() else f'{run.name}: see {log}'
        print(f'{run.name}: {name} took {time.time() - start:.0f} s', flush=True)
        return ''

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


def locked(file: IO, patience: float = 10) -> bool:
    """Lock it; whether that went well. The children of a study that was stopped take a moment."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.5)


def in_use(run: Run) -> bool:
    """Whether a process is at it."""
    try:
        with (run.folder / LOCK).open('r+') as lock:
            return not locked(lock, patience=0)
    except FileNotFoundError:
        return False


def begin(run: Run) -> None:
    """Write the run's config and what it is begun with, if they are not there.

    Raises:
        ValueError: a config that a file cannot hold.
    """
    if not run.file.exists():
        run.file.parent.mkdir(exist_ok=True)
        unfinished = run.file.with_suffix('.tmp.py')
        run.config.dump(unfinished)
        try:
            changed = difference(run.config.to_dict(), Config.fromfile(unfinished).to_dict())
        except Exception as error:  # a NameError for instance, of inf
            changed = str(error)
        if changed:
            raise ValueError(
                f'{unfinished} does not hold what the study says ({changed}): a config takes '
                'finite numbers, texts, lists and dicts'
            )
        unfinished.replace(run.file)
    if not any((run.folder / name).exists() for name in (BEGUN, FINISHED)):
        needs = {other.name: other.record(BEGUN).get('time') for other in run.needs}
        write_json(run.folder / BEGUN, dict(time=datetime.now().isoformat(), needs=needs))


def finished(runs: list[Run], study: Config) -> list[Run]:
    """The finished runs in the order of the file, whose first row the others are compared with.

    Those that are not the study's any more are named and left out.
    """
    found = []
    for run in sorted(runs, key=lambda run: list(study.rows).index(run.row)):
        if run.is_finished(study.judge):
            reason = run.outdated()
            if reason:
                print(f'left out of the tables: {run.name} {reason}', file=sys.stderr)
            else:
                found.append(run)
    return found


def make_tables(runs: list[Run], out: Path) -> None:
    """Compare runs for each way to read the posterior.

    Raises:
        ValueError: none.
    """
    if not runs:
        raise ValueError(f'{out} has no finished run of this study and its judge to compare')
    readings: dict[str, list[Any]] = {}
    for trained in runs:
        for file in sorted((trained.folder / POINT / 'per_class').glob('*.json')):
            found = read_run(file)._replace(name=trained.row, seed=str(trained.seed))
            readings.setdefault(file.stem, []).append(found)
    groups = {reading: by_name(found) for reading, found in readings.items()}
    for reading, group in groups.items():
        print(f'\n## {reading}\n\n{compare(group, out / "comparison" / reading)}')
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

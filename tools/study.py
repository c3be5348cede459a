"""Train and judge a grid of configs, overrides and seeds; stop and go on at any time.

FILE is a config with

    base = '../camvid/ce.py'             the config of every row, seen from FILE
    common = dict(...)                   what every row changes in it
    rows = dict(                         a row: what it changes, and on request its own base, seeds
        ce=dict(),
        ltmi=dict(base='../camvid/ltmi.py', change=dict(...), seeds=(0,)),
    )
    seeds = (0, 1, 2)
    judge = ['--select', 'val', '--report', 'test']    for tools/choose_operating_point.py

Changes are written as in a config that inherits, ``_delete_`` included; other names begin with
``_``. Each run has its config in
OUT/configs and a folder OUT/runs/ROW-seedN with logs, checkpoints and operating point. What is
finished stays; the same command resumes what is not. Several processes may share a study, one for
each GPU for instance: a run is locked by whoever trains it. At the end, and with --tables at any
time, compare_runs makes a table and plots of the finished runs for each way to read the posterior.
"""

from __future__ import annotations

import argparse
import copy
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copyfile
from typing import Any, NamedTuple

from mmengine.config import Config

from mmseg_ltmi.evaluation.run_comparison import across_readings, by_name, read_run
from mmseg_ltmi.utils.comparison import compare

TOOLS = Path(__file__).parent
KEYS = {'base', 'common', 'rows', 'seeds', 'judge'}
FINISHED = 'finished.json'


class Run(NamedTuple):
    """One training run.

    Attributes:
        name: ROW-seedN.
        folder: of its own.
        file: where its config is, once it is begun.
        config: all of it.
    """

    name: str
    folder: Path
    file: Path
    config: Config


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('file', metavar='FILE', type=Path)
    parser.add_argument('--out', type=Path, help='default: work_dirs/NAME of FILE')
    parser.add_argument('--workers', type=int, default=1, help='runs at a time')
    parser.add_argument('--rows', nargs='+', help='these rows only')
    parser.add_argument('--seeds', nargs='+', type=int, help='these seeds only')
    parser.add_argument('--tables', action='store_true', help='train nothing, make the tables')
    args = parser.parse_args()
    out = args.out or Path('work_dirs', args.file.stem)
    signal.signal(signal.SIGTERM, stop)
    try:
        study = read_study(args.file)
        runs = [
            run
            for run in plan(study, args.file.parent, out, args.rows)
            if args.seeds is None or run.config.randomness.seed in args.seeds
        ]
        if not args.tables:
            refuse_changes(runs)
            failed = Workers(study.get('judge', []), args.workers).work(runs)
        make_tables(runs, out)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit('stopped; the same command goes on from the last checkpoints')
    if not args.tables and failed:
        sys.exit('\n'.join(['not finished:', *failed]))


def stop(*_: Any) -> None:
    """SIGTERM ends a study as Ctrl-C does, also where a shell made it ignore that."""
    raise KeyboardInterrupt


def read_study(file: Path) -> Config:
    """The study's file, with its rows complete.

    Raises:
        ValueError: keys that a study or a row does not have, or a missing one.
    """
    study = Config.fromfile(file)
    for where, keys, known in (
        (str(file), {key for key in study if not key.startswith('_')}, KEYS),
        *((f'row {n!r}', set(row), {'base', 'change', 'seeds'}) for n, row in study.rows.items()),
    ):
        if keys - known:
            raise ValueError(f'{where} has {sorted(keys - known)}, but may have {sorted(known)}')
    for name, row in study.rows.items():
        for key in ('base', 'seeds'):
            if key not in row and key not in study:
                raise ValueError(f'row {name!r} has no {key}, and neither has {file}')
            row.setdefault(key, study.get(key))
    return study


def plan(study: Config, folder: Path, out: Path, wanted: list[str] | None) -> Iterator[Run]:
    """The runs, seed by seed, so that a study that is cut short has whole rows.

    Raises:
        ValueError: a row that is not there.
    """
    unknown = set(wanted or ()) - set(study.rows)
    if unknown:
        raise ValueError(f'no row {sorted(unknown)}: the study has {list(study.rows)}')
    rows = {n: row for n, row in study.rows.items() if wanted is None or n in wanted}
    seeds = dict.fromkeys(seed for row in rows.values() for seed in row.seeds)
    bases = {base: Config.fromfile(folder / base) for base in {r.base for r in rows.values()}}
    for seed in seeds:
        for name, row in rows.items():
            if seed not in row.seeds:
                continue
            cfg = copy.deepcopy(bases[row.base])
            for change in (study.get('common', {}), row.get('change', {})):
                cfg.merge_from_dict(copy.deepcopy(change))
            cfg.merge_from_dict(dict(randomness=dict(seed=seed)))
            run_name = f'{name}-seed{seed}'
            # Not in the run's folder, where mmengine writes what it makes of a config.
            run = Run(run_name, out / 'runs' / run_name, out / 'configs' / f'{run_name}.py', cfg)
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
    if isinstance(old, dict) and isinstance(new, dict) and set(old) == set(new):
        found = (difference(old[key], new[key], f'{place}.{key}') for key in old)
        return next((text for text in found if text), '')
    return '' if old == new else f'{place.lstrip(".")}={old!r:.200}, now {new!r:.200}'


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

    def work(self, runs: list[Run]) -> list[str]:
        """Do them all; names of those that did not finish, and why."""
        with ThreadPoolExecutor(self.number) as pool:
            try:
                return [reason for reason in pool.map(self.do, runs) if reason]
            except BaseException:
                self.stopped.set()
                for child in list(self.children):
                    child.terminate()
                raise

    def do(self, run: Run) -> str:
        """Train and judge one; why it did not finish."""
        if self.stopped.is_set() or (run.folder / FINISHED).exists():
            return ''
        run.folder.mkdir(parents=True, exist_ok=True)
        with (run.folder / 'lock').open('w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return f'{run.name}: another process is at it'
            run.file.parent.mkdir(exist_ok=True)
            run.config.dump(run.file)
            seconds = {}
            for name in ('train', 'judge'):
                print(f'{run.name}: {name}', flush=True)
                start, log = time.time(), run.folder / f'{name}.log'
                if self.call(self.command(name, run), log, lock.fileno()):
                    return '' if self.stopped.is_set() else f'{run.name}: see {log}'
                seconds[name] = round(time.time() - start, 1)
            (run.folder / FINISHED).write_text(json.dumps(dict(seconds=seconds)))
            print(f'{run.name}: finished {seconds}', flush=True)
        return ''

    def command(self, name: str, run: Run) -> list[str]:
        """The tool's command line."""
        place = [str(run.file), '--work-dir', str(run.folder)]
        if name == 'train':
            return ['train.py', *place, '--resume']
        checkpoint = (run.folder / 'last_checkpoint').read_text().strip()
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


def make_tables(runs: list[Run], out: Path) -> None:
    """Compare the finished runs for each way to read the posterior."""
    readings: dict[str, list[Path]] = {}
    for run in runs:
        if not (run.folder / FINISHED).exists():
            continue
        for file in sorted((run.folder / 'operating_point' / 'per_class').glob('*.json')):
            target = out / 'readings' / file.stem / f'{run.name}.json'
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(file, target)
            readings.setdefault(file.stem, []).append(target)
    groups = {}
    for reading, files in readings.items():
        found = [read_run(file) for file in files]
        groups[reading] = by_name(found)
        print(f'\n## {reading}\n\n{compare(found, out / "comparison" / reading)}')
    if groups:
        table = across_readings(groups)
        (out / 'comparison' / 'readings.md').write_text(table + '\n')
        print(f'\n## All readings\n\n{table}')


if __name__ == '__main__':
    main()

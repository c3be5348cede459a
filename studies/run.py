"""Train and judge every row of a study at every seed; the same command goes on after a stop.

README.md beside this file tells what FILE may say. Finished runs are skipped and unfinished ones
resumed from their last checkpoint. At the end, and with --tables at any time, OUT/comparison has a
table and plots of all finished runs for each way to read the posterior, and runs.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from threading import Event
from typing import Any

from filelock import FileLock, Timeout
from study_runs import Judge, Run, Study, read_study
from study_tables import make_tables

from mmseg_ltmi.core.json_file import write_json
from mmseg_ltmi.core.progress import progress_bar

MODULE = 'mmseg_ltmi.cli'
# A training that outlives a killed study has this lock, so that the next study starts no second.
LOCKED = """
import runpy, sys, filelock
with filelock.FileLock(sys.argv.pop(1), timeout=0):
    runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('file', metavar='FILE', type=Path)
    parser.add_argument('--out', type=Path, help='default: work_dirs/NAME of FILE')
    parser.add_argument('--workers', type=int, default=1, help='runs at a time')
    parser.add_argument('--rows', nargs='+', help='train these rows only')
    parser.add_argument('--seeds', nargs='+', type=int, help='train these seeds only')
    parser.add_argument('--tables', action='store_true', help='train nothing, make the tables')
    args = parser.parse_args(arguments)
    if args.workers < 1:
        parser.error('--workers takes 1 or more')
    out = args.out or Path('work_dirs', args.file.stem)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a study as Ctrl-C does
    failures = []
    try:
        study = read_study(args.file, out)
        if not args.tables:
            failures = Workers(study.judge, args.workers).work(chosen(study, args.rows, args.seeds))
        print(f'\n{make_tables(study, out / "comparison")}')
    except (OSError, ValueError) as error:
        failures.append(str(error))
    except KeyboardInterrupt:
        failures = ['stopped; the same command goes on from the last checkpoints']
    if failures:
        sys.exit('\n'.join(failures))


def chosen(study: Study, rows: list[str] | None, seeds: list[int] | None) -> list[Run]:
    """The runs of some rows and seeds; None takes all.

    Raises:
        ValueError: a row or a seed that has no run among them.
    """
    runs = [r for r in study.runs if r.row in (rows or study.rows)]
    runs = [r for r in runs if seeds is None or r.seed in seeds]
    missing = {*(rows or ()), *(seeds or ())} - {r.row for r in runs} - {r.seed for r in runs}
    if missing:
        raise ValueError(f'no such run in the study: {sorted(map(str, missing))}')
    return runs


class Workers:
    """Trains and judges runs, a number at a time, by the command line of mmseg_ltmi."""

    def __init__(self, judge: Judge, number: int) -> None:
        self.judge = judge
        self.pool = ThreadPoolExecutor(number)
        # Beside each other, each has its share of the cores.
        threads = max(1, (os.cpu_count() or 1) // number)
        self.environment = {'OMP_NUM_THREADS': str(threads), **os.environ}
        self.futures: dict[str, Future[str]] = {}
        self.children: set[subprocess.Popen] = set()
        self.stopped = Event()

    def work(self, runs: list[Run]) -> list[str]:
        """Finish the runs; which ones failed, and why."""
        waiting = {run.name for run in runs if not run.is_finished(self.judge)}
        with progress_bar(len(waiting), 'runs') as advance, self.pool:
            try:
                for run in runs:
                    self.futures[run.name] = future = self.pool.submit(self.finish, run)
                    if run.name in waiting:
                        future.add_done_callback(lambda _: advance())
                return [reason for f in self.futures.values() if (reason := f.result())]
            except BaseException:
                self.stopped.set()
                for child in list(self.children):
                    child.terminate()
                raise

    def finish(self, run: Run) -> str:
        """Do what is missing of a run; why that failed."""
        try:
            for other in () if run.trained else run.needs:
                if other.name in self.futures:
                    self.futures[other.name].result()
                if not other.trained:
                    raise ValueError(f'it needs {other.name}, which is not trained')
            run.file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(run.file.with_suffix('.lock'), timeout=0):
                if not self.stopped.is_set():
                    self.train_and_judge(run)
            return ''
        except Timeout:
            reason = f'{run.name}: another process is at it'
        except Exception as error:  # the other runs go on
            reason = f'{run.name}: {error}'
        print(reason, flush=True)
        return reason

    def train_and_judge(self, run: Run) -> None:
        """Raise an error that says what went wrong, if anything does."""
        if reason := run.outdated():
            raise ValueError(reason)
        run.begin()
        if not run.trained:
            command: list[Any] = ['train', run.file, '--work-dir', run.folder]
            if last := run.checkpoint():
                # mmengine resumes from where this leads, unless the config has a load_from.
                (run.folder / 'last_checkpoint').write_text(str(last.resolve()), encoding='utf-8')
                command += ['--resume', '--cfg-options', 'load_from=None']
            self.call(run, command)
            write_json(run.folder / 'trained.json', datetime.now().isoformat())
        if not run.is_finished(self.judge):
            if (last := run.checkpoint()) is None:
                raise ValueError('it has no checkpoint: does its config have a CheckpointHook?')
            # An earlier judgement stays until there is a new one.
            new = run.folder / 'new_operating_point'
            rmtree(new, ignore_errors=True)
            arguments: list[Any] = list(self.judge.choose)
            if self.judge.memory is not None:
                file = run.folder / 'class_memory.pth'
                self.call(
                    run, ['memory', run.file, last, '--out', file, '--force', *self.judge.memory]
                )
                arguments += ['--memory', file]
            self.call(run, ['choose', run.file, last, '--out', new, '--force', *arguments])
            (new / 'judge.json').write_text(json.dumps(self.judge.arguments), encoding='utf-8')
            rmtree(run.judgement, ignore_errors=True)
            new.rename(run.judgement)

    def call(self, run: Run, command: list[Any]) -> None:
        """Run a command, whose output goes to a log in the run's folder."""
        print(f'{run.name}: {command[0]}', flush=True)
        log, lock = run.folder / f'{command[0]}.log', run.file.with_suffix('.child.lock')
        arguments = [sys.executable, '-c', LOCKED, lock, MODULE, *command]
        with log.open('a', encoding='utf-8') as file:
            child = subprocess.Popen(
                arguments, stdout=file, stderr=subprocess.STDOUT, env=self.environment
            )
            self.children.add(child)
            if self.stopped.is_set():
                child.terminate()
            status = child.wait()
            self.children.discard(child)
        if status:
            raise RuntimeError(f'{command[0]} ended with status {status}, see {log}')


if __name__ == '__main__':
    main()

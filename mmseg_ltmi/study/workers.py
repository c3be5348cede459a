"""Trains and judges runs by the tools, several at a time and beside other processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from shutil import move
from tempfile import TemporaryDirectory
from typing import IO, Any

from .lock import in_use, locked
from .run import CHECKPOINT, Run, holds_points

LOCK = 'lock'
PATIENCE = 30.0
"""Seconds that another process may take until it begins, and from one run to the next."""


class Workers:
    """Trains and judges runs, several at a time.

    Args:
        tools: folder with train.py and choose_operating_point.py.
        judge: arguments of choose_operating_point.py.
        number: runs at a time.
    """

    def __init__(self, tools: Path, judge: list[str], number: int) -> None:
        self.tools = tools
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
        for other in () if run.is_trained else run.needs:
            if not self.wait_for(other):
                return f'{run.name}: needs {other.name}, which is not finished'
        run.folder.mkdir(parents=True, exist_ok=True)
        with (run.folder / LOCK).open('w') as lock:
            if not locked(lock):  # the children of a study that was stopped take a moment
                return f'{run.name}: another process is at it'
            if self.stopped.is_set() or run.is_finished(self.judge):
                return ''
            run.begin()
            return self.train_run(run, lock) or self.judge_run(run, lock)

    def wait_for(self, run: Run) -> bool:
        """Whether a run that is needed is finished, once no process may still do it."""
        busy, patience = '*', PATIENCE
        if run.name in self.futures:
            self.futures[run.name].result()
            busy, patience = run.name, 0.0
        elif not run.is_finished(self.judge):
            print(f'waiting for {run.name}', flush=True)
        end = time.monotonic() + patience
        while not run.is_finished(self.judge) and not self.stopped.is_set():
            if any(in_use(lock) for lock in run.folder.parent.glob(f'{busy}/{LOCK}')):
                end = time.monotonic() + patience
            elif time.monotonic() >= end:
                break
            self.stopped.wait(1)
        return run.is_finished(self.judge)

    def train_run(self, run: Run, lock: IO) -> str:
        """Train a run, if it is not trained; why it did not finish."""
        if run.is_trained:
            return ''
        command = ['train.py']
        said = run.folder / CHECKPOINT
        if said.exists() and said.read_text().strip():  # empty: killed while it was written
            checkpoint = run.checkpoint()
            if checkpoint is None:
                return f'{run.name}: what {said} names is gone: remove it to begin anew'
            # mmengine goes on from where this leads, after a move too, unless there is a load_from.
            said.write_text(str(checkpoint.resolve()))
            command += ['--resume', '--cfg-options', 'load_from=None']
        reason = self.step('train', run, lock, command)
        if reason:
            return reason
        checkpoint = run.checkpoint()
        if checkpoint is None:
            return f'{run.name}: {run.file} leaves no checkpoint behind: give it a CheckpointHook'
        said.write_text(str(checkpoint.resolve()))
        run.mark(None)
        return ''

    def judge_run(self, run: Run, lock: IO) -> str:
        """Judge a trained run; why it did not finish."""
        checkpoint = run.checkpoint()
        if checkpoint is None:
            return f'{run.name}: its checkpoint is gone, see {run.folder / CHECKPOINT}'
        # What another judge found stays until there is something to put in its place, which is
        # made outside the run's folder: there the newest file per class counts.
        with TemporaryDirectory(prefix='judging-', dir=run.file.parents[1]) as folder:
            new, old = Path(folder, 'new'), Path(folder, 'old')
            command = ['choose_operating_point.py', checkpoint, '--out', new, *self.judge]
            reason = self.step('judge', run, lock, command)
            if not reason and not holds_points(new):
                reason = f'{run.name}: {self.judge} wrote no operating point, see --out and --help'
            if not reason:
                run.mark(None)
                if os.path.lexists(run.point):  # a link counts, wherever it leads
                    move(run.point, old)
                move(new, run.point)
                run.mark(self.judge)
        return reason

    def step(self, name: str, run: Run, lock: IO, command: list[Any]) -> str:
        """Run a tool with the run's config and folder; why it did not finish."""
        print(f'{run.name}: {name}', flush=True)
        start, log = time.time(), run.folder / f'{name}.log'
        tool, *arguments = map(str, command)
        place = [str(run.file), '--work-dir', str(run.folder)]
        status = self.call([tool, *place, *arguments], log, lock.fileno())
        if status:
            return f'{run.name}: see {log} (status {status})'
        print(f'{run.name}: {name} took {time.time() - start:.0f} s', flush=True)
        return ''

    def call(self, command: list[str], log: Path, lock: int) -> int:
        """Run a tool; its exit status."""
        with log.open('a') as file:
            # The child holds the lock as well: it outlives a study that is killed.
            child = subprocess.Popen(
                [sys.executable, self.tools / command[0], *command[1:]],
                stdout=file, stderr=subprocess.STDOUT, env=self.environment, pass_fds=[lock],
                start_new_session=True,
            )  # fmt: skip
            self.children.add(child)
            if self.stopped.is_set():
                child.terminate()
            status = child.wait()
            self.children.discard(child)
        return status

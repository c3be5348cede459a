"""Memory and step time of a long run, window by window: neither may grow.

Trains each config for so many steps, in a process of its own, without validation. Reads the
resident memory from /proc, so it needs Linux.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from prettytable import PrettyTable

import mmseg_ltmi  # noqa: F401  registers everything

WINDOWS = 10
PAGE_MIB = os.sysconf('SC_PAGE_SIZE') / 2**20


class Watch(Hook):
    """Resident memory (MiB), and wall and processor time (s), after each step."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float]] = []

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Note all three."""
        pages = int(Path('/proc/self/statm').read_text(encoding='utf-8').split()[1])
        self.rows.append((pages * PAGE_MIB, time.perf_counter(), time.process_time()))


def watch(path: str, steps: int) -> list[dict[str, float]]:
    """Medians of each window of a run."""
    cfg = Config.fromfile(path)
    cfg.train_cfg.update(max_iters=steps, val_interval=steps + 1)
    cfg.default_hooks.checkpoint.interval = steps
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    hook = Watch()
    with tempfile.TemporaryDirectory() as cfg.work_dir:
        runner = Runner.from_cfg(cfg)
        runner.register_hook(hook)
        runner.train()
    length = steps // WINDOWS
    windows = []
    for end in range(length, length * WINDOWS + 1, length):
        memory, wall, processor = zip(*hook.rows[end - length : end], strict=True)
        windows.append(
            {
                'steps': end,
                'rss_mib': statistics.median(memory),
                'wall_ms': 1e3 * _median_gap(wall),
                'processor_ms': 1e3 * _median_gap(processor),
            }
        )
    return windows


def _median_gap(times: tuple[float, ...]) -> float:
    return statistics.median(b - a for a, b in pairwise(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+')
    parser.add_argument('--steps', type=int, default=2000)
    parser.add_argument('--json', type=Path, help='write the figures here')
    args = parser.parse_args()
    if args.steps < 2 * WINDOWS:
        parser.error(f'--steps is {args.steps}: take {2 * WINDOWS} or more')
    figures = {}
    for path in args.configs:
        # Not multiprocessing.Pool, whose processes may have no children: a data loader has some.
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
            figures[path] = pool.submit(watch, path, args.steps).result()
        table = PrettyTable(['steps to', 'resident MiB', 'wall ms a step', 'processor ms a step'])
        for window in figures[path]:
            values = [f'{window[key]:.1f}' for key in ('rss_mib', 'wall_ms', 'processor_ms')]
            table.add_row([window['steps'], *values])
        print(f'{path}\n{table}')
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()

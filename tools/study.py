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
import signal
import sys
from pathlib import Path
from typing import Any

from mmseg_ltmi.study import (
    Workers,
    chosen,
    finished,
    make_tables,
    plan,
    read_study,
    refuse_changes,
)


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
    if args.tables and (args.rows or args.seeds):
        parser.error('--tables is of all finished runs, without --rows and --seeds')
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup makes it
        signal.signal(signal.SIGHUP, stop)
    failed = []
    try:
        study = read_study(args.file)
        out = args.out or Path('work_dirs', args.file.stem)
        runs = plan(study, args.file.parent, out)
        if not args.tables:
            wanted = chosen(runs, args.rows, args.seeds)
            refuse_changes(wanted)
            failed = Workers(Path(__file__).parent, study.judge, args.workers).work(wanted)
        found, others = finished(runs, study.judge)
        for other in others:
            print(f'left out of the tables: {other}', file=sys.stderr)
        print(f'\n{make_tables(found, list(study.rows), out / "comparison")}')
    except (OSError, ValueError) as error:
        failed.append(str(error))
    except KeyboardInterrupt:
        sys.exit('stopped; the same command goes on from the last checkpoints')
    if failed:
        sys.exit('\n'.join(failed))


def stop(*_: Any) -> None:
    """SIGTERM and a terminal that closes end a study as Ctrl-C does, even where that is ignored."""
    raise KeyboardInterrupt


if __name__ == '__main__':
    main()

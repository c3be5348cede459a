"""Compare runs: a Markdown table, paired differences to the first, and two plots.

A run is a work dir (its newest per_class.json counts) or a per_class.json / .csv file. Runs whose
names differ by a seed at the end only (-seed0, _s1) form one row, with a 95 % interval.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from mmseg_ltmi.evaluation.run_comparison import SEED, by_name, read_run
from mmseg_ltmi.utils.comparison import compare


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', nargs='+', metavar='RUN', type=Path)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/comparison'))
    parser.add_argument(
        '--seed-pattern', type=re.compile, default=SEED, help='regex; its group is the seed'
    )
    parser.add_argument(
        '--reading',
        default='',
        help='natural, tau_by_mIoU, IoU_rule, ...: as choose_operating_point.py read the runs',
    )
    args = parser.parse_args()
    try:
        runs = [read_run(path, args.seed_pattern, args.reading) for path in args.runs]
        table = compare(by_name(runs), args.out)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    for run in runs:
        print(f'{run.name} {run.seed}: {run.file}', file=sys.stderr)
    print(table)
    print(f'written to {args.out}', file=sys.stderr)


if __name__ == '__main__':
    main()

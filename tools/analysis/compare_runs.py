"""Compare runs: a Markdown table, paired differences to the first, and two plots.

A run is a work dir (its newest per_class.json counts) or a per_class.json / .csv file. Runs whose
names differ by a seed at the end only (-seed0, _s1) form one row, with a 95 % interval.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from mmseg_ltmi.evaluation.run_comparison import SEED, by_name, markdown, mean_rows, read_run
from mmseg_ltmi.visualization import plot_class_differences, plot_per_class_iou


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', nargs='+', metavar='RUN', type=Path)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/comparison'))
    parser.add_argument(
        '--seed-pattern', type=re.compile, default=SEED, help='regex; its group is the seed'
    )
    args = parser.parse_args()
    try:
        runs = [read_run(path, args.seed_pattern) for path in args.runs]
        groups = by_name(runs)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    for run in runs:
        print(f'{run.name} {run.seed}: {run.file}', file=sys.stderr)
    table = markdown(groups)
    print(table)

    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'comparison.md').write_text(table + '\n')
    rows = {name: mean_rows(group) for name, group in groups.items()}
    plot_per_class_iou(rows, args.out / 'iou_by_frequency.png')
    first, *others = rows
    if others:
        plot_class_differences(
            {name: rows[name] for name in others}, rows[first], args.out / 'difference.png'
        )
    print(f'written to {args.out}', file=sys.stderr)


if __name__ == '__main__':
    main()

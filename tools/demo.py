"""Train cross-entropy and LTMI on long-tailed shapes and show both, class by class."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from prettytable import PrettyTable

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.datasets import LongTailShapesDataset
from mmseg_ltmi.evaluation import group_means
from mmseg_ltmi.visualization import plot_per_class_iou

CONFIGS = Path(__file__).parents[1] / 'configs' / 'demo'
READINGS = {'natural': 0.0, 'balanced': 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--iters', type=int, default=400, help='training steps of each run')
    args = parser.parse_args()
    train = LongTailShapesDataset(pipeline=[dict(type='mmseg.LoadAnnotations')])
    ClassPrior.from_dataset(train).save(args.work_dir / 'class_prior.json')
    runs = {}
    for method in ('ce', 'ltmi'):
        start = time.perf_counter()
        for reading, rows in train_and_test(method, args.work_dir, args.iters).items():
            runs[f'{method} {reading}'] = rows
        print(f'{method}: {time.perf_counter() - start:.0f} s')
    print(side_by_side(runs))
    plot = args.work_dir / 'iou_by_frequency.png'
    plot_per_class_iou(runs, plot)
    print(f'IoU in %, classes from frequent to rare. Plot: {plot}')


def train_and_test(method: str, work_dir: Path, iters: int) -> dict[str, list[dict]]:
    """Rows of each class, for each reading of the trained model."""
    cfg = Config.fromfile(CONFIGS / f'{method}_fcn-r18_400_shapes-128x128.py')
    cfg.work_dir = str(work_dir / method)
    cfg.train_cfg.max_iters = cfg.param_scheduler[0].end = iters
    cfg.test_evaluator = dict(
        type='LogitAdjustmentSweep',
        class_prior=str(work_dir / 'class_prior.json'),
        taus=tuple(READINGS.values()),
        per_class_file=f'{cfg.work_dir}/per_class_tau{{tau}}.json',
    )
    runner = Runner.from_cfg(cfg)
    runner.train()
    runner.test()
    return {
        reading: json.loads(Path(cfg.work_dir, f'per_class_tau{tau:g}.json').read_text())
        for reading, tau in READINGS.items()
    }


def side_by_side(runs: dict[str, list[dict]]) -> PrettyTable:
    """IoU of every class in every run, then the means."""
    table = PrettyTable(['class', 'group', 'pixels %', *runs], align='r')
    table.align['class'] = table.align['group'] = 'l'
    first = next(iter(runs.values()))
    order = sorted(range(len(first)), key=lambda c: -first[c]['prior'])
    for c in order:
        row = first[c]
        values = [f'{rows[c]["IoU"]:.1f}' for rows in runs.values()]
        last = c == order[-1]
        table.add_row(
            [row['class'], row['group'], f'{100 * row["prior"]:.3f}', *values], divider=last
        )
    for group in ('head', 'medium', 'tail'):
        means = [f'{group_means(rows)[f"mIoU_{group}"]:.1f}' for rows in runs.values()]
        table.add_row([f'mean of {group}', '', '', *means])
    for key in ('IoU', 'Acc'):
        means = [f'{np.mean([row[key] for row in rows]):.1f}' for rows in runs.values()]
        table.add_row([f'm{key}', '', '', *means])
    return table


if __name__ == '__main__':
    main()

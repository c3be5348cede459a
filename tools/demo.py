"""Train cross-entropy and LTMI on long-tailed shapes and show both, class by class."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from prettytable import PrettyTable

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.datasets import LongTailShapesDataset
from mmseg_ltmi.evaluation import group_means
from mmseg_ltmi.visualization import plot_per_class_iou
from mmseg_ltmi.visualization.class_chart import frequent_first

CONFIGS = Path(__file__).parents[1] / 'configs' / 'demo'
READINGS = {'natural': 0.0, 'balanced': 1.0}
METHODS = {'ce': 'cross-entropy', 'ltmi': 'LTMI'}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--iters', type=int, default=400, help='training steps of each run')
    args = parser.parse_args()
    train = LongTailShapesDataset(pipeline=[dict(type='mmseg.LoadAnnotations')])
    ClassPrior.from_dataset(train).save(args.work_dir / 'class_prior.json')
    runs, runners = {}, {}
    for method in METHODS:
        start = time.perf_counter()
        runners[method] = train_and_test(method, args.work_dir, args.iters)
        for reading, tau in READINGS.items():
            file = args.work_dir / method / f'per_class_tau{tau:g}.json'
            runs[f'{method} {reading}'] = json.loads(file.read_text(encoding='utf-8'))
        print(f'{method}: {time.perf_counter() - start:.0f} s')
    print(side_by_side(runs))
    plot_per_class_iou(runs, args.work_dir / 'iou_by_frequency.png')
    draw_overview(runners, runs, args.work_dir / 'demo.png')
    print(f'IoU in %, classes from frequent to rare. Pictures: {args.work_dir}/*.png')


def train_and_test(method: str, work_dir: Path, iters: int) -> Runner:
    """Writes rows of each class, for each reading of the trained model."""
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
    return runner


def side_by_side(runs: dict[str, list[dict]]) -> PrettyTable:
    """IoU of every class in every run, then the means."""
    table = PrettyTable(['class', 'group', 'pixels %', *runs], align='r')
    table.align['class'] = table.align['group'] = 'l'
    first = next(iter(runs.values()))
    order = frequent_first(first)
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


def draw_overview(runners: dict[str, Runner], runs: dict[str, list[dict]], path: Path) -> None:
    """The test images with most classes of the tail, what was found in them, and IoU by class."""
    rows = {method: runs[f'{method} natural'] for method in METHODS}
    tail = [c for c, row in enumerate(rows['ce']) if row['group'] == 'tail']
    dataset = runners['ce'].test_dataloader.dataset
    palette = np.array(dataset.metainfo['palette'], np.uint8)

    def tail_pixels(i: int) -> tuple[int, int]:
        label = dataset[i]['data_samples'].gt_sem_seg.data
        pixels = [int((label == c).sum()) for c in tail]
        return sum(count > 30 for count in pixels), sum(pixels)

    figure = Figure(figsize=(11, 5.2), layout='constrained')
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    left, right = halves
    grid = left.subplots(3, 2 + len(METHODS), subplot_kw=dict(xticks=[], yticks=[]))
    for axes, i in zip(grid, sorted(range(len(dataset)), key=tail_pixels)[:-4:-1], strict=True):
        packed = dataset[i]
        maps = [packed['data_samples'].gt_sem_seg]
        for runner in runners.values():
            (found,) = runner.model.test_step(pseudo_collate([packed]))
            maps.append(found.pred_sem_seg)
        axes[0].imshow(packed['inputs'].permute(1, 2, 0).numpy()[..., ::-1])
        for axis, classes in zip(axes[1:], maps, strict=True):
            axis.imshow(palette[classes.data[0].cpu().numpy()])
    for axis, title in zip(grid[0], ('image', 'label', *METHODS.values()), strict=True):
        axis.set_title(title, fontsize=10)
    draw_bars(right.subplots(), rows)
    figure.savefig(path, dpi=110)


def draw_bars(axes: Axes, rows: dict[str, list[dict]]) -> None:
    """IoU of each class, frequent ones on top."""
    order = [rows['ce'][c] for c in frequent_first(rows['ce'])]
    by_name = {method: {row['class']: row['IoU'] for row in rows[method]} for method in METHODS}
    place = np.arange(len(order))
    for offset, colour, (method, title) in zip(
        (-0.2, 0.2), ('#999999', '#0072B2'), METHODS.items(), strict=True
    ):
        values = [by_name[method][row['class']] for row in order]
        axes.barh(place + offset, values, 0.4, color=colour, label=title)
    names = [f'{row["class"].replace("_", " ")}  {100 * row["prior"]:.2g} %' for row in order]
    axes.set_yticks(place, names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel='IoU [%]')
    axes.set_title('classes by share of pixels', fontsize=10)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(loc='lower right')


if __name__ == '__main__':
    main()

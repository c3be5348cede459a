"""Time of an evaluation with each metric, as a ratio to one with mmsegmentation's IoUMetric.

Every image is predicted once a round and goes through every metric in turn, so that a machine's
drift meets all of them; an evaluation is the prediction plus one metric. Ratios are of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from measuring import finish
from mmengine.config import Config, DictAction
from mmseg.evaluation import IoUMetric
from prettytable import PrettyTable

from mmseg_ltmi.apis.config_changes import read_config
from mmseg_ltmi.apis.split_data import split_loader
from mmseg_ltmi.apis.trained_model import class_prior_of, load_model
from mmseg_ltmi.evaluation import LogitAdjustmentSweep, LongTailIoUMetric, OperatingPointMetric


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--num-images', type=int, default=40)
    parser.add_argument('--class-prior')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    cfg = read_config(args.config, args.cfg_options)
    rows, ends = measure(cfg, args.checkpoint, args.device, args.num_images, args.class_prior)
    table = PrettyTable(['evaluation with', 'metric [ms]', 'whole [ms]', 'ratio'], align='r')
    table.align['evaluation with'] = 'l'
    for name, row in rows.items():
        table.add_row([name, f'{row["metric_ms"]:.1f}', f'{row["ms"]:.1f}', f'{row["ratio"]:.3f}'])
    print(table)
    print('at the end: ' + ', '.join(f'{name} {1000 * s:.0f} ms' for name, s in ends.items()))


@torch.no_grad()
def measure(
    cfg: Config, checkpoint: Path, device: str, num_images: int, class_prior: Any = None
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Milliseconds of each metric and of a whole evaluation with it; seconds at the end."""
    model: Any = load_model(cfg, checkpoint).to(device).eval()
    loader: Any = split_loader(cfg, 'test', num_workers=0)
    classes = loader.dataset.metainfo['classes']
    prior = class_prior_of(class_prior, cfg, model, loader.dataset.metainfo)
    metrics: dict[str, Any] = {
        'IoUMetric': IoUMetric(),
        'LongTailIoUMetric': LongTailIoUMetric(class_prior=prior, per_class_file=None),
        'LogitAdjustmentSweep, 3 taus': LogitAdjustmentSweep(prior),
        'OperatingPointMetric, 21 taus': OperatingPointMetric(prior, num_images, max_values=0),
        'and a sample for the IoU rule': OperatingPointMetric(prior, num_images),
    }
    times: dict[str, list[float]] = {name: [] for name in ('predict', *metrics)}
    for metric in metrics.values():
        metric.dataset_meta = {'classes': classes}
    for batch, _ in zip(loader, range(num_images), strict=False):
        samples, seconds = timed(lambda b=batch: model.test_step(b), device)
        times['predict'].append(seconds)
        samples = [sample.to_dict() for sample in samples]
        for name, metric in metrics.items():
            _, seconds = timed(lambda m=metric, s=samples: m.process({}, s), device)
            times[name].append(seconds)

    middle = {name: 1000 * statistics.median(values) for name, values in times.items()}
    plain = middle['predict'] + middle['IoUMetric']
    rows = {}
    for name in metrics:
        whole = middle['predict'] + middle[name]
        rows[name] = dict(metric_ms=middle[name], ms=whole, ratio=whole / plain)
    ends = {name: timed(lambda m=m: m.compute_metrics(m.results), 'cpu')[1]
            for name, m in list(metrics.items())[:2]}  # fmt: skip
    return rows, ends


def timed(function: Any, device: str) -> tuple[Any, float]:
    """Result and seconds; on a GPU including what it has queued."""
    start = time.perf_counter()
    result = function()
    finish(device)
    return result, time.perf_counter() - start


if __name__ == '__main__':
    main()

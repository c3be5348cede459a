"""What the classes, rarest first, are taken for, and how much of it happens along boundaries.

'missed' is the share of a class's pixels that are predicted as others, 'false' that of its
predictions that are others' pixels; 'near' is the share of both kinds of error that lie at most
--width pixels from where the label changes, and 'IoU away' leaves those pixels out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from mmengine.config import Config, DictAction
from prettytable import PrettyTable

from mmseg_ltmi.evaluation import ConfusionMetric, explain, write_rows
from mmseg_ltmi.models.segmentors import last_head
from mmseg_ltmi.utils.evaluation import class_prior_of, load_model, measure, split_loader


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='test')
    parser.add_argument('--width', type=int, default=3, help='pixels on each side of a boundary')
    parser.add_argument('--class-prior', help='name or file; default: what head or metric names')
    parser.add_argument('--json', type=Path, help='write the figures to this .json file')
    parser.add_argument('--work-dir', default='work_dirs/explain_classes')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    try:
        explain_classes(args)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))


def explain_classes(args: argparse.Namespace) -> None:
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    cfg.work_dir = args.work_dir
    model = load_model(cfg, args.checkpoint)
    loader = split_loader(cfg, args.split, cfg.test_dataloader.get('num_workers', 0))
    prior = class_prior_of(args.class_prior, cfg, model, loader.dataset.metainfo['classes'])
    metric = ConfusionMetric(prior.num_classes, args.width, last_head(model).ignore_index)
    measure(model, cfg, loader, metric, f'explain_{args.split}')
    rows = explain(metric.confusion, prior.names)
    table = PrettyTable(
        ['class', 'IoU', 'missed', 'as', 'false', 'in truth', 'near', 'IoU away'], align='r'
    )
    table.align['class'] = table.align['as'] = table.align['in truth'] = 'l'
    table.title = f'{args.split} split, %, near is within {args.width} pixels of a boundary'
    for c in np.argsort(prior.probs().numpy(), kind='stable'):
        row = rows[c]
        table.add_row([v if isinstance(v, str) else show(v) for v in row.values()])
    print(table)
    if args.json is not None:
        write_rows(rows, args.json.with_suffix('.json'))


def show(value: float | dict[str, float]) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{name} {share:.0f}' for name, share in value.items())
    return '' if np.isnan(value) else f'{value:.1f}'


if __name__ == '__main__':
    main()

"""Choose how a trained model's posterior is read: natural argmax, a tau_test, or the IoU rule.

Measures 21 values of tau_test and fits the IoU rule in one pass over the selection split, and
measures all of them in one pass over the report split. With --folds K both are one split: chosen
on K-1 blocks of images and measured on the other, in turn. Writes operating_point.json (for
tools/test.py --operating-point), curves.png, a file of rows per class for each of them
(per_class/NAME.json), and a checkpoint that holds the choice (--embed).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from prettytable import PrettyTable
from torch import nn

from mmseg_ltmi.evaluation import (
    OperatingPoint,
    OperatingPointMetric,
    RankSEGRule,
    choosing,
    class_rows,
    write_rows,
)
from mmseg_ltmi.models.checkpoint_file import read_checkpoint
from mmseg_ltmi.models.segmentors import Decision, classifier_fingerprint, last_head
from mmseg_ltmi.utils.evaluation import class_prior_of, load_model, measure, split_loader
from mmseg_ltmi.visualization import plot_operating_points

CHOICES = ('natural', *choosing.CRITERIA, 'IoU rule')


def main() -> None:
    args = parse_arguments()
    try:
        choose(args)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))


def choose(args: argparse.Namespace) -> None:
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    cfg.work_dir = str(args.work_dir or cfg.get('work_dir') or f'work_dirs/{args.config.stem}')
    out = args.out or Path(cfg.work_dir, 'operating_point')

    peers = {'RankSEG': RankSEGRule()} if args.rankseg else {}
    model = load_model(cfg, args.checkpoint)
    selection = evaluate(
        model, cfg, args.select, args.class_prior,
        folds=args.folds or 1, max_values=args.max_values, rules=peers if args.folds else {},
    )  # fmt: skip
    points, prior = choosing.candidates(selection), selection.prior
    if args.folds:
        report, areas = None, choosing.cross_fitted(selection)
    else:
        rules = {'IoU rule': points['IoU rule'], **peers}
        report = evaluate(model, cfg, args.report, args.class_prior, rules=rules, max_values=0)
        areas = choosing.measured(points, report)
    table = {name: choosing.summary_of(of, prior) for name, of in areas.items()}
    if report is not None:
        for name, value in choosing.measured_per_image(points, report).items():
            table[name]['image_mIoU'] = round(value, 2)
    print(show(points, table, args))

    chosen = points[args.choose]._replace(
        weights=classifier_fingerprint(model),
        report={**provenance(args), 'taus': selection.taus, 'values': table},
    )
    for name, of in areas.items():
        rows = class_rows(of, prior.names, prior)
        write_rows(rows, out / 'per_class' / f'{name.replace(" ", "_")}.json')
    curves = [
        None if metric is None else choosing.curve(metric.tau_areas.sum(0), prior)
        for metric in (selection, report)
    ]
    plot_operating_points(selection.taus, *curves, table['IoU rule'], out / 'curves.png')
    chosen.save(out / 'operating_point.json')
    print(f'{chosen} in {out}/operating_point.json, curves in {out}/curves.png')
    if args.embed:
        embed(chosen, args.checkpoint, args.embed)
        print(f'{args.embed} holds it: tools/test.py and type={type(model).__name__} read it there')


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    splits = ('train', 'val', 'test')
    parser.add_argument('--select', choices=splits, default='val', help='split that chooses')
    parser.add_argument('--report', choices=splits, default='test', help='split that judges')
    parser.add_argument('--folds', type=int, default=0, help='cross-fit on the report split')
    parser.add_argument(
        '--choose', choices=CHOICES, default='tau by mIoU', help='what is written; all are measured'
    )
    parser.add_argument(
        '--rankseg', action='store_true', help='measure the peer RankSEG too (package rankseg)'
    )
    parser.add_argument('--class-prior', help='name or file; default: what head or metric names')
    parser.add_argument('--out', type=Path, help='folder; default: operating_point in the work dir')
    parser.add_argument('--embed', type=Path, help='write a checkpoint that holds the choice')
    parser.add_argument(
        '--max-values', type=int, default=2**25, help='posteriors kept for the fit of the IoU rule'
    )
    parser.add_argument('--work-dir', type=Path)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    if args.folds == 1 or args.folds < 0:
        parser.error('--folds takes 2 or more')
    if args.max_values < 1:
        parser.error('--max-values takes 1 or more')
    if not args.checkpoint.is_file():
        parser.error(f'there is no checkpoint {args.checkpoint}')
    if args.folds:
        args.select = args.report
    elif args.select == args.report:
        print(
            f'WARNING: chosen and reported on the same split ({args.select}): the figures flatter '
            'the choice. Name another split, or cross-fit with --folds 5.',
            file=sys.stderr,
        )
    return args


def evaluate(
    model: nn.Module, cfg: Config, split: str, named_prior: str | None, **kwargs: Any
) -> OperatingPointMetric:
    """What one pass over the split gathers."""
    loader = split_loader(cfg, split, cfg.test_dataloader.get('num_workers', 0))
    prior = class_prior_of(named_prior, cfg, model, loader.dataset.metainfo['classes'])
    ignore_index = last_head(model).ignore_index
    metric = OperatingPointMetric(prior, len(loader.dataset), ignore_index=ignore_index, **kwargs)
    measure(model, cfg, loader, metric, f'operating_point_{split}_{metric.folds}')
    return metric


def provenance(args: argparse.Namespace) -> dict[str, Any]:
    return dict(
        checkpoint=args.checkpoint.name,
        select=args.select,
        report=args.report,
        folds=args.folds,
        max_values=args.max_values,
    )


def show(points: dict[str, OperatingPoint], table: dict, args: argparse.Namespace) -> str:
    """What each candidate is worth on the report split."""
    how = f'cross-fitted in {args.folds} folds' if args.folds else f'chosen on {args.select}'
    columns = {'mIoU': 'mIoU', 'mIoU_tail': 'tail mIoU', 'mAcc': 'mAcc'}
    if not args.folds:
        columns['image_mIoU'] = 'mIoU of an image'
    shown = PrettyTable(['operating point', 'tau_test', *columns.values()], align='r')
    shown.align['operating point'] = 'l'
    shown.title = f'{args.report} split, {how}'
    for name, values in table.items():
        is_tau = name in points and points[name].rule == 'tau'
        tau = f'{points[name].tau:g}' if is_tau else ''
        scores = [f'{values[key]:.2f}' for key in columns]
        shown.add_row([name, tau, *scores])
    return shown.get_string()


def embed(point: OperatingPoint, source: Path, target: Path) -> None:
    """Copy a checkpoint with the operating point in it."""
    checkpoint, state = read_checkpoint(source)
    decision = Decision(len(point.classes))
    decision.take(point)
    state.update({f'decision.{name}': value for name, value in decision.state_dict().items()})
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, target)


if __name__ == '__main__':
    main()

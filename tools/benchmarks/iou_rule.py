"""What the IoU rule is worth, by what its areas are fitted to and by how many images do that.

Fits on some images of one split and measures on the other, mIoU and tail mIoU over 5 draws of the
images. The rule's areas are counted with labels, expected under the posterior as it is, and
expected under the calibrated posterior, which is what ``mmseg-ltmi choose`` does. A last row
expects them on the images that are measured, of which it needs no label. Posteriors are those of a
sample of pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from mmengine.config import DictAction
from prettytable import PrettyTable

from mmseg_ltmi.apis.config_changes import read_config
from mmseg_ltmi.apis.split_data import split_loader
from mmseg_ltmi.apis.trained_model import class_prior_of, load_model, measure
from mmseg_ltmi.core.posterior import decide_by_iou, fit_iou_rule
from mmseg_ltmi.core.priors import ClassPrior
from mmseg_ltmi.core.priors.class_prior import balancing_shift
from mmseg_ltmi.core.priors.dataset_wrappers import metainfo_of
from mmseg_ltmi.evaluation import OperatingPointMetric, choosing
from mmseg_ltmi.evaluation.operating_point_metric import TAUS
from mmseg_ltmi.evaluation.posterior_sample import PosteriorSample
from mmseg_ltmi.models.segmentors import last_head

DRAWS = 5
SPLITS = ('train', 'val', 'test')
SCORES = ('mIoU', 'mIoU_tail')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--select', default='val', choices=SPLITS)
    parser.add_argument('--report', default='test', choices=SPLITS)
    parser.add_argument('--images', type=int, nargs='+', help='that fit; default: all')
    parser.add_argument('--class-prior', help="default: the model's")
    parser.add_argument('--max-values', type=int, default=2**24, help='posteriors kept of a split')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    if args.select == args.report:
        parser.error('--select and --report take two splits')
    cfg = read_config(args.config, args.cfg_options)
    model: Any = load_model(cfg, args.checkpoint)
    gathered = {}
    for split in (args.select, args.report):
        loader = split_loader(cfg, split)
        dataset: Any = loader.dataset
        gathered[split] = metric = OperatingPointMetric(
            class_prior_of(args.class_prior, cfg, model, metainfo_of(dataset)),
            len(dataset),
            folds=len(dataset),  # so that any of them can be taken
            max_values=args.max_values,
            ignore_index=last_head(model).ignore_index,
        )
        measure(model, loader, metric, split, True)
    table = PrettyTable(['fitted on', 'reading', *SCORES], align='r')
    table.align['reading'] = 'l'
    table.add_rows(compare(gathered[args.select], gathered[args.report], args.images))
    print(table)


def compare(
    select: OperatingPointMetric, report: OperatingPointMetric, numbers: list[int] | None
) -> list[list[Any]]:
    """Rows of the table: images, reading and its mean scores."""
    images = select.folds
    numbers = [min(n, images) for n in numbers or [images]]
    everything, measured = (metric.sample(lambda image: True) for metric in (select, report))
    prior, rows = select.prior, []
    for number in numbers:
        found: dict[str, list[torch.Tensor]] = {}
        for draw in range(DRAWS if number < images else 1):
            generator = torch.Generator().manual_seed(draw)
            drawn = set(torch.randperm(images, generator=generator)[:number].tolist())
            sample = select.sample(drawn.__contains__)
            for name, decision in decisions(sample, measured, prior).items():
                found.setdefault(name, []).append(scores(measured, decision, prior))
        for name, values in found.items():
            mean = torch.stack(values).mean(0)
            rows.append([number, name, *(f'{value:.2f}' for value in mean)])
    calibrated = measured.posterior(temperature=everything.temperature())
    decision = by_rule(measured, calibrated, measured, prior)
    of_these = scores(measured, decision, prior)
    rows.append(['', 'IoU rule, of these images', *(f'{value:.2f}' for value in of_these)])
    return rows


def decisions(
    sample: PosteriorSample, measured: PosteriorSample, prior: ClassPrior
) -> dict[str, torch.Tensor]:
    """Decisions on ``measured`` of what is fitted on ``sample``, by name."""
    own, others = sample.scores(), measured.scores()
    balancing = balancing_shift(prior.log_probs())
    tau = max(
        TAUS, key=lambda tau: scores(sample, (own + tau * balancing).max(1).indices, prior)[0]
    )
    found = {
        'natural': others.max(1).indices,
        'tau by mIoU': (others + tau * balancing).max(1).indices,
    }
    truths = {
        'counted': sample.label,
        'expected, not calibrated': sample.posterior(),
        'expected': sample.posterior(temperature=sample.temperature()),
    }
    for name, truth in truths.items():
        found[f'IoU rule, {name}'] = by_rule(sample, truth, measured, prior)
    return found


def by_rule(
    sample: PosteriorSample, truth: torch.Tensor, measured: PosteriorSample, prior: ClassPrior
) -> torch.Tensor:
    """Decisions on ``measured`` by the rule that is fitted to the truth of ``sample``."""
    rule = fit_iou_rule(sample.posterior(), truth, prior.probs(), sample.weight)
    return decide_by_iou(measured.posterior(), rule.iou, rule.union)


def scores(sample: PosteriorSample, decision: torch.Tensor, prior: ClassPrior) -> torch.Tensor:
    """SCORES of a decision, in percent."""
    summary = choosing.summary_of(sample.areas(decision), prior)
    return torch.tensor([summary[name] for name in SCORES])


if __name__ == '__main__':
    main()

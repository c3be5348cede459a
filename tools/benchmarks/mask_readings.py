"""How far the exact and the cheap reading of a mask classifier differ, and what each is worth.

Prints, for each tau, the share of the labelled pixels that ``shift_at='queries'`` (exact) and
``shift_at='map'`` (cheap) decide differently, and mIoU of both, over the classes that the labels
hold. The config needs the LTMI head; a checkpoint of the stock head loads into it, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from prettytable import PrettyTable

from mmseg_ltmi.apis.config_changes import read_config
from mmseg_ltmi.apis.split_data import split_loader
from mmseg_ltmi.apis.trained_model import load_model
from mmseg_ltmi.core.posterior import class_scores, decision_areas, labels_or_spare
from mmseg_ltmi.models.decode_heads import LTMIMaskHeadMixin
from mmseg_ltmi.models.segmentors import last_head

FORMS = ('map', 'queries')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--split', default='test', choices=('train', 'val', 'test'))
    parser.add_argument('--taus', type=float, nargs='+', default=[0.25, 0.5, 1.0])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    cfg = read_config(args.config, args.cfg_options)
    rows = measure(cfg, args.checkpoint, args.split, args.taus, args.device)
    table = PrettyTable(['tau', 'differing pixels [%]', 'mIoU cheap', 'mIoU exact'], align='r')
    table.add_rows([[f'{tau:g}', *(f'{value:.2f}' for value in row)] for tau, row in rows.items()])
    print(table)


@torch.no_grad()
def measure(
    cfg: Config, checkpoint: Path, split: str, taus: list[float], device: str = 'cpu'
) -> dict[float, tuple[float, ...]]:
    """For each tau, % of the labelled pixels that differ, mIoU of the map and of the queries."""
    model: Any = load_model(cfg, checkpoint).to(device).eval()
    head: Any = last_head(model)
    if not isinstance(head, LTMIMaskHeadMixin):
        raise SystemExit(f'{type(head).__name__} has no shift_at: give the config of its LTMI form')
    size = head.num_classes
    areas = torch.zeros(len(taus), len(FORMS), 4, size, dtype=torch.float64)
    differing = torch.zeros(len(taus), dtype=torch.int64)
    for batch in split_loader(cfg, split):
        for i, tau in enumerate(taus):
            head.tau_test = tau
            found = []
            for head.shift_at in FORMS:
                samples = model.test_step(batch)
                found.append(torch.cat([s.pred_sem_seg.data.flatten().cpu() for s in samples]))
            label = torch.cat([s.gt_sem_seg.data.flatten().cpu() for s in samples]).long()
            label = labels_or_spare(label, size, head.ignore_index)
            areas[i] += torch.stack([decision_areas(decision, label, size) for decision in found])
            differing[i] += ((found[0] != found[1]) & (label < size)).sum()
    share = 100 * differing / areas[:, 0, 3].sum(1)
    miou = class_scores(areas)[:, :, 0].nanmean(-1)
    return {tau: (float(share[i]), *miou[i].tolist()) for i, tau in enumerate(taus)}


if __name__ == '__main__':
    main()

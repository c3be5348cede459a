"""Time and memory of prediction with a memory, as a ratio to plain prediction.

Random weights and keys: neither changes the time. Every image is predicted in each way in turn, so
that a machine's drift meets all of them; ratios are of the medians.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from measuring import seconds
from mmseg.registry import MODELS
from prettytable import PrettyTable
from train_step import without_weights

from mmseg_ltmi.apis.config_changes import read_config
from mmseg_ltmi.core.contrast import ProjectionHead
from mmseg_ltmi.core.posterior import ClassMemory
from mmseg_ltmi.models.segmentors import last_head

CONFIG = Path(__file__).parents[2] / 'configs/nyuv2/ltmi_fpn-lite0_1200_nyuv2-224x224.py'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', nargs='?', type=Path, default=CONFIG)
    parser.add_argument('--size', type=int, nargs=2, default=(256, 344), help='of the image')
    parser.add_argument('--keys', type=int, nargs='+', default=[4, 16, 64, 256], help='of a class')
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg = read_config(args.config)
    model: Any = MODELS.build(without_weights(cfg.model)).to(args.device).eval()
    head: Any = last_head(model)
    memories: dict[str, ClassMemory | None] = {'plain': None}
    channels = head.conv_seg.in_channels
    for count in args.keys:
        labels = torch.arange(head.num_classes).repeat_interleave(count)
        memories[f'{count} keys of a class'] = ClassMemory(
            torch.randn(len(labels), 128),
            labels,
            head.num_classes,
            temperature=0.1,
            projector=ProjectionHead(channels, 128),
            weight=0.5,
        ).to(args.device)
    image = torch.randn(1, 3, *args.size, device=args.device)
    meta = [dict(img_shape=tuple(args.size), ori_shape=tuple(args.size))]
    times: dict[str, list[float]] = {name: [] for name in memories}
    for _ in range(args.rounds + 1):  # the first one warms up
        for name, memory in memories.items():
            head.score_reader.memory = memory
            times[name].append(seconds(lambda: model.encode_decode(image, meta), args.device))
    middle = {name: 1000 * statistics.median(values[1:]) for name, values in times.items()}
    table = PrettyTable(['prediction', 'ms', 'ratio'], align='r')
    table.align['prediction'] = 'l'
    for name, value in middle.items():
        table.add_row([name, f'{value:.1f}', f'{value / middle["plain"]:.2f}'])
    print(table)


if __name__ == '__main__':
    with torch.no_grad():
        main()

"""Time and peak memory of a training step: cross-entropy, logit adjustment and LTMI, interleaved.

The three forms are made of one config; the model, the images and the labels are the same. Ratios
are medians over the rounds of the ratio within a round, since a machine's speed drifts.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import resource
import statistics
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from prettytable import PrettyTable

import mmseg_ltmi  # noqa: F401  registers everything

FORMS = ('cross-entropy', 'logit adjustment', 'LTMI')


def build(cfg: Config, form: str) -> torch.nn.Module:
    """The config's model with cross-entropy, logit adjustment, or both LTMI terms."""
    model = copy.deepcopy(cfg.model)
    model.pretrained = None
    model.backbone.init_cfg = None
    main = model.decode_head[-1] if isinstance(model.decode_head, list) else model.decode_head
    heads = [model.decode_head, model.get('auxiliary_head') or []]
    num_classes = main.num_classes
    prior = [2.0**-c for c in range(num_classes)]
    for head in (h for group in heads for h in (group if isinstance(group, list) else [group])):
        head.type = head.type.removeprefix('LTMI')
        head.pop('contrast', None)
        weight = head.loss_decode.get('loss_weight', 1.0)
        head.loss_decode = dict(type='CrossEntropyLoss', loss_weight=weight)
        if form != 'cross-entropy':
            head.loss_decode.update(type='LogitAdjustedLoss', class_prior=prior)
    if form == 'LTMI':
        main.type = f'LTMI{main.type}'
        main.contrast = dict(class_prior=prior)
    return revert_sync_batchnorm(MODELS.build(model)).to(get_device()).train()


def make_batch(num_classes: int, batch: int, size: int) -> tuple[torch.Tensor, list]:
    """Random images, and labels in blocks of 16 pixels, the rarer the higher the class."""
    device = get_device()
    blocks = torch.rand(batch, 1, size // 16, size // 16, device=device).pow(3) * num_classes
    labels = blocks.long().repeat_interleave(16, 2).repeat_interleave(16, 3)
    samples = []
    for label in labels:
        sample = SegDataSample(metainfo=dict(img_path='', img_shape=(size, size)))
        sample.gt_sem_seg = PixelData(data=label)
        samples.append(sample)
    return torch.randn(batch, 3, size, size, device=device), samples


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, data: tuple) -> float:
    """Seconds of one whole step."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    loss, _ = model.parse_losses(model.loss(*data))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_mib() -> float:
    """Peak memory so far: of the device on a GPU, of the process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(cfg: Config, args: argparse.Namespace) -> dict:
    """Median seconds, ratio to cross-entropy and growth of the peak memory of each form."""
    data = None
    runs = {}
    memory = {}
    for form in FORMS:
        torch.manual_seed(0)
        model = build(cfg, form)
        data = data or make_batch(model.num_classes, args.batch, args.size)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        gc.collect()
        for _ in range(2):
            step(model, optimizer, data)
        memory[form] = peak_mib()
        runs[form] = (model, optimizer)
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    for round_ in range(args.rounds):
        # Each form is first as often as it is last.
        for form in FORMS[round_ % 3 :] + FORMS[: round_ % 3]:
            times[form].append(step(*runs[form], data))
    base = times['cross-entropy']
    return {
        form: {
            'seconds': statistics.median(values),
            'ratio': statistics.median(v / b for v, b in zip(values, base, strict=True)),
            'peak_mib_so_far': memory[form],
        }
        for form, values in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+')
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--size', type=int, default=256, help='height and width, a multiple of 16')
    parser.add_argument('--rounds', type=int, default=21)
    parser.add_argument('--json', type=Path, help='write the figures here')
    args = parser.parse_args()
    init_default_scope('mmseg')
    figures = {}
    for path in args.configs:
        figures[path] = measure(Config.fromfile(path), args)
        table = PrettyTable(['form', 'ms a step', 'times cross-entropy', 'peak MiB so far'])
        for form, row in figures[path].items():
            memory = f'{row["peak_mib_so_far"]:.0f}'
            table.add_row([form, f'{1e3 * row["seconds"]:.0f}', f'{row["ratio"]:.3f}', memory])
        print(f'{path}, batch {args.batch}, {args.size}x{args.size}, {get_device()}\n{table}')
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=1) + '\n')


if __name__ == '__main__':
    main()

"""Time and peak memory of a training step: cross-entropy, OHEM, logit adjustment and LTMI.

With ``--teacher``, also LTMI with keys from a moving average and from a teacher, which then has
random weights and is distilled from. The forms are made of one config; the model, the images and
the labels are the same. Ratios are medians over the rounds of the ratio within a round, since a
machine's speed drifts. Peak memory is that of a process of its own for each form.

Of a mask classifier, such as Mask2Former, cross-entropy is the stock head as it is.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from measuring import finish, peak_mib, process_mib
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from prettytable import PrettyTable

import mmseg_ltmi  # noqa: F401  registers everything

FORMS = ('cross-entropy', 'OHEM', 'logit adjustment', 'LTMI')
OHEM = dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100000)  # as in mmsegmentation's configs
MASKS = ('MaskFormerHead', 'Mask2FormerHead')
TAUGHT = ('LTMI, EMA', 'LTMI, teacher')


def without_weights(model: ConfigDict) -> ConfigDict:
    """A copy of the model's config that downloads nothing."""
    model = copy.deepcopy(model)
    model.pretrained = None
    model.backbone.init_cfg = None
    return model


def build(cfg: Config, form: str, device: str, teacher: dict | None = None) -> Any:
    """The config's model in one of the forms; ``teacher`` as for DistilledEncoderDecoder."""
    model = without_weights(cfg.model)
    main = model.decode_head[-1] if isinstance(model.decode_head, list) else model.decode_head
    heads = [model.decode_head, model.get('auxiliary_head') or []]
    num_classes = main.num_classes
    prior = [2.0**-c for c in range(num_classes)]
    for head in (h for group in heads for h in (group if isinstance(group, list) else [group])):
        head.type = head.type.removeprefix('LTMI')
        head.pop('contrast', None)
        if head.type in MASKS:
            head.pop('loss_decode', None)
            if form != 'cross-entropy':
                counts = dict(pixel_counts=prior, image_counts=prior)
                loss = dict(type='LogitAdjustedLoss', class_prior=counts)
                head.update(type=f'LTMI{head.type}', loss_decode=loss)
            continue
        weight = head.loss_decode.get('loss_weight', 1.0)
        head.loss_decode = dict(type='CrossEntropyLoss', loss_weight=weight)
        head.sampler = OHEM if form == 'OHEM' else None
        if form not in ('cross-entropy', 'OHEM'):
            head.loss_decode.update(type='LogitAdjustedLoss', class_prior=prior)
    if form.startswith('LTMI'):
        main.contrast = dict() if 'LTMI' in main.type else dict(class_prior=prior)
        main.type = f'LTMI{main.type.removeprefix("LTMI")}'
    if form in TAUGHT:
        is_ema = form == 'LTMI, EMA'
        model.type = f'Distilled{model.type.removeprefix("LTMI")}'
        model.teacher = dict(type='EMA') if is_ema else teacher
        model.alpha = 0.0 if is_ema else 1.0
    return revert_sync_batchnorm(MODELS.build(model)).to(device).train()


def is_mask_classifier(path: str) -> bool:
    head = Config.fromfile(path).model.decode_head
    return not isinstance(head, list) and head.type.removeprefix('LTMI') in MASKS


def make_batch(num_classes: int, batch: int, size: int, device: str) -> tuple[torch.Tensor, list]:
    """Random images, and labels in blocks of 16 pixels, the rarer the higher the class."""
    blocks = torch.rand(batch, 1, size // 16, size // 16, device=device).pow(3) * num_classes
    labels = blocks.long().repeat_interleave(16, 2).repeat_interleave(16, 3)
    samples = []
    for label in labels:
        sample = SegDataSample(metainfo=dict(img_path='', img_shape=(size, size)))
        sample.gt_sem_seg = PixelData(data=label)
        samples.append(sample)
    return torch.randn(batch, 3, size, size, device=device), samples


def step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    data: tuple,
    autocast: torch.dtype | None = None,
    scaler: Any = None,
) -> float:
    """Seconds of one whole step; with ``autocast``, and a GradScaler, in mixed precision."""
    device = data[0].device.type
    finish(device)
    start = time.perf_counter()
    with torch.autocast(device, autocast, enabled=autocast is not None):
        loss, _ = model.parse_losses(model.loss(*data))
    optimizer.zero_grad()
    if scaler is None:
        loss.backward()
        optimizer.step()
    else:
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    finish(device)
    return time.perf_counter() - start


def prepare(path: str, form: str, args: argparse.Namespace) -> tuple:
    """Model, optimizer and data, after two steps."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = build(Config.fromfile(path), form, args.device, args.saved_teacher)
    data = make_batch(model.num_classes, args.batch, args.size, args.device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9)
    for _ in range(2):
        step(model, optimizer, data)
    return model, optimizer, data


def mib_of_a_process(path: str, form: str, args: argparse.Namespace) -> float:
    """Peak memory of a fresh process."""
    prepare(path, form, args)
    return process_mib()


def measure(path: str, args: argparse.Namespace) -> dict:
    """Median seconds, ratio to cross-entropy and peak memory of each form.

    The peak on a GPU is what the form adds to it, on a CPU that of a process of its own.
    """
    forms = FORMS + (TAUGHT if args.saved_teacher else ())
    if is_mask_classifier(path):
        forms = tuple(form for form in forms if form != 'OHEM')  # it draws pixels
    memory, runs = {}, {}
    for form in forms:
        if args.device == 'cpu':
            with multiprocessing.get_context('spawn').Pool(1) as pool:
                memory[form] = pool.apply(mib_of_a_process, (path, form, args))
        else:
            memory[form] = peak_mib(lambda f=form: prepare(path, f, args))  # type: ignore[misc]
    for form in forms:
        runs[form] = prepare(path, form, args)
    times: dict[str, list[float]] = {form: [] for form in forms}
    for round_ in range(args.rounds):
        # Each form is first as often as it is last.
        first = round_ % len(forms)
        for form in forms[first:] + forms[:first]:
            times[form].append(step(*runs[form]))
    base = times['cross-entropy']
    return {
        form: {
            'seconds': statistics.median(values),
            'ratio': statistics.median(v / b for v, b in zip(values, base, strict=True)),
            'peak_mib': memory[form],
        }
        for form, values in times.items()
    }


def save_teacher(path: str, folder: str) -> dict:
    """A teacher of random weights from a config."""
    init_default_scope('mmseg')
    model = MODELS.build(without_weights(Config.fromfile(path).model))
    checkpoint = f'{folder}/teacher.pth'
    torch.save(model.state_dict(), checkpoint)
    return dict(config=path, checkpoint=checkpoint)


def plot(figures: dict, path: Path) -> None:
    """Bars of each form's time and peak memory, as times of cross-entropy's."""
    figure = Figure(figsize=(7, 1 + 1.8 * len(figures)), layout='constrained')
    axes = figure.subplots(len(figures), squeeze=False)
    for axis, (config, rows) in zip(axes[:, 0], figures.items(), strict=True):
        place = range(len(rows))
        base = rows['cross-entropy']['peak_mib']
        times = [row['ratio'] for row in rows.values()]
        memory = [row['peak_mib'] / base for row in rows.values()]
        for shift, values, label in ((-0.2, times, 'time'), (0.2, memory, 'peak memory')):
            bars = axis.barh([p + shift for p in place], values, 0.4, label=label)
            axis.bar_label(bars, fmt='%.2f', padding=2, fontsize=8)
        axis.set_yticks(place, rows)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.15 * max(times + memory))
        axis.set_title(Path(config).stem, fontsize=9)
        axis.axvline(1, color='black', linewidth=0.8)
    axes[0, 0].legend(fontsize=8)
    axes[-1, 0].set_xlabel("times cross-entropy's")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+')
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--size', type=int, default=256, help='height and width, a multiple of 16')
    parser.add_argument('--rounds', type=int, default=21)
    parser.add_argument('--teacher', help='config of a teacher with as many classes')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', type=Path, help='write the figures here')
    parser.add_argument('--plot', type=Path, help='draw the ratios here')
    args = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        args.saved_teacher = save_teacher(args.teacher, folder) if args.teacher else None
        for path in args.configs:
            figures[path] = measure(path, args)
    for path in args.configs:
        table = PrettyTable(['form', 'ms a step', 'times cross-entropy', 'peak MiB'])
        for form, row in figures[path].items():
            memory = f'{row["peak_mib"]:.0f}'
            table.add_row([form, f'{1e3 * row["seconds"]:.0f}', f'{row["ratio"]:.3f}', memory])
        print(f'{path}, batch {args.batch}, {args.size}x{args.size}, {args.device}\n{table}')
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')
    if args.plot is not None:
        plot(figures, args.plot)


if __name__ == '__main__':
    main()

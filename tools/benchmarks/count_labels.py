"""Speed of counting label maps, against a bare loop of cv2.imread and np.bincount, interleaved.

A synthetic set like ADE20K: label maps of about 500x680 pixels with 150 classes and 0 for none, of
which a few hundred are drawn and linked under as many names as asked for. Ratios are medians over
the rounds of the ratio within a round, since a machine's speed drifts; each round counts a folder
of its own, from the building of the data set on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from prettytable import PrettyTable

import mmseg_ltmi  # noqa: F401  registers everything
from mmseg_ltmi.core.priors import count_dataset

NUM_CLASSES = 150
BARE = 'bare loop'
WARM = 'warm cache'


def draw_labels(rng: np.random.Generator) -> np.ndarray:
    """A label map of random ellipses, uint8 (H, W), the rarer the higher the class."""
    height, width = rng.integers(440, 560), rng.integers(600, 760)
    labels = np.zeros((height, width), np.uint8)
    for _ in range(60):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(5, 150)), int(rng.integers(5, 120)))
        label = int(NUM_CLASSES * rng.random() ** 3) + 1
        cv2.ellipse(labels, center, axes, float(rng.uniform(0, 180)), 0, 360, label, -1)
    return labels


def make_set(folder: Path, num_files: int, num_drawn: int, rounds: int) -> None:
    """Draw label maps, and link them under as many names in a folder per round."""
    rng = np.random.default_rng(0)
    for name in ('drawn', *map(str, range(rounds))):
        (folder / name).mkdir()
    for i in range(num_drawn):
        cv2.imwrite(str(folder / 'drawn' / f'{i}.png'), draw_labels(rng))
    for i in range(num_files):
        source = folder / 'drawn' / f'{i % num_drawn}.png'
        path = folder / str(i % rounds) / f'{i:06}.png'
        try:
            os.link(source, path)
        except OSError:  # a file system without hard links, or too many to one file
            shutil.copy(source, path)


def build(folder: Path) -> object:
    """The data set of a folder; no image is read, so the labels stand in for them."""
    return DATASETS.build(
        dict(
            type='BaseSegDataset',
            data_prefix=dict(img_path=str(folder), seg_map_path=str(folder)),
            img_suffix='.png',
            reduce_zero_label=True,
            metainfo=dict(classes=[f'class {c}' for c in range(NUM_CLASSES)]),
            pipeline=[dict(type='LoadAnnotations')],
        )
    )


def bare_loop(folder: Path) -> np.ndarray:
    """Pixels of each class by the shortest code there is, int64 (150,)."""
    total = np.zeros(256, np.int64)
    for path in folder.iterdir():
        labels: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        total += np.bincount(labels.ravel(), minlength=256)
    return total[1 : NUM_CLASSES + 1]


def count(folder: Path, **options: Any) -> np.ndarray:
    """Pixels of each class by count_dataset, int64 (150,)."""
    prior = count_dataset(build(folder), **options).prior
    assert prior is not None
    return prior.pixel_counts


def measure(folder: Path, args: argparse.Namespace) -> dict:
    """Images a second of each form, and its speed as a multiple of the bare loop's."""
    forms = {BARE: (0, bare_loop)}
    for n in args.workers:
        forms[f'{n} workers'] = (n, partial(count, num_workers=n))
    cache = folder / 'counts.txt'
    forms[WARM] = (0, partial(count, cache=cache))
    times: dict[str, list[float]] = {name: [] for name in forms}
    names = list(forms)
    for round_ in range(args.rounds):
        share = folder / str(round_)
        expected = bare_loop(share)  # also reads the files into the system's cache
        cache.unlink(missing_ok=True)
        count(share, cache=cache)
        start = round_ % len(names)  # no form is always the first
        for name in names[start:] + names[:start]:
            begin = time.perf_counter()
            counts = forms[name][1](share)
            times[name].append(time.perf_counter() - begin)
            assert (counts == expected).all(), f'{name} counts other numbers than the bare loop'
    per_round = args.files / args.rounds
    figures = {}
    for name, values in times.items():
        ratio = statistics.median(b / v for b, v in zip(times[BARE], values, strict=True))
        figures[name] = {
            'images_per_second': per_round / statistics.median(values),
            'speed': ratio,
            'speed_per_process': ratio / max(1, forms[name][0]),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--files', type=int, default=20000)
    parser.add_argument('--drawn', type=int, default=300, help='distinct label maps')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--folder', type=Path, help='where to make the set; default: temporary')
    parser.add_argument('--json', type=Path, help='write the figures here')
    args = parser.parse_args()
    if not 1 <= args.rounds <= args.files:
        parser.error('--rounds must be from 1 to --files')
    init_default_scope('mmseg')
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        make_set(Path(folder), args.files, args.drawn, args.rounds)
        figures = measure(Path(folder), args)
    table = PrettyTable(['form', 'images/s', 'speed / bare', 'per process / bare'])
    for name, row in figures.items():
        table.add_row(
            [name, f'{row["images_per_second"]:.0f}']
            + [f'{row[key]:.2f}' for key in ('speed', 'speed_per_process')]
        )
    print(f'{args.files} label maps, {args.rounds} rounds\n{table}')
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()

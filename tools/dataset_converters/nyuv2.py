"""Lay out NYU Depth v2 for NYUv2Dataset.

SOURCE is one of two:

* The folder of the official nyu_depth_v2_labeled.mat and splits.mat, both from
  cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html, and of classMapping40.mat, which maps the 894 raw
  classes to 40. It needs h5py.
* A folder of folders: images, and labels of the same names, PNG with 0 for unlabelled and 1..40 for
  a class. Sorted by the numbers in their names, they are the official images in order if there are
  1449, and splits.mat fits them. Else --test lists the test images.

Image I, from 0 on, becomes nyu_I.jpg and nyu_I.png, with I in four digits. Class c of the 40
becomes c - 1; otherprop, the 40th, and unlabelled pixels become 255.

Validation images are train images. Of the official file whole scenes are drawn, by --seed. Folders
say nothing of scenes, so there --val lists the images, or there are none.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

LABELED = 'nyu_depth_v2_labeled.mat'
RAW_CLASSES, CLASSES, IGNORE = 894, 40, 255
DRAWN_SHARE = 0.147  # 117 of the 795
SUFFIXES = ('.png', '.jpg', '.jpeg')


@dataclass(frozen=True)
class Source:
    """Images and labels in the official order.

    Args:
        names: what --test and --val call the images.
        read: the pixels (H, W, 3) as BGR and the labels (H, W) in 0..40 of an image, both uint8.
        scenes: of the images, None where unknown.
    """

    names: list[str]
    read: Callable[[int], tuple[np.ndarray, np.ndarray]]
    scenes: list[str] | None = None


def open_labeled(file: Path, mapping: Path) -> Source:
    """The official file. Nothing but the names is read yet.

    Raises:
        ImportError: h5py is missing.
        FileNotFoundError: there is no ``mapping``.
        ValueError: a file that is not what it should be.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f'{file} is an HDF5 file: pip install h5py') from error
    if not mapping.is_file():
        raise FileNotFoundError(
            f'{mapping} is missing: it maps the {RAW_CLASSES} raw classes to {CLASSES}. Give '
            'classMapping40.mat of Gupta et al. (CVPR 2013) as --mapping; '
            'github.com/ankurhanda/nyuv2-meta-data has it'
        )
    classes = _numbers(mapping, 'mapClass')
    if len(classes) != RAW_CLASSES or classes.min() < 0 or classes.max() > CLASSES:
        raise ValueError(f'mapClass in {mapping} must be {RAW_CLASSES} numbers in 0..{CLASSES}')
    to_40 = np.concatenate([[0], classes]).astype(np.uint8)
    try:
        content = h5py.File(file, 'r')
        images, labels, scenes = (content[key] for key in ('images', 'labels', 'scenes'))
    except (OSError, KeyError) as error:
        raise ValueError(f'{file} cannot be read as {LABELED}: {error}') from error

    def read(i: int) -> tuple[np.ndarray, np.ndarray]:
        raw = labels[i].T
        if raw.max() > RAW_CLASSES:
            raise ValueError(f'{file}: image {i} has label {raw.max()}, not 0..{RAW_CLASSES}')
        # MATLAB's order of axes is the reverse of HDF5's.
        return np.ascontiguousarray(images[i].transpose(2, 1, 0)[..., ::-1]), to_40[raw]

    return Source(
        names=[_name(i) for i in range(len(images))],
        read=read,
        scenes=[''.join(map(chr, np.ravel(content[scene]))) for scene in np.ravel(scenes)],
    )


def open_folders(images: Path, labels: Path) -> Source:
    """Folders of images and of labels in 0..40.

    Raises:
        FileNotFoundError: a folder or a label map is missing.
    """
    if not (images.is_dir() and labels.is_dir()):
        raise FileNotFoundError(
            f'{images.parent} has neither {LABELED} nor the folders {images.name} and '
            f'{labels.name}: name other folders as --images and --labels'
        )
    files = sorted((f for f in images.iterdir() if f.suffix.lower() in SUFFIXES), key=_in_order)
    for file in files:
        if not (labels / f'{file.stem}.png').is_file():
            raise FileNotFoundError(f'{file} has no label map {labels / file.stem}.png')

    def read(i: int) -> tuple[np.ndarray, np.ndarray]:
        return _read_pixels(files[i]), _read_labels(labels / f'{files[i].stem}.png')

    return Source(names=[file.stem for file in files], read=read)


def _in_order(file: Path) -> list[tuple[int, str]]:
    """A key that puts img2 before img10."""
    return [(int(n or 0), text) for text, n in re.findall(r'(\D*)(\d*)', file.stem)]


def _read_pixels(file: Path) -> np.ndarray:
    pixels = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(f'{file} cannot be read as an image')
    return pixels


def _read_labels(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as opened:  # of a palette the indices, where OpenCV gives colours
            labels = np.asarray(opened)
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{file} cannot be read as an image: {error}') from error
    if labels.ndim != 2 or labels.max() > CLASSES:
        raise ValueError(
            f'{file} must be one channel with labels 0..{CLASSES}, 0 for unlabelled and 1 for wall'
        )
    return labels.astype(np.uint8)


def _numbers(file: Path, key: str) -> np.ndarray:
    """The integers (N,) under a key of a .mat file."""
    try:
        return np.ravel(loadmat(str(file))[key]).astype(np.int64)
    except (KeyError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise ValueError(f'{file} cannot be read as a .mat file with {key}: {error}') from error


def _listed(file: Path, names: list[str]) -> list[int]:
    """The images that a file lists, one a line."""
    index = {name: i for i, name in enumerate(names)}
    lines = [line.strip() for line in file.read_text(encoding='utf-8').splitlines()]
    listed = [line if line in index else Path(line).stem for line in lines if line]
    unknown = [name for name in listed if name not in index]
    if unknown:
        raise ValueError(
            f'{file} lists {unknown[0]} ({len(unknown)} such), but the images are named '
            f'{names[0]} to {names[-1]}'
        )
    return sorted({index[name] for name in listed})


def official_split(file: Path, number: int) -> tuple[list[int], list[int]]:
    """The train and the test images, from 0 on, of splits.mat.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it does not split just ``number`` images.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f'{file} is missing: give the official splits.mat as --splits, or a list of the test '
            'images, a name a line, as --test'
        )
    train, test = (sorted(_numbers(file, key) - 1) for key in ('trainNdxs', 'testNdxs'))
    if sorted(train + test) != list(range(number)):
        raise ValueError(
            f'{file} splits {len(train)} + {len(test)} images, which are not the {number} of the '
            'source: give a list of the test images, a name a line, as --test'
        )
    return [int(i) for i in train], [int(i) for i in test]


def draw_scenes(train: list[int], scenes: list[str], share: float, seed: int) -> list[int]:
    """Images of scenes drawn at random, at most ``share`` of ``train``."""
    left = round(share * len(train))
    sizes = Counter(scenes[i] for i in train)
    drawn = set()
    # numpy keeps RandomState's numbers the same for ever, those of its newer generators not.
    for scene in np.random.RandomState(seed).permutation(sorted(sizes)):
        if sizes[scene] <= left:
            drawn.add(scene)
            left -= sizes[scene]
    return [i for i in train if scenes[i] in drawn]


def split_images(source: Source, args: argparse.Namespace) -> dict[str, list[int]]:
    """The images of train, val and test."""
    everything = range(len(source.names))
    if args.test is not None:
        test = _listed(args.test, source.names)
        train = sorted(set(everything) - set(test))
    else:
        train, test = official_split(args.splits, len(everything))
    val: list[int] = []
    if args.val is not None:
        val = _listed(args.val, source.names)
        both = set(val) & set(test)
        if both:
            raise ValueError(f'{args.val} lists {source.names[min(both)]}, which is a test image')
    elif source.scenes is not None:
        val = draw_scenes(train, source.scenes, args.val_share, args.seed)
    return {'train': [i for i in train if i not in val], 'val': val, 'test': test}


def write(
    source: Source, splits: dict[str, list[int]], target: Path, short_side: int | None
) -> None:
    """Write the images and labels; those of an earlier run go, as they may be of other splits.

    Raises:
        ValueError: images or labels that cannot be read or do not fit each other.
        OSError: they cannot be written.
    """
    for file in [*target.glob('img_dir/*/nyu_*.jpg'), *target.glob('ann_dir/*/nyu_*.png')]:
        file.unlink()
    to_train = np.array([IGNORE, *range(CLASSES - 1), IGNORE], np.uint8)
    for split, images in splits.items():
        for i in images:
            pixels, labels = source.read(i)
            if pixels.shape[:2] != labels.shape:
                raise ValueError(
                    f'image {source.names[i]} is {pixels.shape[:2]}, its labels {labels.shape}'
                )
            if short_side is not None:
                pixels, labels = _resized(pixels, labels, short_side)
            _save(target / 'img_dir' / split / f'{_name(i)}.jpg', pixels)
            _save(target / 'ann_dir' / split / f'{_name(i)}.png', to_train[labels])


def _name(i: int) -> str:
    return f'nyu_{i:04d}'


def _resized(
    pixels: np.ndarray, labels: np.ndarray, short_side: int
) -> tuple[np.ndarray, np.ndarray]:
    height, width = labels.shape
    scale = short_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    # The plain nearest neighbour takes corners, not centres: half a pixel beside the image.
    return (
        cv2.resize(pixels, size, interpolation=kind),
        cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT),
    )


def _save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if file.suffix == '.jpg' else []
    if not cv2.imwrite(str(file), pixels, options):
        raise OSError(f'{file} cannot be written')


def convert(args: argparse.Namespace) -> dict[str, int]:
    """Convert what the command line names; the number of images in each split."""
    labeled = args.source if args.source.is_file() else args.source / LABELED
    args.splits = args.splits or labeled.parent / 'splits.mat'
    if labeled.is_file():
        source = open_labeled(labeled, args.mapping or labeled.parent / 'classMapping40.mat')
    else:
        folders = (args.source / args.images, args.source / args.labels)
        out = args.out.resolve()
        if any({out / 'img_dir', out / 'ann_dir'} & set(f.resolve().parents) for f in folders):
            raise ValueError(f'{folders[0]} is in --out {args.out}, where it would be replaced')
        source = open_folders(*folders)
    splits = split_images(source, args)
    write(source, splits, args.out, args.short_side)
    return {split: len(images) for split, images in splits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help=f'folder, or {LABELED} itself')
    parser.add_argument('--out', type=Path, default=Path('data/nyudv2'))
    parser.add_argument('--force', action='store_true', help='replace the images in --out')
    parser.add_argument('--splits', type=Path, help='default: splits.mat in SOURCE')
    parser.add_argument('--mapping', type=Path, help='default: classMapping40.mat in SOURCE')
    parser.add_argument('--images', default='images', help='folder in SOURCE (default: images)')
    parser.add_argument('--labels', default='labels', help='folder in SOURCE (default: labels)')
    parser.add_argument(
        '--test', type=Path, help='list of the test images, in place of splits.mat: a name a line'
    )
    parser.add_argument(
        '--val', type=Path, help='list of the images that validate; of the official file nyu_0018'
    )
    parser.add_argument(
        '--val-share',
        type=float,
        default=DRAWN_SHARE,
        help='without --val, at most this share of the train images is drawn (default: %(default)s,'
        ' 117 images)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the draw (default: %(default)s)')
    parser.add_argument('--short-side', type=int, help='resize to this, such as 256')
    args = parser.parse_args()
    if not 0 <= args.val_share < 1:
        parser.error(f'--val-share {args.val_share} is not in [0, 1)')
    if args.short_side is not None and args.short_side < 1:
        parser.error(f'--short-side {args.short_side} is not positive')
    if args.out.exists() and not args.force:
        sys.exit(f'{args.out} exists: name another folder or give --force')
    try:
        counts = convert(args)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
    for split, number in counts.items():
        print(f'{split}: {number} images')
    if (counts['train'] + counts['val'], counts['test']) != (795, 654):
        print('NYUv2 has 795 images for train and val together, and 654 for test')
    if not counts['val']:
        print('No images to validate: list some of the train images as --val')


if __name__ == '__main__':
    main()

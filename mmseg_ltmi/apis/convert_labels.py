"""Turns colour masks into label maps, which mmsegmentation reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from mmseg_ltmi.core.json_file import read_json
from mmseg_ltmi.core.progress import progress_bar

IGNORE = 255
MODES = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA')


class Converted(NamedTuple):
    """What was converted.

    Attributes:
        num_files: label maps that were written.
        pixels: int64 (C + 1,) pixels of each class, then of colours that the palette lacks.
    """

    num_files: int
    pixels: np.ndarray


def convert_labels(
    masks: str | Path,
    out: str | Path,
    palette: str | Path | Sequence[Sequence[int]],
    suffix: str = '.png',
    ignore_others: bool = False,
    progress: bool = False,
) -> Converted:
    """Write a label map, PNG of one channel with class indices, for each colour mask in a folder.

    Args:
        masks: a folder; those below it are read too. A grey mask has equal red, green and blue, and
            a PNG with a palette its colours.
        out: a folder, in which the files keep their names.
        palette: C colours (red, green, blue) in the order of the classes; a JSON file with such a
            list, or with ``{"class": [red, green, blue], ...}``; or the name of a data set whose
            palette mmsegmentation knows, such as 'cityscapes'.
        suffix: end of the names of the masks.
        ignore_others: give colours that the palette lacks the label 255.
        progress: show a progress bar on stderr.

    Raises:
        FileNotFoundError: no such folder, or no mask in it.
        ValueError: ``out`` is ``masks`` or in it, two masks of one name, no palette, or a mask
            that is no image of 8 bits or has other colours.
    """
    source, target = Path(masks), Path(out)
    if not source.is_dir():
        raise FileNotFoundError(f'{source} is no folder: give the one that holds the masks')
    files = sorted(path for path in source.rglob(f'*{suffix}') if path.is_file())
    if not files:
        raise FileNotFoundError(f'{source} has no file that ends in {suffix}: give --suffix')
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(
            f'{target} holds the masks or lies among them, so that what is written would be read '
            f'as a mask: name a folder outside {source}'
        )
    places = _places_of(files, source, target)
    codes = _codes_of(palette)
    pixels = np.zeros(len(codes) + 1, np.int64)
    with progress_bar(len(files) if progress else None, 'converting masks') as advance:
        for file, place in zip(files, places, strict=True):
            labels = _labels_of(file, codes, ignore_others)
            pixels += np.bincount(np.minimum(labels, len(codes)).ravel(), minlength=len(codes) + 1)
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(place)
            advance()
    return Converted(len(files), pixels)


def _places_of(files: list[Path], source: Path, target: Path) -> list[Path]:
    """Where the label map of each mask is written."""
    masks: dict[Path, Path] = {}
    for file in files:
        place = (target / file.relative_to(source)).with_suffix('.png')
        if place in masks:
            raise ValueError(
                f'{masks[place]} and {file} would both be written to {place}: choose one of them '
                'with --suffix, or rename it'
            )
        masks[place] = file
    return list(masks)


def _codes_of(palette: str | Path | Sequence[Sequence[int]]) -> np.ndarray:
    """A number for each colour, int64 (C,)."""
    colours: object = palette
    where = 'the palette'
    if isinstance(palette, (str, Path)):
        where = str(palette)
        if Path(palette).suffix == '.json':
            colours = read_json(Path(palette), 'write the colours as [[0, 0, 0], [128, 0, 0], ...]')
        else:
            from mmseg.utils import get_palette  # only here: it takes a while to import

            try:
                colours = get_palette(where)
            except ValueError as error:
                raise ValueError(
                    f'{where} is neither a .json file nor a data set whose palette mmsegmentation '
                    'knows, such as cityscapes, ade or voc'
                ) from error
    listed = list(colours.values()) if isinstance(colours, dict) else colours
    try:
        table = np.array(listed)
    except ValueError:  # colours of several lengths
        table = np.empty(0)
    fits = table.ndim == 2 and table.shape[1] == 3 and table.dtype.kind in 'iu'
    if not fits or not 0 <= table.min() <= table.max() <= 255 or not len(table) <= IGNORE:
        raise ValueError(
            f'{where} must hold a colour [red, green, blue] of numbers from 0 to 255 for each '
            f'class, of which there are at most {IGNORE}'
        )
    codes = _coded(table)
    alike, times = np.unique(codes, return_counts=True)
    if (times > 1).any():
        classes = np.flatnonzero(codes == alike[times > 1][0]).tolist()
        raise ValueError(f'{where} gives the classes {classes} the same colour')
    return codes


def _coded(colours: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return (red << 16) + (green << 8) + blue


def _labels_of(file: Path, codes: np.ndarray, ignore_others: bool) -> np.ndarray:
    """The label map of a mask, uint8 (H, W)."""
    try:
        with Image.open(file) as image:
            if image.mode not in MODES:
                raise ValueError(f'it is of mode {image.mode}')
            if _is_scaled(image):
                raise ValueError('it has not 8 bits a channel, to which Pillow scales it: save 8')
            mask = _coded(np.asarray(image.convert('RGB')))
    except (OSError, ValueError) as error:
        raise ValueError(f'{file} cannot be read as an image of 8 bits: {error}') from error
    order = np.argsort(codes)
    place = np.searchsorted(codes[order], mask).clip(max=len(codes) - 1)
    labels = order[place]
    unknown = codes[labels] != mask
    if unknown.any() and not ignore_others:
        found, times = np.unique(mask[unknown], return_counts=True)
        colour = int(found[times.argmax()])
        raise ValueError(
            f'{file} has {len(found)} colours that the palette lacks, most often '
            f'{[colour >> 16, colour >> 8 & 255, colour & 255]}, {times.max()} pixels. Add what is '
            'a class, and give --ignore-others if the rest belongs to none. Very many colours are '
            'a mask that JPEG or resizing has blended: take the original'
        )
    return np.where(unknown, IGNORE, labels).astype(np.uint8)


def _is_scaled(image: ImageFile.ImageFile) -> bool:
    # The mode is of 8 bits whatever the file has. How its data are packed is said: RGB;16B in PNG
    # and TIFF, (RGB, highest value) in PPM.
    for codec, _, _, packed in image.tile:
        said = packed if isinstance(packed, tuple) else (packed,)
        if str(said[0]).endswith((';16B', ';16L', ';16N')):
            return True
        if codec.startswith('ppm') and said[1:] not in ((), (255,)):
            return True
    return False

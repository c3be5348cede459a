"""Counts of single images in a file, so that counting can be stopped and goes on."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..whole_file import whole_file
from .label_histogram import ImageCount


class CountCache:
    """A file to which the counts of images are appended, each under its key.

    A line holds a CRC-32 and JSON. What a kill leaves half-written, or a disk damages, is left
    out with a warning, and those images are counted again. A key says all that its counts depend
    on (see :func:`image_keys`), so nothing in the file grows stale; it may be deleted at any time.

    Args:
        path: the file; it is made with the first count.
        num_classes: classes of the counts.
    """

    def __init__(self, path: str | Path, num_classes: int) -> None:
        self.path = Path(path)
        self.num_classes = num_classes
        self._lines: dict[str, bytes] = {}
        if self.path.exists():
            self._load()

    def get(self, key: str) -> ImageCount | None:
        """The counts that were added under a key, without the path; None if there are none."""
        line = self._lines.get(key)
        if line is None:
            return None
        entry = json.loads(line[9:])
        pixels = np.zeros(self.num_classes, np.int64)
        pixels[entry['classes']] = entry['pixels']
        return ImageCount('', pixels, entry['ignored'])

    def add(self, counts: Iterable[tuple[str, ImageCount]]) -> None:
        """Append counts under their keys; images that failed or have no sure key are left out."""
        lines = [_line(k, c) for k, c in counts if not c.error and not k.endswith('?')]
        if lines:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, 'ab') as file:
                file.write(b''.join(lines))

    def _load(self) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True)
        num_bad = 0
        for line in lines:
            if line.endswith(b'\n') and line[:9] == b'%08x ' % zlib.crc32(line[9:]):
                self._lines[json.loads(line[9:])['image']] = line
            else:
                num_bad += 1
        if num_bad:
            warnings.warn(
                f'{self.path}: {num_bad} of {len(lines)} lines cannot be read; the images that '
                'they stood for are counted again',
                stacklevel=3,
            )
            # Whole again, so that the next count does not join a broken line.
            with whole_file(self.path) as part:
                part.write_bytes(b''.join(self._lines.values()))


def _line(key: str, count: ImageCount) -> bytes:
    classes = np.flatnonzero(count.pixels)
    entry = {
        'image': key,
        'ignored': count.num_ignored,
        'classes': classes.tolist(),
        'pixels': count.pixels[classes].tolist(),
    }
    text = json.dumps(entry).encode() + b'\n'
    return b'%08x ' % zlib.crc32(text) + text

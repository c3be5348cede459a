"""Where the file of a class prior lies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

PUBLISHED = Path(__file__).parent / 'published'
MORE_FOLDERS: list[Callable[[], Iterable[Path]]] = []
"""Each gives folders in which a relative path is looked up after the working directory."""


def find_prior_file(name: str | Path) -> Path:
    """The file of a published name or a path.

    Raises:
        FileNotFoundError: no such name and no such file; it says where it was looked for.
    """
    published = sorted(file.stem for file in PUBLISHED.glob('*.json'))
    if str(name) in published:
        return PUBLISHED / f'{name}.json'
    paths = [Path(name)]
    if not paths[0].is_absolute():
        paths += [folder / name for folders in MORE_FOLDERS for folder in folders()]
    for path in paths:
        if os.path.isfile(path):  # False also for a text that can be no path
            return path
    tried = dict.fromkeys(os.path.abspath(path) for path in paths)
    raise FileNotFoundError(
        f'no class prior {str(name)!r:.300}: it is neither a published one '
        f'({", ".join(published)}) nor a file (tried {" and ".join(tried)!s:.400}). Correct the '
        'path, or count it with mmseg-ltmi count'
    )

"""Where the file of a class prior lies."""

from __future__ import annotations

import os
from pathlib import Path

PUBLISHED = Path(__file__).parent / 'published'


def find_prior_file(name: str | Path) -> Path:
    """The file of a published name or a path.

    Raises:
        FileNotFoundError: no such name and no such file; it says where it was looked for.
    """
    published = sorted(file.stem for file in PUBLISHED.glob('*.json'))
    if str(name) in published:
        return PUBLISHED / f'{name}.json'
    if os.path.isfile(name):  # False also for a text that can be no path
        return Path(name)
    raise FileNotFoundError(
        f'no class prior {str(name)!r:.300}: it is neither a published one '
        f'({", ".join(published)}) nor a file (tried {os.path.abspath(name)!s:.400}; a relative '
        f'path is looked up in the working directory, {os.getcwd()}, and then beside the config). '
        'Correct the path, or count it with mmseg-ltmi count'
    )

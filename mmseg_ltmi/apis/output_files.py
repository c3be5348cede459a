"""Where a command writes: what is refused before the work begins, and what is shown at its end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import EACCES
from pathlib import Path
from tempfile import TemporaryFile


def beside(checkpoint: str, name: str) -> Path:
    """A place beside a checkpoint.

    Raises:
        ValueError: the checkpoint is an address.
    """
    if '://' in checkpoint:
        raise ValueError(
            f'{checkpoint} is an address, and nothing can be written beside it: name a place with '
            '--out'
        )
    return Path(checkpoint).parent / name


def refuse_existing(paths: Iterable[Path], force: bool) -> None:
    """Raise FileExistsError for what is there, unless it may be replaced."""
    for path in paths:
        if path.exists() and not force:
            raise FileExistsError(f'{path} exists: name another place or give --force')


def refuse_inputs(outputs: Iterable[Path], *inputs: str | Path | None) -> None:
    """Raise ValueError for an output that is read as well, which nothing may replace."""
    read = {Path(path).resolve() for path in inputs if path is not None}
    for path in outputs:
        if path.resolve() in read:
            raise ValueError(f'{path} is what is read: name another file to write')


def check_picture(path: Path) -> None:
    """Raise ValueError for a picture whose suffix is no format of one."""
    from mmseg_ltmi.visualization.canvas import picture_format

    picture_format(path)


def try_to_write(*paths: Path) -> None:
    """Make the folders of files and write there: what must fail does before the work, not after.

    Raises:
        OSError: a folder that cannot be made or written to, or a file that cannot be replaced.
    """
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise OSError(EACCES, 'it is a folder')
            if path.exists() and not os.access(path, os.W_OK):
                raise OSError(EACCES, 'it is read-only')
            if path.is_file() or not path.exists():  # a device needs no room beside it
                with TemporaryFile(dir=path.parent) as file:
                    file.write(b'0')
        except OSError as error:
            raise OSError(
                f'{path} cannot be written ({error.strerror}): name another place'
            ) from error


@contextmanager
def printing_at_last(*texts: str) -> Iterator[None]:
    """Print after what is done meanwhile, such as saving, and also where that fails.

    Not before it: whoever reads what is printed may end first, as head does.
    """
    try:
        yield
    finally:
        print(*texts, sep='\n')

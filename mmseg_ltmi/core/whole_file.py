"""Writes a file as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A name to write to, in the folder of a file, which is made; at the end it takes its place.

    A reader never sees half a file, and one that was there stays where writing fails. What is no
    file, such as /dev/null, is written to itself.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        yield path
        return
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names none
        raise
    finally:
        part.unlink(missing_ok=True)

"""Writes a small JSON file, and reads one that may come from anywhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .whole_file import whole_file

MAX_BYTES = 64 * 2**20


def write_json(path: str | Path, value: Any) -> None:
    """Write a value, and the folder if need be; a reader never sees half a file."""
    with whole_file(path) as part:
        part.write_text(json.dumps(value, indent=1) + '\n', encoding='utf-8')


def read_json(path: str | Path, remedy: str) -> Any:
    """What a JSON file holds.

    Args:
        path: the file.
        remedy: what makes a good one, for the message.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is too large, truncated or no JSON.
    """
    if not os.path.isfile(path):  # False also for a text that can be no path
        raise FileNotFoundError(f'there is no file {str(path)!r:.300}: {remedy}')
    if os.path.getsize(path) > MAX_BYTES:
        raise ValueError(f'{path} is larger than {MAX_BYTES} bytes: {remedy}')
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number of no end
        raise ValueError(f'{path} is no complete JSON ({error}): {remedy}') from error

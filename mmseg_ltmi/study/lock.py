"""Locks between processes; a process that ends, however it does, gives them back."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO


def locked(file: IO, patience: float = 10) -> bool:
    """Lock an open file, within some seconds; whether that went well."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.5)


def in_use(path: Path) -> bool:
    """Whether somebody has locked a file."""
    try:
        with path.open('r+') as file:
            return not locked(file, patience=0)
    except FileNotFoundError:
        return False

"""Writes tensors to a file, as torch.save does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .whole_file import whole_file


def save_tensors(content: Mapping[str, Any], path: str | Path) -> None:
    """Write tensors and what is with them, and the folder if need be; what is there is replaced.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    # To a stream: of a path, torch makes a full disk a RuntimeError.
    with whole_file(path) as part, open(part, 'wb') as stream:
        torch.save(content, stream)

"""Reads a checkpoint as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader


def read_checkpoint(path: str | Path, where: str = '') -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checkpoint file holds, and its state dict, on the CPU.

    Tensors, plain values and mmengine's log history are read, and never code (torch >= 2.6).

    Args:
        path: a file, or whatever else mmengine's CheckpointLoader takes.
        where: what names the file, for the message, such as 'teacher.checkpoint='.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is truncated, is no checkpoint, or asks for more than data.
    """
    try:
        content = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{where}{path} does not exist') from error
    except Exception as error:  # whatever a broken file makes torch raise
        reason = f'{type(error).__name__}: {error}'
        raise ValueError(
            f'{where}{path} cannot be read as a checkpoint. It is truncated, is none, or asks for '
            f'more than data, which is refused: write or download it again ({reason:.500})'
        ) from error
    state = content.get('state_dict', content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError(
            f'{where}{path} holds a {type(state).__name__}: it must be a state dict or what '
            'training has written'
        )
    return content, state

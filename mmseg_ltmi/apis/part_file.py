"""A file of what a process has drawn so far, from which the same command goes on."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.dist import get_dist_info

from mmseg_ltmi.core.posterior import KeyReservoir
from mmseg_ltmi.core.tensor_file import save_tensors


def remove_part(part: str | Path) -> None:
    """Remove this rank's file of what :func:`~mmseg_ltmi.apis.memory.make_memory` has drawn."""
    _own_part(part).unlink(missing_ok=True)


class PartFile:
    """What is drawn so far, in a file of this rank, or nowhere.

    Args:
        path: the file; None keeps nothing.
        whose: what it depends on; a file of another run is refused.
        reservoir: what is kept.
    """

    def __init__(self, path: str | Path | None, whose: dict, reservoir: KeyReservoir) -> None:
        self.path = None if path is None else _own_part(path)
        self.whose = whose
        self.reservoir = reservoir

    def load(self) -> int:
        """Go on from the file, if it is there; the number of the image to begin with."""
        if self.path is None or not self.path.exists():
            return 0
        content = torch.load(self.path, map_location='cpu', weights_only=True)
        if content['whose'] != self.whose:
            raise ValueError(
                f'{self.path} is of a run with another checkpoint, data set or other arguments '
                f'({content["whose"]}, now {self.whose}): give the same ones to go on, or delete it'
            )
        self.reservoir.load_state_dict(content['reservoir'])
        return content['next_image']

    def save(self, next_image: int) -> None:
        """Keep what is drawn of all images before the next one."""
        if self.path is None:
            return
        state = self.reservoir.state_dict()
        content = {'whose': self.whose, 'next_image': next_image, 'reservoir': state}
        save_tensors(content, self.path)


def _own_part(path: str | Path) -> Path:
    """That of this rank."""
    rank, world_size = get_dist_info()
    return Path(f'{path}.{rank}' if world_size > 1 else path)

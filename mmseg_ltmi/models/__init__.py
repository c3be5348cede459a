"""The core as mmsegmentation's models: losses, heads, segmentors, and a backbone."""

from typing import TYPE_CHECKING, Any

from mmseg_ltmi.compat import require_openmmlab

require_openmmlab()

from . import backbones, contrast, decode_heads, losses, segmentors  # noqa: E402
from .decode_heads import *  # noqa: E402, F403  LTMI<Head> for configs that name classes

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # the LTMI heads are made when this is imported


__all__ = ['backbones', 'contrast', 'decode_heads', 'losses', 'segmentors']

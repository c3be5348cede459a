"""Buffers that keep their precision in a model of half precision."""

from __future__ import annotations

from typing import Any

from torch import nn


class KeepBufferDtype(nn.Module):
    """Its own buffers follow to another device, and to no other dtype."""

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> KeepBufferDtype:
        own = dict(self.named_buffers(recurse=False))
        super()._apply(fn, *args, **kwargs)
        for name, buffer in own.items():
            moved = self.get_buffer(name)
            if moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self

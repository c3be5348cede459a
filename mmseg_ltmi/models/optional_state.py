"""Buffers that a checkpoint may hold or not."""

from __future__ import annotations

from typing import Any

from torch import nn


class OptionalState(nn.Module):
    """A module whose buffers keep their values when a checkpoint does not hold them."""

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, metadata: dict, strict: bool, missing: list, *rest: Any
    ) -> None:
        known = len(missing)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)
        del missing[known:]  # a stock checkpoint loads, strictly too

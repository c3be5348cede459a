"""Seconds, peak memory and launches of a function, on a CPU or on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def finish(device: str) -> None:
    """Wait for what a GPU has queued."""
    if device != 'cpu':
        torch.cuda.synchronize()


def seconds(function: Callable[[], Any], device: str) -> float:
    """Wall time on a GPU, with what is queued; the processor's on a CPU, which others share."""
    clock = time.process_time if device == 'cpu' else time.perf_counter
    finish(device)
    start = clock()
    function()
    finish(device)
    return clock() - start


def peak_mib(function: Callable[[], Any]) -> float:
    """What a function adds to a GPU's memory at its peak."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def process_mib() -> float:
    """The peak memory of this process; Linux only."""
    # Not ru_maxrss, which begins at the peak of the parent. In kB.
    status = Path('/proc/self/status').read_text(encoding='utf-8')
    return int(status.split('VmHWM:')[1].split()[0]) / 2**10


def launches(function: Callable[[], Any], device: str) -> int:
    """Kernels, copies and fills that a GPU runs; torch's operators, views left out, on a CPU."""
    if device == 'cpu':
        with _Operators() as operators:
            function()
        return operators.number
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        function()
        torch.cuda.synchronize()
    on_gpu = torch.autograd.DeviceType.CUDA
    return sum(event.device_type == on_gpu for event in profile.events() or [])


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        returned = [value.alias_info for value in function._schema.returns]
        self.number += not any(alias is not None and not alias.is_write for alias in returned)
        return function(*args, **(kwargs or {}))

"""A function over many items, in processes that outlive neither the work nor who asked for it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any

import cv2

CHUNK = 32
_function: Callable[[Any], Any]


def map_chunks(
    function: Callable[[Any], Any], items: Sequence[Any], num_workers: int
) -> Generator[list, None, None]:
    """Results in the order of the items, in lists of up to 32.

    Args:
        function: sent to each process once; the items and results are what travels.
        items: a sequence; its items are taken as they are needed.
        num_workers: processes beside this one; 0 works here.

    Raises:
        BrokenProcessPool: a process died.
    """
    chunks = (items[i : i + CHUNK] for i in range(0, len(items), CHUNK))
    if num_workers == 0:
        for chunk in chunks:
            yield list(map(function, chunk))
        return
    pool = ProcessPoolExecutor(num_workers, initializer=_start, initargs=(function,))
    running: deque[Future] = deque()
    try:
        for chunk in chunks:
            running.append(pool.submit(_run, chunk))
            if len(running) > 4 * num_workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops early does not wait for the rest


def _start(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    cv2.setNumThreads(0)  # the processes are the parallel part
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A killed parent tells its pool nothing, and the processes would wait for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _run(chunk: Sequence[Any]) -> list:
    return list(map(_function, chunk))

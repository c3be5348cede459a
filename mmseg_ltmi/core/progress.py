"""A progress bar for what takes long."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(total: int | None, what: str) -> Iterator[Callable[[], None]]:
    """Shows a bar with the time that is left, on stderr, and yields what advances it by one.

    Args:
        total: steps to come; None shows nothing, nor is anything shown where stderr is no terminal.
            A step may take minutes: the time that is left follows from all of them.
        what: what is being done.
    """
    if total is None or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True),
        # What is printed meanwhile stands above the bar, but a file or a pipe gets its own.
        redirect_stdout=sys.stdout.isatty(),
        speed_estimate_period=math.inf,
    ) as progress:
        task = progress.add_task(what, total=total)
        progress.advance(task, 0)  # the first step is measured from here
        yield lambda: progress.advance(task)

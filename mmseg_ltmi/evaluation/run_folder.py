"""Where a metric of a run writes its files."""

from __future__ import annotations

from pathlib import Path

from mmengine.logging import MMLogger


def in_run_folder(file: str | Path) -> Path:
    """A path as a metric means it: a relative one lies in the folder of the run's log."""
    log_file = getattr(MMLogger.get_current_instance(), 'log_file', None)
    return Path(file) if log_file is None else Path(log_file).parent / file

"""A grid of trainings: what its file says, the runs that make it, and who does them."""

from .grid import chosen, plan, read_study
from .run import Run, finished, refuse_changes
from .tables import make_tables
from .workers import Workers

__all__ = [
    'Run',
    'Workers',
    'chosen',
    'finished',
    'make_tables',
    'plan',
    'read_study',
    'refuse_changes',
]

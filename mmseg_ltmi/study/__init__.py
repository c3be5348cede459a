"""A grid of trainings: what its file says, the runs that make it, and who does them."""

from .grid import chosen, plan, read_study
from .run import Run, refuse_changes
from .workers import Workers

__all__ = ['Run', 'Workers', 'chosen', 'plan', 'read_study', 'refuse_changes']

"""Plots."""

from .difference_plot import plot_class_differences
from .operating_point_plot import plot_operating_points
from .per_class_plot import plot_per_class_iou
from .prior_plot import plot_class_prior
from .tail_page import TailImage, draw_tail_page

__all__ = [
    'TailImage',
    'draw_tail_page',
    'plot_class_differences',
    'plot_class_prior',
    'plot_operating_points',
    'plot_per_class_iou',
]
